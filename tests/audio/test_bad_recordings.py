"""What people really pass: each must end in a RecordingError that says what is wrong, or be heard."""

from __future__ import annotations

import os
import struct
import wave as wave_module
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent.audio.recording import Recording
from echo_agent.errors import RecordingError
from tests.sounds import apart, ffmpeg, half, lively, write

RATE = 16_000


def _refused(path: Path | str) -> str:
    with pytest.raises(RecordingError) as caught:
        Recording.open(path)
    return str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    message = _refused(tmp_path / "nowhere.wav")
    assert str(tmp_path / "nowhere.wav") in message and "No such file" in message


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder; pass the path of one recording in it" in _refused(tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert "is an empty file (0 bytes)" in _refused(tmp_path / "a.wav")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", lively(0.1, RATE), RATE)
    file.chmod(0)
    assert "may not be read by this user" in _refused(file)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au"])
def test_a_file_of_no_samples(tmp_path: Path, name: str) -> None:
    assert "holds no samples" in _refused(write(tmp_path / name, np.zeros(0, np.float32), RATE))


def test_a_flac_that_ends_after_its_header(tmp_path: Path) -> None:
    file = write(tmp_path / "a.flac", lively(0.1, RATE), RATE)
    data = bytearray(file.read_bytes()[:42])  # the mark and STREAMINFO
    data[4] |= 0x80  # which is the last block before the sound
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # and states no number of samples
    file.write_bytes(data)
    assert "holds no samples" in _refused(file)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.m4a", "a.aac", "a.webm", "a"])
