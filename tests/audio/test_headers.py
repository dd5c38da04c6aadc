"""Files whose headers are wrong about their sound: all of it is heard, and what was found is said."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from echo_agent.audio.headers import find_layout
from echo_agent.audio.layouts import LaidOutFile
from echo_agent.audio.recording import Recording
from tests.sounds import apart, lively, write

RATE = 8_000
WAVE = lively(4.0, RATE)
LIST = b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf58.29.100\0"
PCM = np.round(WAVE.astype(np.float64) * 32767).astype("<i2").tobytes()


def _chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content


def _wav(
    data: bytes, size: int | None = None, before: bytes = b"", after: bytes = b"", rate: int = RATE
) -> bytes:
    described = _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16))
    body = b"WAVE" + described + before + _chunk(b"data", data, size) + after
    return b"RIFF" + struct.pack("<I", len(body) if size is None else min(size + 36, 0xFFFFFFFF)) + body


HEARD_WHOLE = {
    "a few bytes too long": _wav(PCM, len(PCM) + 16),
    "no length": _wav(PCM, 0),
    "2 GiB": _wav(PCM, 0x7FFFFFFF),
    "4 GiB": _wav(PCM, 0xFFFFFFFF),
    "a round number": _wav(PCM, 1_000_000_000),
    "no length after a list": _wav(PCM, 0, before=LIST),
    "a list that is not made even": _wav(PCM, before=b"LIST\x0d\0\0\0INFOISFT\x01\0\0\0a"),
    "two chunks of sound": _wav(PCM[:9_000], after=_chunk(b"data", PCM[9_000:])),
    "whole files joined": b"".join(_wav(PCM[i : i + 9_000]) for i in range(0, len(PCM), 9_000)),
    "whole files joined, without lengths": _wav(PCM[:9_000], 0xFFFFFFFF) + _wav(PCM[9_000:], 0xFFFFFFFF),
    "tags in front": b"ID3\x04\0\0\0\0\x10\0" + bytes(2048) + _wav(PCM, 0xFFFFFFFF),
    "big-endian, no length": b"RIFX\0\0\0\x24WAVEfmt \0\0\0\x10"
    + struct.pack(">HHIIHH", 1, 1, RATE, RATE * 2, 2, 16)
    + b"data\xff\xff\xff\xff"
    + np.frombuffer(PCM, "<i2").astype(">i2").tobytes(),
}


@pytest.mark.parametrize("case", HEARD_WHOLE)
def test_a_wav_with_a_wrong_length_is_heard_whole(tmp_path: Path, case: str) -> None:
    (tmp_path / "a.wav").write_bytes(HEARD_WHOLE[case])
    recording = Recording.open(tmp_path / "a.wav")
    assert apart(recording.read(rate=RATE), WAVE) < 1e-4
    assert apart(recording.read(1.5, 2.5, rate=RATE), WAVE[12_000:20_000]) < 1e-4
    assert recording.notes == ()


@pytest.mark.parametrize(
    ("after", "case"), [(b"", "bare samples"), (LIST, "a chunk between them")], ids=["bare", "behind a chunk"]
)
def test_sound_behind_what_the_header_speaks_of_is_heard_and_said(
    tmp_path: Path, after: bytes, case: str
) -> None:
    data = _wav(PCM[: 2 * RATE], after=after) + PCM[2 * RATE :]
    (tmp_path / "a.wav").write_bytes(data)
    recording = Recording.open(tmp_path / "a.wav")
    assert apart(recording.read(rate=RATE), WAVE) < 1e-4, case
    assert recording.notes == (
        "its header speaks of 1.00 s of sound, but 3.00 s more follow; they are heard too",
    )


def test_a_second_sound_of_another_rate_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(_wav(PCM) + _wav(PCM, rate=16_000))
    recording = Recording.open(tmp_path / "a.wav")
    assert recording.duration == 4.0
    assert recording.notes[0].startswith("a second sound of another format")


def test_a_cut_file_is_no_stream(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(_wav(PCM)[: 44 + 2 * 2 * RATE])
    recording = Recording.open(tmp_path / "a.wav")
    assert recording.duration == 2.0
    assert recording.notes[0].startswith("it is cut off: 2.00 s of the 4.00 s")


@pytest.mark.parametrize(
    "behind",
    [
        b"",
        LIST,
        b"TAG" + bytes(125),
        b"APETAGEX" + b"\x01" * 3000,
        bytes(5000),
        b"\x01\x02junk",
        b"\0" + LIST,
    ],
    ids=["nothing", "list", "id3v1", "ape", "zeros", "a few bytes", "a list at an odd place"],
)
def test_what_is_no_sound_is_not_heard(tmp_path: Path, behind: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(_wav(PCM) + behind)
    recording = Recording.open(tmp_path / "a.wav")
    assert (recording.frames, recording.notes) == (4 * RATE, ())


def test_thousands_of_joined_files(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"".join(_wav(PCM[i : i + 32]) for i in range(0, len(PCM), 32)))
    layout = find_layout(str(tmp_path / "a.wav"))
    assert layout is not None and len(layout.pieces) == 2_000
    assert apart(Recording.open(tmp_path / "a.wav").read(rate=RATE), WAVE) < 1e-4


def test_a_file_that_is_right_has_no_layout(tmp_path: Path) -> None:
    for name in ("a.wav", "a.aiff", "a.au", "a.caf", "a.flac", "a.rf64"):
        assert find_layout(str(write(tmp_path / name, WAVE, RATE))) is None, name


def _with(data: bytes, mark: bytes, at: int, field: bytes) -> bytes:
    place = data.index(mark) + at
    return data[:place] + field + data[place + len(field) :]


def test_lengths_of_the_first_chunk_in_other_kinds_of_files(tmp_path: Path) -> None:
    cases = {
        "a.aiff": (b"SSND", 4, struct.pack(">I", 8 + 2 * RATE)),
        "a.au": (b".snd", 8, struct.pack(">I", 2 * RATE)),
        "a.caf": (b"data", 4, struct.pack(">q", 4 + 2 * RATE)),
        "a.rf64": (b"ds64", 16, struct.pack("<Q", 2 * RATE)),
    }
    for name, (mark, at, field) in cases.items():
        file = write(tmp_path / name, WAVE, RATE, "PCM_16")
        file.write_bytes(_with(file.read_bytes(), mark, at, field))
        recording = Recording.open(file)
        assert apart(recording.read(rate=RATE), WAVE) < 1e-4, name
        assert recording.notes[0].startswith("its header speaks of 1.00 s of sound, but 3.00 s more"), name


def test_placeholders_in_other_kinds_of_files(tmp_path: Path) -> None:
    cases = {
        "a.aiff": (b"SSND", 4, b"\xff\xff\xff\xff"),
        "a.au": (b".snd", 8, bytes(4)),
        "b.au": (b".snd", 8, b"\xff\xff\xff\xff"),
        "a.caf": (b"data", 4, b"\xff" * 8),
        "a.rf64": (b"ds64", 8, bytes(24)),
    }
    for name, (mark, at, field) in cases.items():
        file = write(tmp_path / name, WAVE, RATE, "PCM_16")
        file.write_bytes(_with(file.read_bytes(), mark, at, field))
        recording = Recording.open(file)
        assert apart(recording.read(rate=RATE), WAVE) < 1e-4, name
        assert recording.notes == (), name


def test_joined_files_of_other_kinds(tmp_path: Path) -> None:
    for name in ("a.aiff", "a.au"):
        file = write(tmp_path / name, WAVE, RATE, "PCM_16")
        file.write_bytes(file.read_bytes() * 2)
        recording = Recording.open(file)
        assert apart(recording.read(rate=RATE), np.concatenate([WAVE, WAVE])) < 1e-4, name


def test_a_laid_out_file_reads_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(_wav(PCM[:9_000]) + _wav(PCM[9_000:]))
    layout = find_layout(str(tmp_path / "a.wav"))
    assert layout is not None
    with LaidOutFile(str(tmp_path / "a.wav"), layout) as file:
        whole = file.read()
        assert whole == layout.head + PCM and len(whole) == layout.size
        for at in (0, 10, len(layout.head) - 3, len(layout.head) + 8_990, layout.size - 5, layout.size + 5):
            file.seek(at)
            assert file.read(100) == whole[at : at + 100]
        assert file.seek(-4, 2) == layout.size - 4 and file.read() == whole[-4:]
