from __future__ import annotations

import sys

import pytest

from echo_agent.audio import limited
from echo_agent.audio.limited import run_limited


def _run(code: str) -> tuple[int, str | None, bytes, list[str]]:
    pieces: list[bytes] = []
    lines: list[str] = []
    exit_code, why = run_limited([sys.executable, "-S", "-c", code], pieces.append, lines.append)
    return exit_code, why, b"".join(pieces), lines


def test_what_a_program_writes_and_says() -> None:
    code = "import sys; sys.stdout.buffer.write(bytes(3 << 20)); sys.stderr.write('one\\rtwo\\nthree'); sys.exit(3)"
    assert _run(code) == (3, None, bytes(3 << 20), ["one", "two", "three"])


def test_of_a_line_without_end_the_beginning_is_kept() -> None:
    _, _, _, lines = _run("import sys; sys.stderr.write('x' * 100_000 + '\\nend\\n')")
    assert lines == ["x" * 4096, "end"]


def test_a_program_that_gives_nothing_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "PATIENCE", 0.2)
    code, why, _, _ = _run("import time; time.sleep(100)")
    assert code != 0 and why is not None and why.startswith("it was stopped after ")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
def test_a_program_that_wants_too_much_memory_does_not_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    code, why, written, lines = _run("import time; time.sleep(0.1); bytearray(2 << 30); print('got it')")
    assert (code, why, written, lines[-1]) == (1, None, b"", "MemoryError")
