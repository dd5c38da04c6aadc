from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent import containers
from echo_agent.containers import decode, find_ffmpeg
from echo_agent.errors import RecordingError
from echo_agent.files import FileStamp
from echo_agent.recording import Recording
from tests.sounds import ffmpeg, half, lively, tone, write

RATE = 32_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("containers")
    wav = write(folder / "a.wav", np.concatenate([tone(400.0, 1.0, RATE), tone(1200.0, 2.0, RATE)]), RATE)
    for name in ("a.m4a", "a.aac", "a.mp4", "a.wma", "a.mka", "a.ac3"):
        ffmpeg("-i", wav, folder / name)
    ffmpeg("-i", wav, "-c:a", "libopus", folder / "a.webm")
    ffmpeg("-i", wav, "-movflags", "faststart", folder / "fast.m4a")
    ffmpeg("-i", wav, "-c:a", "alac", folder / "lossless.m4a")
    return folder


def _temporary() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("echo-agent-")}


NAMES = ["a.m4a", "a.aac", "a.mp4", "a.wma", "a.mka", "a.ac3", "a.webm", "fast.m4a", "lossless.m4a"]


@pytest.mark.parametrize("name", NAMES)
def test_containers_are_heard_without_ffprobe(folder: Path, name: str) -> None:
    recording = Recording.open(folder / name)
    assert recording.duration == pytest.approx(3.0, abs=0.1)
    assert recording.name == name
    for place, hertz in ((0.3, 400.0), (2.0, 1200.0)):
        heard = recording.read(place, place + 0.5, rate=16_000)
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
        assert np.argmax(spectrum) * 2.0 == pytest.approx(hertz, abs=4.0)


def test_what_pydub_decodes_and_what_ffmpeg_writes_are_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        stamp = FileStamp.of(folder / name)
        decoded = decode(stamp, "")
        by_pydub = soundfile.read(decoded.path, dtype="int16")
        del decoded  # or it would be shared
        with monkeypatch.context() as patch:
            patch.setattr(containers, "LONGEST_IN_MEMORY", 0.0)
            patch.setattr(containers, "_decode_in_memory", None)  # calling it would fail
            decoded = decode(stamp, "")
            to_disk = soundfile.read(decoded.path, dtype="int16")
        assert by_pydub[1] == to_disk[1]
        assert np.array_equal(by_pydub[0], to_disk[0]), name


def test_temporary_files_live_as_long_as_what_reads_them(folder: Path) -> None:
    gc.collect()
    before = _temporary()
    first, second = Recording.open(folder / "a.m4a"), Recording.open(folder / "a.m4a")
    assert len(_temporary() - before) == 1  # shared
    del first
    gc.collect()
    assert len(second.read(1.0, 2.0)) == 16_000
    del second
    gc.collect()
    assert _temporary() == before


def test_nothing_is_left_behind_when_decoding_fails(folder: Path, tmp_path: Path) -> None:
    gc.collect()
    before = _temporary()
    with pytest.raises(RecordingError):
        Recording.open(half(folder / "fast.m4a", tmp_path / "half.m4a"))
    assert _temporary() == before


