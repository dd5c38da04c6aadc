from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent.audio import recording as recording_module
from echo_agent.audio.recording import AudioRef, Recording, Transform, is_silent, rms_db, wav_bytes
from echo_agent.audio.soundfiles import SoundReader
from echo_agent.errors import RecordingError, RecordingTooLongError
from tests.sounds import apart, ffmpeg, lively, tone, write

# ------------------------------------------------------------------------------------------------ opening


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "talk.flac", lively(1.5, 22_050, 2), 22_050)
    recording = Recording.open(file)
    assert (recording.name, recording.source) == ("talk.flac", str(file))
    assert (recording.rate, recording.channels, recording.frames) == (22_050, 2, 33_075)
    assert recording.duration == 1.5
    assert recording.nbytes == 0
    assert repr(recording) == "Recording('talk.flac', 1.500 s, 22050 Hz, 2 ch)"
    assert Recording.open(str(file)).sha256 == recording.sha256


def test_every_format_is_read(tmp_path: Path) -> None:
    wave = lively(2.0, 48_000)
    wav = write(tmp_path / "a.wav", wave, 48_000)
    for name in ("a.flac", "a.ogg", "a.mp3", "a.aiff", "a.caf", "a.au"):
        write(tmp_path / name, wave, 48_000)
    for name in ("a.m4a", "a.aac", "a.mp4"):
        ffmpeg("-i", wav, tmp_path / name)
    for name in ("a.webm", "a.opus"):
        ffmpeg("-i", wav, "-c:a", "libopus", tmp_path / name)
    expected = Recording.open(wav).read(0.5, 1.5)
    for file in sorted(tmp_path.iterdir()):
        heard = Recording.open(file)
        assert heard.duration == pytest.approx(2.0, abs=0.1), file.name
        assert rms_db(heard.read(0.5, 1.5)) == pytest.approx(rms_db(expected), abs=1.0), file.name


@pytest.mark.parametrize(
    "rate", [8_000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000, 96_000, 192_000, 7_919]
)
def test_every_rate_is_read(tmp_path: Path, rate: int) -> None:
    file = write(tmp_path / "a.wav", tone(440.0, 1.0, rate), rate)
    heard = Recording.open(file).read(0.2, 0.7, rate=16_000)
    assert apart(heard, tone(440.0, 1.0)[3200:11_200]) < 3e-3


def test_a_clip_of_20_ms(tmp_path: Path) -> None:
    for rate in (8_000, 16_000, 44_100):
        recording = Recording.open(write(tmp_path / "a.wav", tone(440.0, 0.02, rate), rate))
        assert recording.duration == 0.02
        assert len(recording.read()) == 320
        for speed in (0.25, 2.0):
            ref = recording.ref(0.0, 0.02, Transform(speed=speed, low_hz=100.0))
            assert len(recording.crop(ref)) == ref.samples(16_000) == round(320 / speed)


def test_silence_is_a_recording(tmp_path: Path) -> None:
    recording = Recording.open(write(tmp_path / "a.wav", np.zeros(8_000, np.float32), 8_000))
    assert np.abs(recording.read()).max() == 0.0


def test_the_bytes_of_a_file(tmp_path: Path) -> None:
    wave = lively(1.0, 22_050, 2)
    wav = write(tmp_path / "a.wav", wave, 22_050)
    ffmpeg("-i", wav, tmp_path / "a.m4a")
    recording = Recording.from_bytes(wav.read_bytes(), "upload.wav")
    assert (recording.name, recording.rate, recording.duration) == ("upload.wav", 22_050, 1.0)
    assert recording.source.startswith("memory:")
    assert np.array_equal(recording.read(0.1, 0.4, 22_050), Recording.open(wav).read(0.1, 0.4, 22_050))
    assert Recording.from_bytes((tmp_path / "a.m4a").read_bytes()).duration == pytest.approx(1.0, abs=0.1)


def test_the_bytes_of_a_file_within_limits(tmp_path: Path) -> None:
    wav = write(tmp_path / "a.wav", lively(2.0, 22_050), 22_050)
    slow = Recording.from_bytes(wav.read_bytes(), "upload", longest=2.0, rate=16_000)
    assert slow.rate == 16_000 and apart(slow.read(), Recording.open(wav).read()) == 0.0, (
        "as if it had been opened"
    )
    with pytest.raises(RecordingTooLongError) as caught:
        Recording.from_bytes(wav.read_bytes(), "upload", longest=1.5)
    assert "the recording upload is 2.0 s" in str(caught.value) and str(tmp_path) not in str(caught.value)


