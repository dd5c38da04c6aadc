from __future__ import annotations

from pathlib import Path

import pytest

from echo_agent.audio.mpeg import count_frames
from tests.sounds import ffmpeg, half, lively, write


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("mpeg") / "a.wav", lively(4.0, 44_100, 2), 44_100)


@pytest.mark.parametrize(
    "options",
    [
        ("-q:a", "4"),
        ("-b:a", "320k"),
        ("-q:a", "9", "-ar", "22050", "-ac", "1"),
        ("-b:a", "8k", "-ar", "8000", "-ac", "1"),
        ("-b:a", "32k", "-ar", "48000", "-ac", "1"),
    ],
)
def test_the_frames_are_as_many_as_the_encoder_says(
    wav: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    ffmpeg("-i", wav, *options, tmp_path / "a.mp3")
    found = count_frames(tmp_path / "a.mp3")
    assert found is not None and found.promised is not None
    assert found.frames == found.promised
    rate = int(options[options.index("-ar") + 1]) if "-ar" in options else 44_100
    assert 4.0 <= found.samples / rate < 4.2


def test_tags_and_pictures_before_the_sound_are_passed_over(wav: Path, tmp_path: Path) -> None:
    ffmpeg("-i", wav, "-q:a", "4", tmp_path / "plain.mp3")
    ffmpeg("-i", wav, "-q:a", "4", "-metadata", "title=" + "\xff\xfb" * 5000, tmp_path / "tagged.mp3")
    plain, tagged = count_frames(tmp_path / "plain.mp3"), count_frames(tmp_path / "tagged.mp3")
    assert plain is not None and tagged is not None
    assert plain == tagged


def test_without_an_entry_nothing_is_promised(wav: Path, tmp_path: Path) -> None:
    ffmpeg("-i", wav, "-q:a", "4", tmp_path / "with.mp3")
    ffmpeg("-i", wav, "-q:a", "4", "-write_xing", "0", tmp_path / "without.mp3")
    with_entry, without = count_frames(tmp_path / "with.mp3"), count_frames(tmp_path / "without.mp3")
    assert with_entry is not None and without is not None
    assert without.promised is None
    assert without.frames == with_entry.frames


def test_a_truncated_file_holds_fewer_than_promised(wav: Path, tmp_path: Path) -> None:
    ffmpeg("-i", wav, "-b:a", "64k", tmp_path / "a.mp3")
    found = count_frames(half(tmp_path / "a.mp3", tmp_path / "half.mp3"))
    assert found is not None and found.promised is not None
    assert found.frames == pytest.approx(found.promised / 2, abs=3)


def test_rubbish_between_frames_is_passed_over(wav: Path, tmp_path: Path) -> None:
    ffmpeg("-i", wav, "-b:a", "64k", "-write_xing", "0", "-id3v2_version", "0", tmp_path / "a.mp3")
    whole = count_frames(tmp_path / "a.mp3")
    assert whole is not None
    data = (tmp_path / "a.mp3").read_bytes()
    size = len(data) // whole.frames
    (tmp_path / "b.mp3").write_bytes(b"\xff\xfbjunk" * 50 + data + b"TAG" + bytes(125))
    again = count_frames(tmp_path / "b.mp3")
    assert size > 100 and again == whole


def test_other_files_hold_no_frames(wav: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp3").write_text("this is no music\n" * 1000)
    assert count_frames(tmp_path / "text.mp3") is None
    assert count_frames(wav) is None
