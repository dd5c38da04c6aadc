"""The examples run as they stand, on a recording and a question of the examples."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "run.html"
    main = runpy.run_path(str(ROOT / "examples" / "report_of_a_run.py"))["main"]
    main(page=str(page))
    assert capsys.readouterr().out == f"two one five three: see {page}\n"
    text = page.read_text(encoding="utf-8")
    assert "1:01.0 – 1:06.0" in text and 'data-time="62"' in text, (
        "bare seconds are times, as echo-nano writes them"
    )


@pytest.mark.slow
def test_the_studio() -> None:
    """It comes up around the embedded model; a test of its own drives it in a browser."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples" / "studio.py"), "echo-nano", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:") and "echo-agent studio" in httpx.get(address).text
    finally:
        process.kill()
        process.communicate()