# ------------------------------------------------------------------------------------------------ arrays


def test_an_array_is_copied_and_cannot_be_changed_through_what_is_read() -> None:
    wave = lively(0.5, 16_000)
    recording = Recording.from_array(wave, 16_000, "mine")
    wave[:] = 0.0
    first = recording.read()
    assert np.array_equal(first, lively(0.5, 16_000))
    first[:] = 0.0
    assert np.array_equal(recording.read(), lively(0.5, 16_000))
    assert recording.name == "mine" and recording.nbytes == 4 * 8_000


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("int16", 32_768, 0), ("int32", 2**31, 0), ("int8", 128, 0), ("uint8", 128, 128), (">i2", 32_768, 0)],
)
def test_integers_are_scaled(dtype: str, scale: int, offset: int) -> None:
    wave = lively(0.2, 16_000)
    array = (np.round(wave.astype(np.float64) * scale * 0.99) + offset).astype(dtype)
    expected = (array.astype(np.float64) - offset) / scale
    assert apart(Recording.from_array(array, 16_000).read(), expected) < 1e-6


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_floats_are_taken_as_they_are(dtype: str) -> None:
    wave = lively(0.2, 16_000).astype(dtype)
    heard = Recording.from_array(wave, 16_000).read()
    assert heard.dtype == np.float32
    assert np.array_equal(heard, wave.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_the_shorter_axis_holds_the_channels(channels: int) -> None:
    wave = lively(0.2, 16_000, channels).reshape(-1, channels)
    by_columns, by_rows = Recording.from_array(wave, 16_000), Recording.from_array(wave.T, 16_000)
    assert by_columns.channels == by_rows.channels == channels
    assert by_columns.frames == 3_200
    assert by_columns.sha256 == by_rows.sha256
    assert apart(by_columns.read(), wave.mean(axis=1)) < 1e-6


def test_lists_and_tensors_are_arrays_too() -> None:
    torch = pytest.importorskip("torch")
    wave = lively(0.1, 16_000)
    plain = Recording.from_array(wave, 16_000)
    assert Recording.from_array(wave.tolist(), 16_000).sha256 == plain.sha256
    assert Recording.from_array(torch.tensor(wave), 16_000).sha256 == plain.sha256


def test_the_hash_of_an_array_is_that_of_samples_and_rate() -> None:
    wave = lively(0.1, 16_000)
    first = Recording.from_array(wave, 16_000, "a")
    assert first.sha256 == Recording.from_array(wave.copy(), 16_000.0, "b").sha256  # type: ignore[arg-type]
    assert first.sha256 != Recording.from_array(wave, 8_000).sha256
    assert first.sha256 != Recording.from_array(np.concatenate([wave, [0.0]]), 16_000).sha256
    assert first.source == "memory:" + first.sha256[:16]


# ------------------------------------------------------------------------------------------------ reading


def test_a_span_is_exact_to_the_sample(tmp_path: Path) -> None:
    wave = lively(3.0, 44_100)
    recording = Recording.open(write(tmp_path / "a.wav", wave, 44_100, "FLOAT"))
    for start, end in [(0.0, 3.0), (1.0, 2.0), (0.12345, 0.98765), (2.9999, 3.0), (0.0, 1 / 44_100)]:
        first, last = round(start * 44_100), round(end * 44_100)
        assert np.array_equal(recording.read(start, end, 44_100), wave[first:last])


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 44_101, 48_000])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_resampled_span_is_that_part_of_the_resampled_whole(
    tmp_path: Path, rate: int, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    wave = lively(3.0, rate)
    file = write(tmp_path / "a.wav", wave, rate, "FLOAT")
    recording = Recording.from_array(wave, rate) if in_memory else Recording.open(file)
    whole = recording.read()
    assert len(whole) == 48_000
    generator = np.random.default_rng(0)
    for _ in range(5):
        start = generator.uniform(0, 2.9)
        end = min(3.0, start + generator.uniform(0.02, 2.0))
        first, last = round(start * 16_000), round(end * 16_000)
        assert apart(recording.read(start, end), whole[first:last]) < 2e-5
    monkeypatch.setattr(recording_module, "_CHUNK_SECONDS", 0.7)  # long stretches come in pieces
    assert apart(recording.read(), whole) < 2e-5


def test_a_crop_of_a_long_file_reads_only_the_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 16_000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(60 * 16_000, np.float32))
    recording = Recording.open(tmp_path / "long.flac")
    assert recording.duration == 3600.0
    decoded = 0
    block = SoundReader._block

    def counted(self: SoundReader, samples: int) -> np.ndarray:
        nonlocal decoded
        got = block(self, samples)
        decoded += len(got)
        return got

    monkeypatch.setattr(SoundReader, "_block", counted)
    assert len(recording.read(3000.0, 3002.0, rate=16_000)) == 32_000
    assert decoded == 32_000
    assert len(recording.read(3000.0, 3002.0, rate=24_000)) == 48_000
    assert decoded < 65_000


