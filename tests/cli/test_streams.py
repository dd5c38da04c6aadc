"""Standard streams that are closed, full or a broken pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = "import sys; from echo_agent.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(
    ("streams", "code", "err"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "echo-agent: the output could not be written: No space left on device\n"),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_streams_that_are_closed_or_full(streams: str, code: int, err: str) -> None:
    for verb in ("models", "--version"):
        line = f'exec "$0" -W ignore -c "$1" {verb} {streams}'
        done = subprocess.run(["sh", "-c", line, sys.executable, CODE], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, err), verb


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What a C library writes to standard error would land in it."""
    code = "from echo_agent.cli import streams; streams.prepare(); import os, sys; f = open(sys.argv[1], 'w')"
    code += "; os.write(1, b'x'); os.write(2, b'y'); f.write(str(f.fileno() > 2))"
    line = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", line, sys.executable, code, tmp_path / "file"], check=True)
    assert (tmp_path / "file").read_text() == "True"


def test_a_closed_pipe_is_no_traceback(sound: Path) -> None:
    command = f'{sys.executable} -c \'from echo_agent.cli import main; main(["models", "--json"])\' | true'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=dict(os.environ))
    assert done.stderr == ""
