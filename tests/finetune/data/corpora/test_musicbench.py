"""MusicBench: chords and beats last until the next, and copies of a clip stay together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from echo_agent.finetune.data.corpora.musicbench import group_of, read_musicbench
from tests.finetune.data.corpora.clips import clip, write

ROW: dict[str, Any] = {
    "dataset": "MusicBench",
    "location": "data_aug2/-0SdAVK79lg_1.wav",
    "main_caption": "This mellow instrumental track showcases an electric guitar.",
    "alt_caption": "This song features an electric guitar as the main instrument. ",
    "prompt_aug": "",
    "prompt_ch": "The chord progression in this song is G, D, G.",
    "prompt_bt": "The beat counts to 2.",
    "prompt_bpm": "The bpm is 118.0.",
    "prompt_key": "The key is G major.",
    "beats": [[0.28, 0.79, 1.3, 1.81], [1.0, 2.0, 1.0, 2.0]],
    "bpm": 118.0,
    "chords": ["N", "G", "D", "D", "G"],
    "chords_time": [0.1, 0.464399093, 2.043356009, 3.5, 8.1],
    "key": ["G", "major"],
    "keyprob": [0.847],
    "is_audioset_eval_mcaps": False,
}


def read(tmp_path: Path, *rows: dict[str, Any]) -> Any:
    clip(tmp_path / "datashare" / "data_aug2" / "-0SdAVK79lg_1.wav")
    path = write(tmp_path / "MusicBench_train.json", *(json.dumps(row) for row in rows))
    return read_musicbench(path, tmp_path / "datashare", split="train")


def test_what_a_clip_holds(tmp_path: Path) -> None:
    found = read(tmp_path, ROW)
    assert found.report() == "1 record; nothing skipped."
    (record,) = found.records
    assert (record.id, record.group, record.split) == ("data_aug2/-0SdAVK79lg_1", "-0SdAVK79lg", "train")
    assert (record.tempo, record.key, record.licence) == (118.0, "G major", "CC-BY-SA-3.0")
    assert not record.complete and not record.labels, "programs found it, and they miss things"
    chords = [(e.label, e.content, e.onset, e.offset) for e in record.events if e.kind == "chord"]
    assert chords == [
        ("G", ("G",), 0.464399093, 2.043356009),
        ("D", ("D",), 2.043356009, 8.1),
        ("G", ("G",), 8.1, 10.0),
    ]
    beats = [(e.label, e.onset, e.offset) for e in record.events if e.kind == "beat"]
    assert beats == [
        *(("downbeat", 0.28, 0.79), ("beat", 0.79, 1.3), ("downbeat", 1.3, 1.81), ("beat", 1.81, 10.0)),
    ]
    assert record.captions[1] == "This song features an electric guitar as the main instrument."
    assert len(record.captions) == 6 and all(record.captions)


def test_what_a_clip_may_lack(tmp_path: Path) -> None:
    (bare,) = read(tmp_path, {"location": ROW["location"]}).records
    assert (bare.events, bare.captions, bare.tempo, bare.key) == ((), (), None, "")
    nothing = {"beats": [[], []], "bpm": 0.0, "chords": [], "chords_time": [], "key": [""], "keyprob": [0.0]}
    (empty,) = read(tmp_path, ROW | nothing).records
    assert (empty.events, empty.tempo, empty.key) == ((), None, "")
    (unsure,) = read(tmp_path, ROW | {"keyprob": [0.4]}).records
    assert unsure.key == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"location": "data_aug2/gone.wav"}, "without audio"),
        ({"location": 5}, "that name no audio"),
        ({"chords": ["G"]}, "with chords that do not match their times"),
        ({"chords": [1, 2, 3, 4, 5]}, "with chords that are no names"),
        ({"chords_time": [1, 2, 3, 3, "x"]}, "with a list that is not one of numbers"),
        ({"chords_time": [1, 5, 4, 6, 7]}, "with times that do not rise"),
        ({"chords_time": [1, 2, 3, 4, 12]}, "with an event beyond the end of the audio"),
        ({"beats": [[1.0, 2.0], [1.0]]}, "with beats that do not match their times"),
        ({"beats": [[10**400], [1]]}, "with a list that is not one of numbers"),
        ({"beats": [1.0, 2.0, 3.0]}, "with beats that are not times and numbers"),
    ],
)
def test_what_is_skipped(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    found = read(tmp_path, ROW | change, ROW)
    assert len(found.records) == 1
    assert [(row.where, row.why) for row in found.skipped] == [
        (f"{tmp_path / 'MusicBench_train.json'}:1", why)
    ]


def test_what_begins_at_the_very_end_is_no_event(tmp_path: Path) -> None:
    late = {
        "beats": [[9.0, 9.5, 10.0, 10.2], [1.0, 2.0, 1.0, 2.0]],
        "chords": ["G", "D"],
        "chords_time": [9.0, 10.0],
    }
    (record,) = read(tmp_path, ROW | late).records
    assert [(event.label, event.offset) for event in record.events] == [
        ("downbeat", 9.5),
        ("G", 10.0),
        ("beat", 10.0),
    ]


def test_the_clip_in_the_named_folder_is_taken(tmp_path: Path) -> None:
    clip(tmp_path / "datashare" / "data" / "-0SdAVK79lg_1.wav", 5.0)
    both = [ROW, {"location": "data/-0SdAVK79lg_1.wav"}]
    assert [(record.id, record.duration) for record in read(tmp_path, *both).records] == [
        ("data_aug2/-0SdAVK79lg_1", 10.0),
        ("data/-0SdAVK79lg_1", 5.0),
    ]


def test_copies_of_a_clip_are_one_group() -> None:
    copies = ("-0SdAVK79lg", "-0SdAVK79lg_1", "-0SdAVK79lg_12")
    assert {group_of(name) for name in copies} == {"-0SdAVK79lg"}
    assert group_of("abcdefgh_12") == "abcdefgh_12", "a video's id may look like a copy's"
    assert group_of("song_3") == group_of("song") == "song"