@pytest.mark.parametrize(
    "content",
    [
        b"Dear Sir or Madam,\n" * 100,
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20,
        b"\x89PNG\r\n\x1a\n" + bytes(2000),
        b"x",
    ],
    ids=["text", "html", "png", "one byte"],
)
def test_something_else_by_the_name_of_a_recording(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = _refused(tmp_path / name)
    assert "cannot be read by libsndfile (" in message and "nor by ffmpeg (" in message
    assert "is it a sound file, and complete?" in message


def test_random_bytes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(4):
        (tmp_path / "a.wav").write_bytes(generator.bytes(5000))
        assert str(tmp_path / "a.wav") in _refused(tmp_path / "a.wav"), number


def test_raw_samples(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    assert "raw samples without a header" in _refused(tmp_path / "a.raw")


# ------------------------------------------------------------------------------------------------ cut off


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.aiff", "a.au", "a.w64", "a.rf64", "a.caf"])
def test_a_truncated_file_is_heard_and_says_how_much_is_there(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, lively(10.0, RATE), RATE)
    recording = Recording.open(half(file, tmp_path / f"cut-{name}"))
    assert recording.duration == pytest.approx(5.0, abs=0.6)
    assert len(recording.read()) == recording.ref().samples(RATE)
    (note,) = recording.notes
    there, promised = (
        float(part.split(" s")[0]) for part in note.split("it is cut off: ")[1].split(" of the ")
    )
    assert there == pytest.approx(recording.duration, abs=0.2)
    assert promised == pytest.approx(10.0, abs=0.2)


def test_an_mp3_from_ffmpeg_that_is_cut_off(tmp_path: Path) -> None:
    ffmpeg("-i", write(tmp_path / "a.wav", lively(10.0, RATE), RATE), "-q:a", "4", tmp_path / "a.mp3")
    recording = Recording.open(half(tmp_path / "a.mp3", tmp_path / "cut.mp3"))
    assert recording.duration == pytest.approx(5.0, abs=0.6)
    assert recording.notes[0].startswith("it is cut off: ")


def test_files_that_promise_nothing_are_heard_as_far_as_they_go(tmp_path: Path) -> None:
    """Raw streams of packets, and an mp3 without an entry, state no length: half of one is a shorter one."""
    wav = write(tmp_path / "a.wav", lively(10.0, RATE), RATE)
    ffmpeg("-i", wav, "-b:a", "64k", "-write_xing", "0", tmp_path / "a.mp3")
    names = ["a.mp3", "a.aac", "a.ac3", "a.ts"]
    for name in names[1:]:
        ffmpeg("-i", wav, "-ar", "16000" if name != "a.ac3" else "32000", tmp_path / name)
    for name in names:
        recording = Recording.open(half(tmp_path / name, tmp_path / f"cut-{name}"))
        assert 3.5 < recording.duration < 6.5, name
        assert len(recording.read()) == round(recording.duration * RATE), name
        assert not any("cut off" in note for note in recording.notes), name


UNTOLD = {
    "vorbis.ogg": ("libvorbis",), "opus.opus": ("libopus",), "flac.oga": ("flac",), "speex.ogg": ("libspeex",),
}  # fmt: skip
TOLD = {
    "aac.mkv": ("aac",), "opus.webm": ("libopus",), "wma.wma": ("wmav2",), "mp3.avi": ("libmp3lame",),
    "pcm.avi": ("pcm_s16le",), "wavpack.wv": ("wavpack",), "tta.tta": ("tta",), "ulaw.caf": ("pcm_mulaw",),
    "fast.m4a": ("aac", "-movflags", "faststart"), "fast.mov": ("alac", "-movflags", "faststart"),
    "pcm.caf": ("pcm_s16le",), "ima.caf": ("adpcm_ima_qt",), "mp3.wav": ("libmp3lame",), "ms.wav": ("adpcm_ms",),
    "ima.wav": ("adpcm_ima_wav",), "pcm.w64": ("pcm_s16le",), "flac.flac": ("flac",), "aac.flv": ("aac",),
    "pcm.sox": ("pcm_s32le",), "adx.adx": ("adpcm_adx",), "yamaha.mmf": ("adpcm_yamaha", "-ar", "8000"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*UNTOLD, *TOLD])
def test_half_a_file_is_not_taken_for_a_whole_one(tmp_path: Path, name: str) -> None:
    """Nor is a whole one taken for half of one."""
    codec, *options = (UNTOLD | TOLD)[name]
    seconds = 12.0 if name == "wavpack.wv" else 6.0  # its blocks are of four seconds
    wav = write(tmp_path / "a.wav", lively(seconds, RATE), RATE)
    ffmpeg("-i", wav, "-c:a", codec, *options, tmp_path / name)
    whole = Recording.open(tmp_path / name)
    assert whole.duration == pytest.approx(seconds, abs=0.15)
    assert not any("cut off" in note for note in whole.notes)
    cut = Recording.open(half(tmp_path / name, tmp_path / f"cut-{name}"))
    assert 0.25 * seconds < cut.duration < 0.65 * seconds
    words = "its last page is missing: it is cut off" if name in UNTOLD else "it is cut off: "
    assert sum(note.startswith(words) for note in cut.notes) == 1, cut.notes


@pytest.mark.parametrize("name", ["film.mkv", "film.avi", "film.mp4"])
def test_half_a_film_is_not_taken_for_a_whole_one(tmp_path: Path, name: str) -> None:
    wav = write(tmp_path / "a.wav", lively(6.0, RATE), RATE)
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc=s=64x64:d=6:r=25", "-i", wav),
        *("-c:v", "mpeg4", "-c:a", "libmp3lame", "-movflags", "faststart", tmp_path / name),
    )
    assert not any("cut off" in note for note in Recording.open(tmp_path / name).notes)
    cut = Recording.open(half(tmp_path / name, tmp_path / f"cut-{name}"))
    assert any(note.startswith("it is cut off: ") for note in cut.notes), cut.notes


@pytest.mark.parametrize("name", ["alac.m4a", "aac.mov", "alac.caf", "opus.caf"])
def test_half_a_file_whose_index_comes_last_is_refused(tmp_path: Path, name: str) -> None:
    codec = {"aac": "aac", "alac": "alac", "opus": "libopus"}[name.partition(".")[0]]
    ffmpeg("-i", write(tmp_path / "a.wav", lively(6.0, RATE), RATE), "-c:a", codec, tmp_path / name)
    assert Recording.open(tmp_path / name).notes == ()
    assert "is it a sound file, and complete?" in _refused(half(tmp_path / name, tmp_path / f"cut-{name}"))


def test_a_header_without_the_rest(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.mp3"):
        file = write(tmp_path / name, lively(2.0, RATE), RATE)
        file.write_bytes(file.read_bytes()[:60])
        assert str(file) in _refused(file)


def test_a_recorder_that_was_switched_off_before_it_wrote_the_lengths(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", lively(2.0, RATE), RATE)
    data = bytearray(file.read_bytes())
    data[4:8] = data[40:44] = bytes(4)
    file.write_bytes(data)
    assert Recording.open(file).duration == 2.0


# ------------------------------------------------------------------------------------------------ not numbers


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_of_a_float_wav_that_are_no_numbers_are_silence(
    tmp_path: Path, subtype: str, value: float
) -> None:
    samples = lively(6.0, RATE, 2)
    expected = samples.copy()
    for at in (80_123, 95_999):
        samples[at, 1], expected[at, 1] = value, 0.0
    recording = Recording.open(write(tmp_path / "a.wav", samples, RATE, subtype))
    assert apart(recording.read(), expected.mean(axis=1)) < 1e-6
    (note,) = recording.notes
    assert note.startswith("2 samples are not a number or infinite, the first at 5.008 s (sample 80123)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_wav_of_nothing_but_such_samples_is_refused(tmp_path: Path, value: float) -> None:
    file = write(tmp_path / "a.wav", np.full(RATE, value, np.float32), RATE, "FLOAT")
    assert "16000 of its 16000 samples are not a number or infinite" in _refused(file)


def test_a_float_wav_on_the_scale_of_integers(tmp_path: Path) -> None:
    message = _refused(write(tmp_path / "a.wav", lively(0.5, RATE) * 32_768, RATE, "FLOAT"))
    assert "full scale is -1 to 1; divide integer samples" in message


def test_a_float_wav_a_little_over_full_scale_is_heard(tmp_path: Path) -> None:
    loud = lively(0.5, RATE) * 4
    assert np.array_equal(Recording.open(write(tmp_path / "a.wav", loud, RATE, "FLOAT")).read(), loud)


def _with(value: float) -> np.ndarray:
    samples = lively(1.0, RATE)
    samples[12_345] = value
    return samples


BAD_ARRAYS: list[tuple[str, Callable[[], object], str]] = [
    ("NaN", lambda: _with(np.nan), r"sample 12345 \(0.772 s\) is NaN"),
    ("infinity", lambda: _with(-np.inf), r"sample 12345 \(0.772 s\) is infinite"),
    (
        "NaN in a channel",
        lambda: np.stack([lively(1.0, RATE), _with(np.nan)]),
        "sample 12345 .* of channel 2",
    ),
    (
        "numbers that float32 cannot hold",
        lambda: lively(1.0, RATE).astype(np.float64) * 1e300,
        "full scale is -1 to 1",
    ),
    ("integers as floats", lambda: lively(1.0, RATE) * 32_768, "full scale is -1 to 1"),
    ("nothing", lambda: np.zeros(0, np.float32), "holds no samples"),
    ("no samples of two channels", lambda: np.zeros((2, 0), np.float32), "holds no samples"),
    ("one number", lambda: np.float32(0.5), r"not the shape \(\)"),
    ("three axes", lambda: np.zeros((1, 2, 100), np.float32), r"not the shape \(1, 2, 100\)"),
    ("a square", lambda: np.zeros((8, 8), np.float32), "nothing tells samples from channels"),
    ("a spectrogram", lambda: np.zeros((128, 300), np.float32), "is it a waveform"),
    ("truth values", lambda: np.zeros(100, bool), "samples of type bool"),
    ("complex numbers", lambda: np.zeros(100, np.complex64), "samples of type complex64"),
    ("long integers", lambda: [1, 2, 3], "samples of type int64"),
    ("unsigned 16-bit integers", lambda: np.zeros(100, np.uint16), "samples of type uint16"),
    ("objects", lambda: np.array([None, 1.0]), "samples of type object"),
    ("text", lambda: "talk.wav", "not the shape|samples of type"),
    ("rows of unequal length", lambda: [[0.1, 0.2], [0.3]], "cannot be made a numpy array"),
]


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in BAD_ARRAYS], ids=[c[0] for c in BAD_ARRAYS]
)
def test_arrays_that_are_no_waveforms(make: Callable[[], object], message: str) -> None:
    with pytest.raises(RecordingError, match=message) as caught:
        Recording.from_array(make(), RATE, "take 5")  # type: ignore[arg-type]
    assert str(caught.value).startswith("take 5: ")


def test_a_tensor_that_wants_gradients() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RecordingError, match="cannot be made a numpy array"):
        Recording.from_array(torch.zeros(100, requires_grad=True), RATE)


@pytest.mark.parametrize("rate", [0, -1, 5, 10**8, 16_000.5, float("nan"), None, "16k", True])
def test_rates_of_arrays(rate: object) -> None:
    with pytest.raises(RecordingError, match="sampling rate"):
        Recording.from_array(lively(0.1, RATE), rate)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ headers


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2_000_000_000])
def test_an_impossible_rate_in_a_header(tmp_path: Path, rate: int) -> None:
    file = write(tmp_path / "a.wav", lively(0.1, RATE), RATE)
    data = bytearray(file.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    file.write_bytes(data)
    assert f"a sampling rate of {rate:g} Hz is not one of a recording" in _refused(file)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 5, 8])
