"""What files say of their own size. That half of each kind is told apart from the whole is in `test_bad_recordings`."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from echo_agent.audio.stated import stated_size
from tests.sounds import ffmpeg, lively, write

RATE = 16_000


def _stated(path: Path, content: bytes) -> int | None:
    path.write_bytes(content)
    return stated_size(str(path))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"), ("a.aiff", "pcm_s16be"), ("a.caf", "pcm_s16le"), ("a.avi", "pcm_s16le"),
        ("a.wma", "wmav2"), ("a.m4a", "aac"), ("a.mka", "aac"), ("a.webm", "libopus"), ("a.sox", "pcm_s32le"),
        ("a.adx", "adpcm_adx"), ("a.voc", "pcm_s16le"),
    ],
)  # fmt: skip
def test_a_whole_file_has_the_bytes_that_it_states(tmp_path: Path, name: str, codec: str) -> None:
    ffmpeg("-i", write(tmp_path / "in.wav", lively(1.0, RATE), RATE), "-c:a", codec, tmp_path / name)
    size = (tmp_path / name).stat().st_size
    stated = stated_size(str(tmp_path / name))
    assert stated is not None and size - 100 < stated <= size  # some have a little more behind it
    data = (tmp_path / name).read_bytes()
    assert stated_size(str(tmp_path / name)) == _stated(tmp_path / "tagged", data)


def test_what_is_streamed_knows_no_size(tmp_path: Path) -> None:
    wav = write(tmp_path / "in.wav", lively(1.0, RATE), RATE)
    ffmpeg("-i", wav, "-c:a", "libopus", "-f", "webm", "-live", "1", tmp_path / "a.webm")
    ffmpeg("-i", wav, "-f", "asf_stream", tmp_path / "a.wma")
    for name in ("a.webm", "a.wma"):
        assert stated_size(str(tmp_path / name)) is None, name
    for size in (0, 0xFFFFFFFF, 0x7FFFFFFF):
        assert _stated(tmp_path / "a.avi", b"RIFF" + struct.pack("<I", size) + b"AVI LIST") is None
    assert _stated(tmp_path / "a.caf", b"caff\0\1\0\0data" + b"\xff" * 8 + bytes(100)) is None
    assert _stated(tmp_path / "a.mp4", b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\0mdat" + bytes(100)) is None


def test_a_large_avi_is_several_chunks(tmp_path: Path) -> None:
    first, second = b"RIFF\x0c\0\0\0AVI " + bytes(8), b"RIFF\x40\0\0\0AVIX"
    assert _stated(tmp_path / "a.avi", first + second) == 20 + 72


@pytest.mark.parametrize("head", [
    b"RIFF", b"caff", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c", b"\0\0\0\0ftyp", b"MMMD",
    b"\x1a\x45\xdf\xa3", b"\x1a\x45\xdf\xa3\0", b"Creative Voice File\x1a", b".SoX", b"\x80\0" + bytes(15), b"x",
])  # fmt: skip
def test_a_file_that_ends_within_its_header_states_nothing(tmp_path: Path, head: bytes) -> None:
    for content in (head, head + b"\0", head + b"\xff" * 3):
        stated = _stated(tmp_path / "a", content)
        assert stated is None or stated >= 0
