from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from echo_agent.audio.flac import flac_samples
from echo_agent.audio.flac_frames import find_frames
from echo_agent.audio.recording import Recording
from tests.sounds import apart, lively, write

RATE = 16_000
WAVE = lively(4.0, RATE)
TAG = b"ID3\x04\0\0\0\0\x10\0" + bytes(2048)


def _stating(data: bytes, samples: int) -> bytes:
    changed = bytearray(data)
    changed[21] &= 0xF0
    changed[22:26] = samples.to_bytes(4, "big")
    return bytes(changed)


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    return write(tmp_path / "plain.flac", WAVE, RATE).read_bytes()


def test_a_plain_file_holds_what_it_states(tmp_path: Path, data: bytes) -> None:
    found = flac_samples(str(tmp_path / "plain.flac"))
    assert found is not None
    stated, held = found
    assert stated == 4 * RATE and stated - 4096 <= held < stated
    assert flac_samples(str(write(tmp_path / "a.wav", WAVE, RATE))) is None


def test_a_header_of_the_first_chunk_and_files_that_were_joined(tmp_path: Path, data: bytes) -> None:
    cases = {
        "short": (_stating(data, RATE), WAVE),
        "tags in front": (TAG + _stating(data, RATE), WAVE),
        "joined": (data + data, np.concatenate([WAVE, WAVE])),
        "tags in front, no length": (TAG + TAG + _stating(data, 0), WAVE),
        "rubbish in front": (b"rubbish!" * 20 + data, WAVE),
    }
    for case, (content, expected) in cases.items():
        (tmp_path / "a.flac").write_bytes(content)
        recording = Recording.open(tmp_path / "a.flac")
        assert apart(recording.read(rate=RATE), expected) < 1e-4, case
        if case != "rubbish in front":  # which some decoders call damage
            assert recording.notes == (), case


def test_tags_in_front_do_not_shift_a_crop(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.flac").write_bytes(b"ID3\x04\0\0\0\x20\0\0" + bytes(0x20 << 14) + data)
    recording = Recording.open(tmp_path / "a.flac")
    for start in (0.0, 1.3, 3.7):
        crop = recording.read(start, start + 0.3, rate=RATE)
        assert apart(crop, WAVE[round(start * RATE) : round((start + 0.3) * RATE)]) < 1e-4


def test_a_length_that_is_too_long_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.flac").write_bytes(_stating(data, 400 * RATE))
    recording = Recording.open(tmp_path / "a.flac")
    assert recording.frames == len(WAVE)
    assert recording.notes[0].startswith("it is cut off: 4.00 s of the 400.00 s")


def test_a_file_full_of_what_looks_like_the_head_of_a_frame(tmp_path: Path, data: bytes) -> None:
    """It is looked at once, not once for each of them."""
    (tmp_path / "a.flac").write_bytes(data[:42] + b"\xff\xf8" * 400_000)
    assert flac_samples(str(tmp_path / "a.flac")) == (len(WAVE), 0)


def test_damage_changes_nothing_about_how_channels_are_mixed(tmp_path: Path) -> None:
    """They cancel out at the beginning of every second, where the decoded copy is looked at, and the file is not."""
    both = np.stack([lively(40.0, 8_000)] * 2, axis=1)
    for second in range(40):
        both[second * 8_000 : second * 8_000 + 800, 1] *= -1.0
    data = bytearray(write(tmp_path / "a.flac", both, 8_000).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "a.flac").write_bytes(data)
    recording = Recording.open(tmp_path / "a.flac")
    crop = recording.read(1.25, 3.5, rate=8_000)
    whole = recording.read(rate=8_000)
    assert recording.notes == ("it is damaged in the middle; what can be decoded there is heard",)
    assert apart(crop, both[10_000:28_000].mean(axis=1)) < 1e-4
    assert apart(crop, whole[10_000:28_000]) < 2e-5


def test_what_is_damaged_is_silent_and_the_rest_is_where_it_was(tmp_path: Path) -> None:
    """The frames are of 4096 samples; damage in 3 places, one of which takes a frame away with its head."""
    wave = lively(10.0, RATE)
    data = write(tmp_path / "a.flac", wave, RATE).read_bytes()
    frames = find_frames(str(tmp_path / "a.flac"))
    assert frames is not None and (frames.rate, frames.channels, frames.stated) == (RATE, 1, len(wave))
    (stream,) = frames._streams
    assert [first for _, first in stream.frames] == list(range(0, len(wave), 4096))
    places = [place for place, _ in stream.frames]
    hit = bytearray(data)
    hit[places[5] + 100 : places[5] + 120] = bytes(20)
    hit[places[12] : places[12] + 10] = bytes(10)
    del hit[places[20] : places[22]]
    (tmp_path / "a.flac").write_bytes(hit)
    recording = Recording.open(tmp_path / "a.flac")
    late = recording.read(9.0, 9.5, rate=RATE)
    whole = recording.read(rate=RATE)
    assert apart(late, wave[9 * RATE : 9 * RATE + RATE // 2]) < 1e-4
    for number in range(len(places)):
        part = slice(number * 4096, (number + 1) * 4096)
        expected = np.zeros_like(wave[part]) if number in (5, 12, 20, 21) else wave[part]
        assert apart(whole[part], expected) < 1e-4, number
    found = find_frames(str(tmp_path / "a.flac"))
    assert found is not None and sum(map(len, found.blocks())) == len(wave) and found.damaged == 3


def test_what_is_no_flac_file_has_no_frames(tmp_path: Path, data: bytes) -> None:
    other = write(tmp_path / "b.flac", WAVE, 8_000).read_bytes()
    for content in (b"RIFF" + data, data[:30], data[:42], data + other):
        (tmp_path / "a.flac").write_bytes(content)
        assert find_frames(str(tmp_path / "a.flac")) is None
