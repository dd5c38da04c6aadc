from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from echo_agent.audio import ffmpeg as ffmpeg_module
from echo_agent.audio import limited
from echo_agent.audio.ffmpeg import Report, decode_stream, find_ffmpeg, find_ffmpegs, look_at
from echo_agent.audio.recording import Recording
from echo_agent.errors import RecordingError
from tests.sounds import ffmpeg, tone, write

RATE = 16_000
SCRIPTS = pytest.mark.skipif(os.name == "nt", reason="the programs of this test are shell scripts")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ffmpeg")
    ffmpeg("-i", write(folder / "a.wav", tone(440.0, 2.0), RATE), folder / "a.m4a")
    return folder / "a.m4a"


def _program(folder: Path, script: str) -> Path:
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


BROKEN = {
    "a library is missing": 'echo "error while loading shared libraries: libopenh264.so.5" >&2; exit 127',
    "it says nothing": "exit 0",
    "it crashes": "kill -SEGV $$",
    "it knows no codec": 'echo "Input #0, mov, from x:" >&2; echo "  Stream #0:0: Audio: aac, 16000 Hz" >&2; exit 1',
    "it knows no container": 'echo "Error opening input file $*: Invalid data found" >&2; exit 183',
    "it finds no sound": 'echo "Input #0, mov, from x:" >&2; exit 1',
}


@SCRIPTS
@pytest.mark.parametrize("fault", BROKEN)
def test_an_ffmpeg_that_is_broken_gives_way_to_the_next(
    sound: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = _program(tmp_path / "bin", BROKEN[fault])
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert find_ffmpeg() == str(program)
    assert Recording.open(sound).duration == pytest.approx(2.0, abs=0.1)


@SCRIPTS
def test_an_ffmpeg_that_is_no_program_or_hangs_gives_way(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = _program(tmp_path / "empty", "")
    empty.write_bytes(b"\x7fELF and no more")
    hangs = _program(tmp_path / "hangs", "exec sleep 100")
    monkeypatch.setenv("PATH", os.pathsep.join([str(empty.parent), str(hangs.parent), os.environ["PATH"]]))
    with monkeypatch.context() as patch:
        patch.setattr(ffmpeg_module, "_look", _patiently(ffmpeg_module._look, hangs))
        assert Recording.open(sound).duration == pytest.approx(2.0, abs=0.1)


def _patiently(look, impatient: Path):  # type: ignore[no-untyped-def]
    """Only the program that hangs is waited for so shortly."""

    def wrapped(program: str, path: str, options: tuple[str, ...]) -> Report:
        limited.PATIENCE = 0.1 if program == str(impatient) else 30.0
        return look(program, path, options)

    return wrapped


@SCRIPTS
def test_where_none_works_the_message_says_what_each_said(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = _program(tmp_path / "bin", BROKEN["a library is missing"])
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(
        RecordingError, match=r"does not work \(.*bin/ffmpeg: error while .*\)\. Install ffmpeg"
    ):
        Recording.open(sound)


def test_every_ffmpeg_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _program(tmp_path / "bin", "exit 1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ffmpeg").symlink_to(program)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), str(tmp_path / "other"), ""]))
    found = list(find_ffmpegs())
    assert found[0] == str(program) and str(tmp_path / "other" / "ffmpeg") not in found


def test_a_decoder_does_not_read_what_is_meant_for_us(sound: Path) -> None:
    code = """
import sys
from echo_agent.audio.recording import Recording
Recording.open(sys.argv[1])
print(sys.stdin.read(), end="")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(sound)],
        input="q\nsecond line\n",
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout, done.stderr) == ("q\nsecond line\n", "")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals are a matter of POSIX")
def test_a_decoder_ends_with_the_process_that_reads_from_it(sound: Path, tmp_path: Path) -> None:
    """A process begins to decode a sound without end and is killed at its first piece."""
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono:d=60", "-c:a", "flac", tmp_path / "long.mka")
    code = """
import os, signal, subprocess, sys
from echo_agent.audio import ffmpeg, limited
program, start = ffmpeg.find_ffmpeg(), subprocess.Popen
limited.subprocess.Popen = lambda *arguments, **options: start(*arguments, pass_fds=[int(sys.argv[2])], **options)
def take(piece):
    os.kill(os.getpid(), signal.SIGKILL)
ffmpeg.decode_stream(program, sys.argv[1], ("-stream_loop", "-1"), None, False, take)
"""
    ours, theirs = os.pipe()  # held open by both processes, and by nobody when both have ended
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "long.mka"), str(theirs)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        pass_fds=[theirs],
    )
    os.close(theirs)
    assert process.wait() == -signal.SIGKILL
    with open(ours, "rb") as end:
        ended, _, _ = select.select([end], [], [], 60.0)
        assert ended and end.read() == b""


def test_what_takes_the_pieces_can_end_the_decoder(sound: Path) -> None:
    program = find_ffmpeg()
    assert program is not None

    def take(piece: bytes) -> None:
        raise RecordingError("enough")

    with pytest.raises(RecordingError, match="enough"):
        decode_stream(program, str(sound), (), None, False, take)


def test_what_ffmpeg_says_is_read(sound: Path) -> None:
    program = find_ffmpeg()
    assert program is not None
    report, options = look_at(program, str(sound))
    assert (report.format, report.highest_rate, report.start, options) == ("mov", RATE, 0.0, ())
    assert report.promised == pytest.approx(2.0, abs=0.1)
    assert list(report.tracks) == [0] and report.tracks[0].startswith("aac (LC)")
    assert report.speaks_of(str(sound))
    assert not Report(["error while loading shared libraries"]).speaks_of(str(sound))


def test_a_report_of_any_length_takes_little_room() -> None:
    report = Report()
    for number in range(10_000):
        report.add(f"[aac @ 0x1] Error submitting packet to decoder: {number}")
    assert report.damaged == 10_000
    assert len(report.lines) + len(report.last) < 500
    assert report.last_words("x") == "Error submitting packet to decoder: 9999"