def test_wavs_of_every_width_as_pythons_own_module_writes_them(
    tmp_path: Path, width: int, channels: int
) -> None:
    samples = lively(0.1, RATE, channels).reshape(-1, channels)
    full = 2 ** (8 * width - 1)
    numbers = np.round(samples.astype(np.float64) * (full - 1)).astype(np.int64) + (128 if width == 1 else 0)
    data = b"".join(int(n).to_bytes(width, "little", signed=width > 1) for n in numbers.reshape(-1))
    with wave_module.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(RATE)
        file.writeframes(data)
    recording = Recording.open(tmp_path / "a.wav")
    assert recording.channels == channels
    assert apart(recording.read(), samples.mean(axis=1)) < 1.5 / full + 1e-6


# ------------------------------------------------------------------------------------------------ uploads


def test_bytes_are_refused_in_the_caller_s_words(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"^upload is empty \(0 bytes\)"):
        Recording.from_bytes(b"", "upload")
    with pytest.raises(RecordingError, match="the recording upload cannot be read by libsndfile"):
        Recording.from_bytes(b"hello" * 100, "upload")
    cut = half(write(tmp_path / "a.flac", lively(4.0, RATE), RATE), tmp_path / "b.flac")
    assert Recording.from_bytes(cut.read_bytes(), "upload").notes[0].startswith("it is cut off: ")


def test_the_files_that_were_damaged_are_as_they_were(tmp_path: Path) -> None:
    """Nothing is lost: opening only ever reads."""
    file = write(tmp_path / "a.flac", lively(4.0, RATE), RATE)
    cut = half(file, tmp_path / "cut.flac")
    before = cut.read_bytes()
    Recording.open(cut).read()
    assert cut.read_bytes() == before
    assert soundfile.info(file).duration == 4.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "cut.flac"]
