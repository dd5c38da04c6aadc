from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent.audio import containers, decoded
from echo_agent.audio import recording as recording_module
from echo_agent.audio.containers import decode
from echo_agent.audio.ffmpeg import find_ffmpeg
from echo_agent.audio.files import FileStamp
from echo_agent.audio.recording import Recording
from echo_agent.audio.soundfiles import SoundInfo, open_sound
from echo_agent.errors import RecordingError, RecordingTooLongError
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
    """The files for decoded sound: those with names, and on Linux the open ones that have none."""
    folder = tempfile.gettempdir()
    found = {name for name in os.listdir(folder) if name.startswith("echo-agent-")}
    for link in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            found |= {
                target for target in [os.readlink(link)] if re.fullmatch(rf"{folder}/.* \(deleted\)", target)
            }
    return found


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
        Recording.open(half(folder / "a.m4a", tmp_path / "half.m4a"))
    assert _temporary() == before


def test_nothing_is_left_behind_at_the_end_of_the_process(folder: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys; from echo_agent.audio.recording import Recording; "
        "recording = Recording.open(sys.argv[1]); print(os.path.getsize(recording._decoded.path))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder / "a.m4a")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
    )
    assert int(done.stdout) > 3 * 2 * RATE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is a matter of POSIX")
def test_a_forked_child_does_not_take_the_file_away(folder: Path) -> None:
    recording = Recording.open(folder / "a.m4a")
    code = """
import os, sys
from echo_agent.audio.recording import Recording
from echo_agent.audio.soundfiles import SoundInfo, open_sound
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

    def counted(
        path: str,
        why: str,
        readable: SoundInfo | None,
        longest: float | None,
        weights: tuple[float, ...] | None,
    ) -> decoded.DecodedFile:
        calls.append(path)
        return decode_once(path, why, readable, longest, weights)

    monkeypatch.setattr(containers, "_decode", counted)
    stamp = FileStamp.of(folder / "a.mp4")
    results: list[decoded.DecodedFile] = []
    threads = [threading.Thread(target=lambda: results.append(decode(stamp, ""))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len({id(result) for result in results}) == 1 and len(results) == 6


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
def test_a_download_that_broke_off_is_heard_as_far_as_it_goes(
    folder: Path, tmp_path: Path, name: str
) -> None:
    recording = Recording.open(half(folder / name, tmp_path / name))
    assert 0.1 < recording.duration < 2.0  # how long a block of mka is depends on the ffmpeg that wrote it
    assert any(note.startswith(f"it is cut off: {recording.duration:.2f} s of") for note in recording.notes)


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


# ------------------------------------------------------------------------------- tracks, times, damage, size


def _major() -> int:
    """First number of the version of ffmpeg; high for builds that are called otherwise."""
    program = find_ffmpeg()
    assert program is not None
    said = subprocess.run([program, "-version"], capture_output=True, text=True).stdout
    found = re.match(r"ffmpeg version (\d+)", said)
    return int(found[1]) if found else 99


def _loud(recording: Recording) -> tuple[float, float]:
    """Where the loud part begins and ends, seconds."""
    wave = np.abs(recording.read(rate=16_000))
    (places,) = np.nonzero(wave > 0.25)
    return places[0] / 16_000, places[-1] / 16_000


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of four seconds whose sound begins after 1.5 s, loud in its second second."""
    folder = tmp_path_factory.mktemp("late")
    wave = 0.02 * tone(300.0, 2.5, RATE)
    wave[RATE : 2 * RATE] = tone(300.0, 1.0, RATE)
    wav = write(folder / "a.wav", wave, RATE)
    picture = ("-f", "lavfi", "-i", "color=c=black:s=64x64:d=4:r=25")
    for name, video in {"a.mkv": "mpeg4", "a.mp4": "mpeg4", "a.mov": "mpeg4", "a.ts": "mpeg2video"}.items():
        ffmpeg(*picture, "-itsoffset", "1.5", "-i", wav, "-c:v", video, "-c:a", "aac", folder / name)
    return folder


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.ts"])
def test_sound_that_begins_late_is_heard_when_the_film_has_it(late: Path, name: str) -> None:
    if name == "a.ts" and _major() < 6:
        pytest.skip("older ffmpegs do not say when the sound of a transport stream begins (docs/limits.md)")
    recording = Recording.open(late / name)
    assert recording.duration == pytest.approx(4.0, abs=0.15)
    assert _loud(recording) == pytest.approx((2.5, 3.5), abs=0.1)
    (note,) = recording.notes
    assert "holds no sound" in note and "heard as silence" in note


