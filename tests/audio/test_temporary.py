from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from echo_agent.audio import temporary
from echo_agent.audio.recording import Recording
from echo_agent.audio.temporary import TemporaryFile
from echo_agent.errors import RecordingError
from tests.sounds import ffmpeg, lively, write

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="files without names are those of Linux")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("temporary")
    ffmpeg("-i", write(folder / "a.wav", lively(2.0, 16_000), 16_000), folder / "a.m4a")
    return folder / "a.m4a"


@LINUX
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGKILL"])
@pytest.mark.parametrize(
    "opened", ["Recording.open(sys.argv[1])", "Recording.from_bytes(open(sys.argv[1], 'rb').read())"]
)
def test_a_process_that_is_ended_leaves_no_file(
    sound: Path, tmp_path: Path, number: str, opened: str
) -> None:
    """It is ended when the first sound has been decoded, and more is to come."""
    code = f"""
import os, signal, sys
if "{number}" != "SIGKILL":
    signal.signal(signal.{number}, signal.SIG_DFL)  # under nohup it is ignored
from echo_agent.audio.decoded import WavWriter
from echo_agent.audio.recording import Recording
write = WavWriter.write
def write_and_end(writer, block):
    write(writer, block)
    os.kill(os.getpid(), signal.{number})
WavWriter.write = write_and_end
{opened}
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(sound)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == -getattr(signal, number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("most", [temporary._MOST_OPEN, 0], ids=["without a name", "with one"])
def test_it_is_written_read_and_gone(tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_MOST_OPEN", most)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = TemporaryFile()
    for _ in range(2):  # opened for writing, it is emptied
        Path(made.path).write_bytes(b"sound")
    read = subprocess.run(["cat", made.shared_path], capture_output=True)
    assert read.stdout == Path(made.path).read_bytes() == b"sound"
    assert bool(list(tmp_path.iterdir())) == (most == 0 or sys.platform != "linux")
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_none_is_said(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(
        RecordingError, match=r"^upload cannot be written to .*none \(No such file.* set TMPDIR"
    ):
        Recording.from_bytes(sound.read_bytes(), "upload")
    with pytest.raises(
        RecordingError, match=r"a\.m4a cannot be decoded: its sound cannot be written to .*none"
    ):
        Recording.open(sound)
