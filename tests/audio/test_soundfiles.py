from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent.audio.files import FileStamp
from echo_agent.audio.lengths import UnreadableError, inspect
from echo_agent.audio.recording import Recording
from echo_agent.audio.soundfiles import SoundInfo, SoundReader
from echo_agent.errors import RecordingError
from tests.sounds import apart, ffmpeg, lively, tone, write

RATE = 22_050
SECONDS = 25.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same 25 seconds in many forms; `a.wav` is the first of them."""
    folder = tmp_path_factory.mktemp("soundfiles")
    wav = write(folder / "a.wav", lively(SECONDS, RATE), RATE)
    write(folder / "a.flac", lively(SECONDS, RATE), RATE)
    write(folder / "a.ogg", lively(SECONDS, RATE), RATE)
    ffmpeg("-i", wav, "-q:a", "9", folder / "vbr.mp3")
    ffmpeg("-i", wav, "-b:a", "8k", "-ar", "8000", folder / "low.mp3")
    ffmpeg("-i", wav, "-b:a", "64k", "-write_xing", "0", folder / "bare.mp3")
    ffmpeg("-i", wav, "-c:a", "libvorbis", "-q:a", "3", "-ar", "8000", folder / "ffmpeg.ogg")
    ffmpeg("-i", wav, "-c:a", "libopus", "-b:a", "24k", folder / "a.opus")
    ffmpeg("-i", wav, "-c:a", "adpcm_ima_wav", folder / "adpcm.wav")
    return folder


def _read(info: SoundInfo, start: int, samples: int) -> np.ndarray:
    with SoundReader(info, start) as reader:
        return reader.read(samples)


FILES = ["a.wav", "a.flac", "a.ogg", "vbr.mp3", "low.mp3", "bare.mp3", "ffmpeg.ogg", "a.opus", "adpcm.wav"]


@pytest.mark.parametrize("name", FILES)
def test_what_is_read_by_seeking_is_that_part_of_the_whole(folder: Path, name: str) -> None:
    info = inspect(FileStamp.of(folder / name))
    assert info.duration == pytest.approx(SECONDS, abs=0.1)
    with soundfile.SoundFile(folder / name) as file:  # one read of everything: no seek has happened
        whole = file.read(dtype="float32")
    assert len(whole) == info.frames
    assert np.array_equal(_read(info, 0, info.frames), whole)  # though we read it in blocks
    places = np.random.default_rng(0).integers(0, info.frames - 2000, 12)
    places = [*places, 1, info.frames - 2000, info.frames - info.rate // 3, info.frames - info.rate]
    for start in map(int, places):
        assert np.abs(_read(info, start, 2000) - whole[start : start + 2000]).max() < 2e-6, start


def test_the_last_page_of_an_ogg_file_is_not_seeked_into(tmp_path: Path) -> None:
    """A seek to within it lands where the page would begin had its end not been trimmed."""
    wav = write(tmp_path / "a.wav", lively(30.003, 8_000), 8_000)
    ffmpeg("-i", wav, "-c:a", "libvorbis", "-page_duration", "12000000", tmp_path / "a.ogg")
    info = inspect(FileStamp.of(tmp_path / "a.ogg"))
    whole = soundfile.read(tmp_path / "a.ogg", dtype="float32")[0]
    for back in (0.3, 1.0, 3.0, 5.0, 8.0, 11.0):
        start = info.frames - round(back * info.rate)
        assert np.abs(_read(info, start, 2000) - whole[start : start + 2000]).max() < 2e-6, back


def test_opus_is_decoded_from_a_little_earlier(tmp_path: Path) -> None:
    """Its decoder needs a while until it gives the same samples as one that began at the beginning."""
    steady = tone(440.0, 30.0, level=0.3) + 0.1 * lively(30.0, 16_000)
    with soundfile.SoundFile(tmp_path / "a.opus", "w", 16_000, 1, "OPUS", format="OGG") as file:
        for part in np.array_split(steady, 100):
            file.write(part)
    info = inspect(FileStamp.of(tmp_path / "a.opus"))
    whole = soundfile.read(tmp_path / "a.opus", dtype="float32")[0]
    for start in range(10_967, 200_000, 3_777):
        assert np.abs(_read(info, start, 500) - whole[start : start + 500]).max() < 2e-6, start


def test_an_mp3_is_longer_than_a_wrong_header_says(folder: Path, tmp_path: Path) -> None:
    """Two files one after the other, or a variable bitrate without an entry: libsndfile loses half of it."""
    double = tmp_path / "double.mp3"
    double.write_bytes((folder / "vbr.mp3").read_bytes() * 2)
    assert soundfile.info(double).duration == pytest.approx(SECONDS, abs=0.1)
    with pytest.raises(UnreadableError, match=r"holds 50\.\d\d s .* only 25\.\d\d s"):
        inspect(FileStamp.of(double))

    quiet_then_loud = np.concatenate([lively(5, RATE), np.zeros(20 * RATE, np.float32)])
    ffmpeg(
        *("-i", write(tmp_path / "b.wav", quiet_then_loud, RATE)),
        *("-q:a", "2", "-write_xing", "0", "-id3v2_version", "0", tmp_path / "b.mp3"),
    )
    assert soundfile.info(tmp_path / "b.mp3").duration < 24
    with pytest.raises(UnreadableError, match=r"holds 25\.\d\d s"):
        inspect(FileStamp.of(tmp_path / "b.mp3"))


def test_a_header_that_promises_a_little_too_much_is_corrected(folder: Path) -> None:
    """Without an entry libsndfile estimates the length from the bytes, tags included."""
    info = inspect(FileStamp.of(folder / "bare.mp3"))
    with soundfile.SoundFile(folder / "bare.mp3") as file:
        assert info.frames == len(file.read()) <= file.frames


def test_a_flac_that_was_written_to_a_pipe_has_its_true_length(tmp_path: Path) -> None:
    file = write(tmp_path / "a.flac", lively(2.0, RATE), RATE)
    whole = soundfile.read(file, dtype="float32")[0]
    data = bytearray(file.read_bytes())
    data[21] &= 0xF0  # STREAMINFO: 36 bits for the number of samples, 0 if it was not known
    data[22:26] = bytes(4)
    file.write_bytes(data)
    assert soundfile.info(file).frames > 2**62
    info = inspect(FileStamp.of(file))
    assert info.frames == len(whole) == 2 * RATE
    assert np.array_equal(_read(info, 9000, 500), whole[9000:9500])


def test_a_wav_that_was_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", lively(1.0, RATE), RATE)
    data = bytearray(file.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    file.write_bytes(data)
    assert inspect(FileStamp.of(file)).frames == RATE


def test_ogg_streams_one_after_the_other_are_handed_on(folder: Path, tmp_path: Path) -> None:
    chained = tmp_path / "chained.ogg"
    chained.write_bytes((folder / "a.ogg").read_bytes() * 2)
    assert soundfile.info(chained).duration == SECONDS
    with pytest.raises(UnreadableError, match="several Ogg streams"):
        inspect(FileStamp.of(chained))


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    wave = lively(0.2, RATE, channels)
    info = inspect(FileStamp.of(write(tmp_path / "a.wav", wave, RATE, "FLOAT")))
    assert info.channels == channels
    expected = wave if channels == 1 else wave.mean(axis=1)
    assert apart(_read(info, 0, info.frames), expected) < 1e-6


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
)
def test_sample_formats(tmp_path: Path, subtype: str) -> None:
    wave = lively(0.2, RATE)
    info = inspect(FileStamp.of(write(tmp_path / "a.wav", wave, RATE, subtype)))
    tolerance = {"PCM_U8": 1e-2, "PCM_16": 1e-4, "ULAW": 4e-2, "ALAW": 4e-2}.get(subtype, 1e-6)
    assert apart(_read(info, 0, info.frames), wave) < tolerance


def test_reading_past_the_end_is_an_error(folder: Path) -> None:
    info = inspect(FileStamp.of(folder / "a.wav"))
    with SoundReader(info, info.frames - 10) as reader:
        assert len(reader.read(10)) == 10
        with pytest.raises(RecordingError, match="can only be read up to 25.00 s"):
            reader.read(1)


def test_damage_in_the_middle_is_found_where_it_is(tmp_path: Path) -> None:
    """The end of the file is in order, so opening it says nothing; reading the damaged part does."""
    file = write(tmp_path / "a.flac", lively(SECONDS, RATE), RATE)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = bytes(20_000)
    file.write_bytes(data)
    info = inspect(FileStamp.of(file))
    assert len(_read(info, 0, RATE)) == RATE
    with pytest.raises(RecordingError, match=r"cannot be decoded at \d+\.\d\d s|can only be read up to"):
        _read(info, 0, info.frames)
    recording = Recording.open(file)
    assert not recording.notes
    heard = recording.read(rate=RATE)  # ffmpeg goes on behind the damage, and the rest is where it was
    assert len(heard) == info.frames
    assert apart(heard[-5 * RATE :], lively(SECONDS, RATE)[-5 * RATE :]) < 1e-4
    assert recording.notes[0].startswith("it is damaged in the middle")


def test_what_is_known_of_a_file_is_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = FileStamp.of(folder / "a.wav")
    old = FileStamp(
        stamp.path, stamp.size, stamp.modified_ns - 10**10, stamp.changed_ns - 10**10, stamp.inode
    )
    first = inspect(old)
    monkeypatch.setattr(soundfile.SoundFile, "__init__", None)  # opening it again would fail
    assert inspect(old) is first