def test_nothing_is_left_behind_at_the_end_of_the_process(folder: Path) -> None:
    code = (
        "import sys; from echo_agent.recording import Recording; "
        "recording = Recording.open(sys.argv[1]); print(recording._decoded.path)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder / "a.m4a")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    wav = Path(done.stdout.strip())
    assert wav.name == "decoded.wav"
    assert not wav.parent.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is a matter of POSIX")
def test_a_forked_child_does_not_take_the_file_away(folder: Path) -> None:
    recording = Recording.open(folder / "a.m4a")
    code = """
import os, sys
from echo_agent.recording import Recording
recording = Recording.open(sys.argv[1])
child = os.fork()
if child == 0:
    del recording
    sys.exit(0)  # runs what is registered for the end of the process
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(len(recording.read(1.0, 2.0, rate=32_000)))  # its own rate: no torch to import
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, recording.source],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout.strip(), done.stderr.strip()) == ("32000", "")


def test_many_threads_decode_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    decode_once = containers._decode

    def counted(path: str, why: str) -> containers.DecodedFile:
        calls.append(path)
        return decode_once(path, why)

    monkeypatch.setattr(containers, "_decode", counted)
    stamp = FileStamp.of(folder / "a.mp4")
    results: list[containers.DecodedFile] = []
    threads = [threading.Thread(target=lambda: results.append(decode(stamp, ""))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len({id(result) for result in results}) == 1 and len(results) == 6


def test_pydub_is_left_as_it_was(folder: Path) -> None:
    from pydub import AudioSegment

    before = AudioSegment.converter
    Recording.open(folder / "a.webm")
    assert AudioSegment.converter == before


def test_ffmpeg_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg() == str(program)


def test_without_any_ffmpeg_the_message_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert find_ffmpeg() is None
    with pytest.raises(RecordingError, match=r"Install ffmpeg .* or `pip install imageio-ffmpeg`"):
        Recording.open(folder / "fast.m4a")
    assert Recording.open(folder / "a.wav").duration == 3.0  # what libsndfile reads needs none


def test_without_pydub_the_message_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydub", None)
    with pytest.raises(RecordingError, match="pip install pydub"):
        Recording.open(folder / "fast.m4a")


def test_a_playlist_that_is_called_m4a_opens_no_other_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.aac").write_bytes((folder / "a.aac").read_bytes())
    for name, text in {
        "list.m4a": "ffconcat version 1.0\nfile 'secret.aac'\n",
        "list": "ffconcat version 1.0\nfile 'secret.aac'\n",
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.aac\n#EXT-X-ENDLIST\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(RecordingError, match="cannot be read by libsndfile"):
            Recording.open(tmp_path / name)


def test_a_film_without_sound_is_refused(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=c=black:s=32x32:d=1", "-c:v", "mpeg4", tmp_path / "silent.mp4")
    with pytest.raises(RecordingError, match="holds no sound"):
        Recording.open(tmp_path / "silent.mp4")


def test_the_sound_of_a_film_is_heard(folder: Path, tmp_path: Path) -> None:
    """The picture goes on after the sound has ended: that is no sign of a file that is cut off."""
    ffmpeg(
        *("-f", "lavfi", "-i", "color=c=black:s=32x32:d=6", "-i", folder / "a.wav"),
        *("-c:v", "mpeg4", "-c:a", "aac", tmp_path / "film.mp4"),
    )
    assert Recording.open(tmp_path / "film.mp4").duration == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("name", ["fast.m4a", "a.webm", "a.mka"])
def test_a_download_that_broke_off_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match=r"is cut off: [01]\.\d\d s"):
        Recording.open(half(folder / name, tmp_path / name))


def test_an_m4a_without_its_index_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="moov atom not found|Invalid data"):
        Recording.open(half(folder / "a.m4a", tmp_path / "half.m4a"))


def test_names_that_look_like_options_or_protocols(folder: Path, tmp_path: Path) -> None:
    for name in ("-y.m4a", "concat:x.m4a", "50% of it.m4a", "ünïcode 'quoted'.m4a", "talk.raw.m4a"):
        (tmp_path / name).write_bytes((folder / "a.m4a").read_bytes())
        assert Recording.open(tmp_path / name).duration == pytest.approx(3.0, abs=0.1)


def test_the_suffix_does_not_matter(folder: Path, tmp_path: Path) -> None:
    for name in ("a.wav", "a.bin", "a", "a.mp3"):
        (tmp_path / name).write_bytes((folder / "a.m4a").read_bytes())
        assert Recording.open(tmp_path / name).duration == pytest.approx(3.0, abs=0.1)


def test_what_libsndfile_would_cut_short_is_heard_whole(folder: Path, tmp_path: Path) -> None:
    ffmpeg("-i", folder / "a.wav", tmp_path / "a.mp3")
    (tmp_path / "double.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() * 2)
    write(tmp_path / "a.ogg", lively(3.0, RATE), RATE)
    (tmp_path / "double.ogg").write_bytes((tmp_path / "a.ogg").read_bytes() * 2)
    assert Recording.open(tmp_path / "double.mp3").duration == pytest.approx(6.0, abs=0.15)
    assert Recording.open(tmp_path / "double.ogg").duration == pytest.approx(6.0, abs=0.1)
