from __future__ import annotations

from pathlib import Path

import pytest

from echo_agent.audio.ogg import walk_pages
from echo_agent.audio.recording import Recording
from tests.sounds import ffmpeg, lively, tone, write

RATE = 16_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ogg")
    wav = write(folder / "a.wav", lively(6.0, RATE), RATE)
    for codec, name in (("libopus", "a.opus"), ("libvorbis", "a.ogg"), ("flac", "a.oga")):
        ffmpeg("-i", wav, "-c:a", codec, "-f", "ogg", folder / name)
        ffmpeg("-i", wav, "-c:a", codec, "-f", "ogg", "-output_ts_offset", "100", folder / f"late-{name}")
    return folder


def _pages(data: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(b"OggS\0", at)]


NAMES = ["a.opus", "a.ogg", "a.oga"]


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_file_is_not_odd(files: Path, name: str) -> None:
    found = walk_pages(str(files / name))
    assert (found.oddity, found.is_chained, len(found.codecs), found.is_whole) == (None, False, 1, True)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_its_last_page_is_not_whole(files: Path, tmp_path: Path, name: str) -> None:
    """Also where it ends between two pages, and where a whole stream follows."""
    data = (files / name).read_bytes()
    cut = data[: _pages(data)[-1]]
    for content in (cut, data[:-1], cut + data):
        (tmp_path / name).write_bytes(content)
        assert not walk_pages(str(tmp_path / name)).is_whole
        recording = Recording.open(tmp_path / name)
        assert any(note.startswith("its last page is missing") for note in recording.notes)


def test_pages_that_are_damaged_one_and_all_end_the_walk(tmp_path: Path) -> None:
    """Each claims 64 KiB, of which the checksum is computed."""
    (tmp_path / "a.ogg").write_bytes((b"OggS" + bytes(22) + b"\xff" * 256) * 20_000)
    assert walk_pages(str(tmp_path / "a.ogg")).oddity == "one of its pages is damaged"


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_begins_in_the_middle_is_heard_from_its_beginning(files: Path, name: str) -> None:
    assert walk_pages(str(files / f"late-{name}")).oddity == "it begins in the middle of a longer stream"
    recording = Recording.open(files / f"late-{name}")
    assert recording.duration == pytest.approx(6.0, abs=0.1)
    assert not any("cut off" in note for note in recording.notes)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_that_is_missing_or_damaged_leaves_the_rest_where_it_was(
    files: Path, tmp_path: Path, name: str
) -> None:
    wav = write(tmp_path / "a.wav", lively(6.0, RATE) * 0.01, RATE)
    sound = lively(6.0, RATE) * 0.01
    sound[5 * RATE :] += tone(500.0, 1.0)
    write(wav, sound, RATE)
    codec = {"a.opus": "libopus", "a.ogg": "libvorbis", "a.oga": "flac"}[name]
    ffmpeg("-i", wav, "-c:a", codec, "-page_duration", "500000", "-f", "ogg", tmp_path / name)
    data = (tmp_path / name).read_bytes()
    pages = _pages(data)
    hit = pages[len(pages) // 2]
    following = pages[len(pages) // 2 + 1]
    for kind, changed in {
        "missing": data[:hit] + data[following:],
        "damaged": data[: hit + 60] + bytes(40) + data[hit + 100 :],
    }.items():
        (tmp_path / kind).write_bytes(changed)
        assert walk_pages(str(tmp_path / kind)).oddity == {
            "missing": "some of its pages are missing", "damaged": "one of its pages is damaged"
        }[kind]  # fmt: skip
        recording = Recording.open(tmp_path / kind)
        assert recording.duration == pytest.approx(6.0, abs=0.1), kind
        quiet, loud = recording.read(4.5, 4.9), recording.read(5.1, 5.9)
        assert abs(quiet).max() < 0.1 < abs(loud).max(), kind
        assert any("heard as silence" in note for note in recording.notes), kind


def test_streams_of_different_codecs_are_told(files: Path, tmp_path: Path) -> None:
    (tmp_path / "a.ogg").write_bytes((files / "a.opus").read_bytes() + (files / "a.ogg").read_bytes())
    found = walk_pages(str(tmp_path / "a.ogg"))
    assert found.is_chained and found.codecs == ("Opus", "Vorbis")
    assert "different codecs (Opus, Vorbis)" in Recording.open(tmp_path / "a.ogg").notes[0]