@pytest.mark.parametrize(
    ("start", "end"),
    [(-0.1, 1.0), (1.0, 1.0), (1.5, 1.0), (0.0, 2.1), (2.0, None), (float("nan"), 1.0), (0.0, float("nan"))],
)
def test_spans_outside_are_refused(start: float, end: float | None) -> None:
    with pytest.raises(RecordingError, match="needs 0 <= start < end <= 2.000 s"):
        Recording.from_array(lively(2.0, 8_000), 8_000).read(start, end)


@pytest.mark.parametrize("rate", [0, -16_000, 10**9, 16_000.5, float("nan"), float("inf"), True, "16000"])
def test_rates_that_no_one_asks_for_are_refused(rate: object) -> None:
    recording = Recording.from_array(lively(0.1, 8_000), 8_000)
    with pytest.raises(RecordingError, match="rate"):
        recording.read(rate=rate)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ references


def test_a_crop_has_the_length_that_its_reference_foretells(tmp_path: Path) -> None:
    recording = Recording.open(write(tmp_path / "a.wav", lively(3.1234, 44_100), 44_100))
    generator = np.random.default_rng(0)
    for rate in (16_000, 24_000, 44_100):
        for _ in range(6):
            start = generator.uniform(0, 3.0)
            transform = Transform(speed=generator.choice([0.5, 1.0, 1.3]), gain_db=3.0)
            ref = recording.ref(start, min(recording.duration, start + generator.uniform(0.01, 2)), transform)
            assert len(recording.crop(ref, rate)) == ref.samples(rate)
    assert len(recording.read(rate=16_000)) == recording.ref().samples(16_000)


def test_the_reference_to_the_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", lively(1.00003, 44_100), 44_100)
    recording = Recording.open(file)
    ref = recording.ref()
    assert ref.is_whole and ref.source == str(file) and not ref.in_memory
    assert AudioRef.model_validate_json(ref.model_dump_json()) == ref
    assert np.array_equal(recording.crop(ref), recording.read())
    assert Recording.from_array(lively(1.0, 8_000), 8_000).ref().in_memory


def test_a_crop_is_read_and_transformed() -> None:
    wave = np.concatenate([tone(500.0, 1.0), tone(2000.0, 1.0)])
    recording = Recording.from_array(wave, 16_000)
    heard = recording.crop(recording.ref(0.5, 1.5, Transform(low_hz=1000.0, speed=0.5)))
    assert len(heard) == 32_000
    assert rms_db(heard[:12_000]) < -40 < rms_db(heard[20_000:])


def test_a_reference_to_another_recording_is_refused() -> None:
    first = Recording.from_array(lively(1.0, 8_000), 8_000, "first")
    second = Recording.from_array(lively(1.0, 8_000, seed=1), 8_000, "second")
    with pytest.raises(RecordingError, match="is not to second"):
        second.crop(first.ref())


# ------------------------------------------------------------------------------------------------ change


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", lively(1.0, 16_000), 16_000)
    hashed, unhashed = Recording.open(file), Recording.open(file)
    hashed.ref()
    write(file, lively(1.0, 16_000, seed=1), 16_000)
    with pytest.raises(RecordingError, match="changed after it was opened"):
        hashed.read()
    with pytest.raises(RecordingError, match="changed after it was opened"):
        unhashed.read()
    with pytest.raises(RecordingError, match="changed after it was opened"):
        unhashed.ref()


