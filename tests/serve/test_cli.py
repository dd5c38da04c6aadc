"""``echo-agent serve`` as a process: it says where it is, answers the example's client, and stops when told to."""

from __future__ import annotations

import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from echo_agent.cli import main
from echo_agent.serve.settings import KEY

ROOT = Path(__file__).parents[2]


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it says where it is, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "echo_agent.cli", "serve", "--port", "0", "--model", "echo-nano", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at http://127.0.0.1:" in line, (
            line,
            process.stderr.read() if process.stderr and not line else "",
        )
        yield process, line.split(" at ")[1].split(" (")[0]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_the_example_asks_a_server_and_it_stops_when_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn")
    monkeypatch.setenv(KEY, "open-sesame")
    with running() as (process, address):
        runpy.run_path(str(ROOT / "examples" / "ask_a_server.py"))["main"](
            address, str(ROOT / "examples" / "01.flac"), "Which digits are spoken after the drum?"
        )
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "stopped\n", "")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["listens again to 61 to 66 s", "answer: two one five three"]
    assert lines[2].endswith(" written")


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(["serve", *arguments])
    out, err = capfd.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err


def test_what_is_wrong_is_said_before_the_model_is_loaded(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert f"set {KEY} to one" in refused(capfd, "--host", "0.0.0.0")
    monkeypatch.setenv(KEY, "short")
    assert "8 or more printable" in refused(capfd)
    monkeypatch.delenv(KEY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in refused(capfd, "--port", port)


def test_a_missing_extra_is_named(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'echo-agent[serve]'" in refused(capfd)
