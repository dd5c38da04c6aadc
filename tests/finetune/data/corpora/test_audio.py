"""Recordings are found by name, the same one every time, and their length is their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.audio import AudioFolder, bare, fit, length_of, plain
from echo_agent.finetune.data.corpora.sourced import RowError, make_event
from tests.finetune.data.corpora.clips import broken, clip


def test_names_lose_folder_and_ending_but_no_number() -> None:
    assert bare("audio/Y0_350.000_360.000.wav") == "Y0_350.000_360.000"
    assert bare("Y0_350.000_360.000") == "Y0_350.000_360.000"
    assert (
        bare("data\\a.MP3") == "a"
        and plain("data/a.wav") == "data/a"
        and bare("wav") == "wav"
        and bare(".wav") == ""
    )


def test_the_first_name_that_there_is(tmp_path: Path) -> None:
    clip(tmp_path / "deep" / "er" / "b.wav", 0.1)
    lossless = clip(tmp_path / "b.flac", 0.1)
    (tmp_path / "c.txt").write_text("no recording")
    folder = AudioFolder(tmp_path)
    assert folder.find("a", "b.ogg") == lossless, "flac comes before wav, wherever they are"
    assert folder.find("deep/er/b.wav").name == "b.wav", "unless it is named with its folder"
    with pytest.raises(RowError, match="without audio: no c.* in"):
        folder.find("c")


def test_a_name_in_two_folders_is_an_error_that_names_both(tmp_path: Path) -> None:
    one, other = clip(tmp_path / "one" / "x.wav", 0.1), clip(tmp_path / "two" / "x.wav", 0.2)
    folder = AudioFolder(tmp_path)
    for name in ("x.wav", "x", "x.mp3", "elsewhere/x.wav"):
        with pytest.raises(DataError, match=f"{name}' could be {one} or {other}: name the folder"):
            folder.find(name)
    assert folder.find("two/x.wav") == other and folder.find("./one/x.flac") == one
    assert AudioFolder(tmp_path / "one").find("x.wav") == one
    nearer = AudioFolder(tmp_path.parent)
    assert nearer.find("two/x.wav") == other, "the end of a path is enough to tell them apart"


def test_copies_in_two_folders_and_two_endings_in_one_are_no_question(tmp_path: Path) -> None:
    one = clip(tmp_path / "one" / "x.wav", 0.1)
    clip(tmp_path / "two" / "x.wav", 0.1)
    clip(tmp_path / "one" / "y.wav", 0.1)
    better = clip(tmp_path / "one" / "y.flac", 0.1)
    folder = AudioFolder(tmp_path)
    assert folder.find("x.wav") == one
    assert folder.find("y") == better and folder.find("y.wav").suffix == ".wav"


@pytest.mark.parametrize(
    "suffix", ["oga", "amr", "3gp", "m4b", "mka", "ts", "wv", "WAV", "Mp3", "rf64", "wave", "mpg"]
)
def test_every_ending_that_is_opened_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip_350.000.{suffix}"
    path.write_bytes(b"sound")
    folder = AudioFolder(tmp_path)
    assert folder.find("clip_350.000") == folder.find(path.name) == path
    assert bare(path.name) == "clip_350.000"


def test_a_whole_name_is_found_whatever_its_ending(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "take.recording"
    path.parent.mkdir()
    path.write_bytes(b"sound")
    assert AudioFolder(tmp_path).find("take.recording") == path
    with pytest.raises(RowError):
        AudioFolder(tmp_path).find("take")


def test_linked_folders_and_files_are_searched(tmp_path: Path) -> None:
    store = clip(tmp_path / "store" / "part" / "a.wav", 0.1).parent
    data = tmp_path / "data"
    data.mkdir()
    (data / "part").symlink_to(store)
    (data / "b.wav").symlink_to(store / "a.wav")
    (data / "loop").symlink_to(data)
    folder = AudioFolder(data)
    assert folder.find("a.wav") == data / "part" / "a.wav" and folder.find("b") == data / "b.wav"


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder of audio at .*nowhere"):
        AudioFolder(tmp_path / "nowhere")


def test_lengths_and_what_has_none(tmp_path: Path) -> None:
    assert length_of(clip(tmp_path / "a.flac", 1.25)) == 1.25
    for bad in (broken(tmp_path / "b.wav"), clip(tmp_path / "c.wav", 0.0)):
        with pytest.raises(RowError, match="with audio that is empty or cannot be read"):
            length_of(bad)
    (tmp_path / "d.wav").touch()
    with pytest.raises(RowError, match="empty or cannot be read.*0 bytes"):
        length_of(tmp_path / "d.wav")
    for missing in (tmp_path / "e.wav", tmp_path, tmp_path / "x\0.wav", tmp_path / ("x" * 999)):
        with pytest.raises(RowError, match="without audio"):
            length_of(missing)


def test_labels_are_cut_where_an_encoder_cut_the_clip() -> None:
    event = make_event(label="dog", kind="sound", onset=9.0, offset=10.0)
    assert fit([event], 10.0) == [event]
    assert fit([event], 9.9)[0].offset == 9.9
    for duration in (9.4, 8.0):
        with pytest.raises(RowError, match="with an event beyond the end of the audio"):
            fit([event], duration)
    late = make_event(label="dog", kind="sound", onset=9.8, offset=10.0)
    with pytest.raises(RowError, match="beyond the end"):
        fit([late], 9.7)