def test_a_file_that_was_only_touched_is_still_the_same(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", lively(1.0, 16_000), 16_000)
    recording = Recording.open(file)
    ref = recording.ref()
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert len(recording.crop(ref)) == 16_000


def test_a_file_that_goes_after_it_was_opened_is_missed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", lively(1.0, 16_000), 16_000)
    recording = Recording.open(file)
    file.unlink()
    with pytest.raises(RecordingError, match="cannot be found any more"):
        recording.read()


# ------------------------------------------------------------------------------------------------ levels


def test_levels() -> None:
    assert rms_db(np.ones(100, np.float32)) == pytest.approx(0.0)
    assert rms_db(tone(500.0, 1.0, level=1.0)) == pytest.approx(-3.01, abs=0.01)
    assert rms_db(tone(500.0, 1.0, level=0.1)) == pytest.approx(-23.01, abs=0.01)
    assert rms_db(np.zeros(100, np.float32)) == rms_db(np.zeros(0, np.float32)) == -120.0
    assert is_silent(np.zeros(100, np.float32)) and is_silent(tone(500.0, 1.0, level=1e-4))
    assert not is_silent(tone(500.0, 1.0, level=0.01))
    assert is_silent(tone(500.0, 1.0, level=0.01), below_db=-40.0)


def test_a_recording_is_silent_where_no_half_minute_of_it_is_not() -> None:
    quiet = np.zeros(61 * 1000, np.float32)
    assert Recording.from_array(quiet, 1000).is_silent
    quiet[-600:] = 0.2
    assert not Recording.from_array(quiet, 1000).is_silent


def test_wav_bytes_are_a_wav_file() -> None:
    wave = lively(0.5, 16_000) * 2.0
    data = wav_bytes(wave, 16_000)
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert data[:4] == b"RIFF" and rate == 16_000
    assert apart(samples, np.clip(wave, -1.0, 1.0)) < 1e-4
    assert Recording.from_bytes(data).duration == 0.5


# ------------------------------------------------------------------------------------------------ names and notes


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on POSIX only")
def test_a_name_of_any_bytes_is_opened_and_can_be_stored(tmp_path: Path) -> None:
    wave = lively(1.0, 16_000)
    names = (
        b"caf\xe9.wav",
        b"\xff\xfe.flac",
        b"caf\xe9.m4a",
        b"a\nb\x1b[31m.wav",
        "d\u00e9j\u00e0.ogg".encode(),
    )
    for name in names:
        plain = write(tmp_path / "plain.wav", wave, 16_000)
        path = os.fsdecode(os.fsencode(tmp_path) + b"/" + name)
        if name.endswith(b"m4a"):
            ffmpeg("-i", plain, tmp_path / "plain.m4a")
            os.rename(tmp_path / "plain.m4a", path)
        else:
            made = tmp_path / ("plain." + path.rsplit(".", 1)[1])
            os.rename(made if made == plain else write(made, wave, 16_000), path)
        recording = Recording.open(path)
        ref = AudioRef.model_validate_json(recording.ref().model_dump_json())
        (recording.name + recording.source).encode("utf-8")
        assert Recording.open(ref.source).sha256 == recording.sha256
        assert len(recording.crop(ref)) == recording.ref().samples(16_000)
    missing = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.wav")
    with pytest.raises(RecordingError) as caught:
        Recording.open(missing)
    assert "\\xe9.wav cannot be opened" in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to(tmp_path / "b.wav")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    with pytest.raises(RecordingError, match="cannot be opened: .*symbolic links"):
        Recording.open(tmp_path / "a.wav")


def test_a_recording_in_order_has_no_notes(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"):
        assert Recording.open(write(tmp_path / name, lively(1.0, 16_000, 2), 16_000)).notes == (), name


def test_notes_of_bytes_are_kept(tmp_path: Path) -> None:
    data = write(tmp_path / "a.wav", lively(2.0, 16_000), 16_000).read_bytes()
    assert Recording.from_bytes(data[:40_000]).notes[0].startswith("it is cut off: ")


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_a_segment_of_pydub_is_heard_as_its_file_is(tmp_path: Path, width: int, channels: int) -> None:
    from pydub import AudioSegment

    subtype = {1: "PCM_U8", 2: "PCM_16", 4: "PCM_32"}[width]
    file = write(tmp_path / "a.wav", lively(1.0, 16_000, channels), 16_000, subtype=subtype)
    segment = AudioSegment.from_file(io.BytesIO(file.read_bytes()), format="wav")
    assert segment.sample_width == width
    recording, opened = Recording.from_segment(segment[250:750]), Recording.open(file)
    assert (recording.duration, recording.channels, recording.rate) == (0.5, channels, 16_000)
    heard = recording.crop(recording.ref(), 16_000)
    assert np.abs(heard - opened.crop(opened.ref(0.25, 0.75), 16_000)).max() <= 2 ** (1 - 8 * width) + 1e-6


def test_an_empty_segment_is_refused() -> None:
    from pydub import AudioSegment

    with pytest.raises(RecordingError):
        Recording.from_segment(AudioSegment.empty())