@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.ts"])
def test_gaps_are_silence(tmp_path: Path, name: str) -> None:
    wave = 0.02 * tone(300.0, 6.0, RATE)
    wave[4 * RATE : 5 * RATE] = tone(300.0, 1.0, RATE)
    wav = write(tmp_path / "a.wav", wave, RATE)
    ffmpeg("-i", wav, "-af", "aselect='lt(t,1)+gt(t,3)'", "-c:a", "aac", tmp_path / name)
    recording = Recording.open(tmp_path / name)
    assert _loud(recording) == pytest.approx((4.0, 5.0), abs=0.1)
    assert any("heard as silence" in note for note in recording.notes)


def test_a_stream_that_begins_in_the_middle_counts_from_its_first_sound(folder: Path, tmp_path: Path) -> None:
    for name in ("a.mka", "a.ts", "a.mp4"):
        ffmpeg("-i", folder / "a.wav", "-c:a", "aac", "-output_ts_offset", "1000", tmp_path / name)
        recording = Recording.open(tmp_path / name)
        assert recording.duration == pytest.approx(3.0, abs=0.15), name
        assert not any("cut off" in note for note in recording.notes), name


def test_times_that_run_backwards_lose_no_sound(folder: Path, tmp_path: Path) -> None:
    """Two pieces of a broadcast put one after the other, each with a clock that begins at 0."""
    ffmpeg("-i", folder / "a.wav", "-c:a", "aac", tmp_path / "a.ts")
    (tmp_path / "b.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    assert Recording.open(tmp_path / "b.ts").duration == pytest.approx(6.1, abs=0.25)


TRACKS = {
    "aac+ac3.mkv": (0, ("-c:a:0", "aac", "-c:a:1", "ac3")),
    "aac+ac3.ts": (1, ("-c:a:0", "aac", "-c:a:1", "ac3")),
    "second.mkv": (
        1,
        ("-c:a:0", "aac", "-c:a:1", "ac3", "-disposition:a:0", "0", "-disposition:a:1", "default"),
    ),
    "opus+flac.mka": (0, ("-c:a:0", "libopus", "-c:a:1", "flac")),
}


@pytest.mark.parametrize("name", TRACKS)
def test_of_several_tracks_the_one_that_ffmpeg_takes_is_heard_and_told(tmp_path: Path, name: str) -> None:
    taken, options = TRACKS[name]
    low = write(tmp_path / "low.wav", tone(400.0, 1.0, 48_000), 48_000)
    high = write(tmp_path / "high.wav", np.stack([tone(1200.0, 1.0, 48_000)] * 4, axis=1), 48_000)
    ffmpeg("-i", low, "-i", high, "-map", "0", "-map", "1", *options, tmp_path / name)
    recording = Recording.open(tmp_path / name)
    heard = recording.read(0.3, 0.8, rate=16_000)
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
    assert np.argmax(spectrum) * 2.0 == pytest.approx((400.0, 1200.0)[taken], abs=4.0)
    assert any(f"it has 2 tracks of sound; heard is number {taken + 1} (" in note for note in recording.notes)


def test_a_hole_in_a_file_is_said_and_the_rest_is_heard(folder: Path, tmp_path: Path) -> None:
    data = (folder / "fast.m4a").read_bytes()
    middle = len(data) // 2
    (tmp_path / "a.m4a").write_bytes(data[:middle] + bytes(2000) + data[middle + 2000 :])
    recording = Recording.open(tmp_path / "a.m4a")
    assert recording.duration == pytest.approx(3.0, abs=0.2)
    assert any(note.startswith("it is damaged in ") for note in recording.notes)


@pytest.mark.parametrize("form", ["MPEG", "G721", "GSM", "DWVW"])
def test_codecs_that_cannot_seek_are_decoded_once(tmp_path: Path, form: str) -> None:
    wave = lively(5.0, 8_000)
    if form == "MPEG":
        file = tmp_path / "a.wav"
        ffmpeg("-i", write(tmp_path / "b.wav", wave, 8_000), "-c:a", "libmp3lame", "-b:a", "16k", file)
    else:
        name, subtype = {
            "G721": ("a.au", "G721_32"),
            "GSM": ("a.aiff", "GSM610"),
            "DWVW": ("a.aiff", "DWVW_16"),
        }[form]
        file = write(tmp_path / name, wave, 8_000, subtype)
    recording = Recording.open(file)
    assert recording.duration == pytest.approx(5.0, abs=0.2)
    whole = recording.read(rate=8_000)
    with open_sound(str(file)) as opened:  # which does not seek after it has read
        expected = opened.read(len(whole), dtype="float32")
    assert np.abs(whole - np.clip(expected, -1.0, 1.0)).max() < 1e-4
    for start in (0.3, 1.234, 4.4):
        part = recording.read(start, start + 0.3, rate=8_000)
        first = round(start * 8_000)
        assert np.array_equal(part, whole[first : first + len(part)])


def test_a_copy_is_not_taken_for_something_else(tmp_path: Path) -> None:
    """Samples that look like the beginning of DTS, which is looked for in files of strangers."""
    wave = np.tile(np.array([0x7FFE, -0x7FFF], np.int16), 2_000)
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", "pcm_s16le", tmp_path / "a.mka")
    for name in ("a.wav", "a.mka"):
        assert np.abs(Recording.open(tmp_path / name).read(rate=RATE) - wave / 32768).max() < 1e-4, name


def test_many_channels_of_a_high_rate_are_mixed_and_resampled_as_they_come(tmp_path: Path) -> None:
    source = "aevalsrc='" + "|".join(["0.3*sin(880*PI*t)"] * 8) + "':s=192000:d=2"
    ffmpeg("-f", "lavfi", "-i", source, "-c:a", "flac", tmp_path / "a.mka")
    recording = Recording.open(tmp_path / "a.mka")
    assert (recording.rate, recording.channels) == (48_000, 8)
    assert recording.duration == pytest.approx(2.0, abs=0.01)
    assert recording._decoded is not None
    assert os.path.getsize(recording._decoded.path) < 200_000  # as it was: 6 MB
    heard = recording.read(0.5, 1.5, rate=16_000)
    assert np.abs(heard - tone(440.0, 2.0, level=0.3)[8_000:24_000]).max() < 0.02


def test_sound_that_unpacks_to_too_much_is_refused_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono:d=60", "-c:a", "flac", tmp_path / "a.mka")
    assert (tmp_path / "a.mka").stat().st_size < 60_000
    monkeypatch.setattr(decoded, "LARGEST", 1 << 21)  # 21 s at 48 kHz, 65 s at 16 kHz
    gc.collect()
    before = _temporary()
    recording = Recording.open(tmp_path / "a.mka")
    assert (recording.rate, recording.duration) == (16_000, 60.0)  # long sound is kept at a lower rate
    del recording
    monkeypatch.setattr(decoded, "LARGEST", 1 << 20)
    with pytest.raises(
        RecordingError, match=r"unpacks to more than .* GiB of sound .* which is the limit; split"
    ):
        Recording.open(tmp_path / "a.mka")
    gc.collect()
    assert _temporary() == before


@pytest.mark.parametrize("name", ["fast.m4a", "a.webm", "a.mka", "a.wma"])
def test_what_is_too_long_by_its_header_is_not_decoded(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was decoded")

    assert Recording.open(folder / name, 3.1).duration == pytest.approx(3.0, abs=0.1)
    monkeypatch.setattr(containers, "decode_stream", never)
    gc.collect()
    with pytest.raises(
        RecordingTooLongError, match=r"3\.\d s \(by its header\) of audio, but at most 2 s can"
    ):
        Recording.open(folder / name, 2.0)


def test_what_is_too_long_is_decoded_no_further(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw stream, a recorder's webm and a codec that cannot seek state no length, or one that is to be counted."""
    ffmpeg("-i", folder / "a.wav", "-c:a", "libopus", "-f", "webm", "-live", "1", tmp_path / "live.webm")
    write(tmp_path / "a.au", lively(3.0, 8_000), 8_000, "G721_32")
    write(tmp_path / "a.wav", lively(3.0, 8_000), 8_000)
    gc.collect()
    before = _temporary()
    for file in (folder / "a.ac3", tmp_path / "live.webm", tmp_path / "a.au", tmp_path / "a.wav"):
        with pytest.raises(RecordingTooLongError, match=re.escape(str(file))):
            Recording.open(file, 2.0)
        assert Recording.open(file, 3.2).duration == pytest.approx(3.0, abs=0.1)
    gc.collect()
    assert _temporary() == before


def test_an_upload_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.flac", np.zeros(60 * 8_000, np.float32), 8_000)
    data = (tmp_path / "a.flac").read_bytes()
    assert Recording.from_bytes(data).duration == 60.0
    monkeypatch.setattr(recording_module, "MOST_IN_MEMORY", 1 << 20)
    with pytest.raises(RecordingError, match="upload unpacks to 0.0 hours of sound at 8000 Hz, more than"):
        Recording.from_bytes(data, "upload")


def test_a_full_disk_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded.wave.Wave_write, "writeframesraw", full)
    gc.collect()
    before = _temporary()
    with pytest.raises(RecordingError, match=r"cannot be written to .*No space left on device.* set TMPDIR"):
        Recording.open(folder / "fast.m4a")
    assert _temporary() == before
