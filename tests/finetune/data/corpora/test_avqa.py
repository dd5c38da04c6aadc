"""AVQA: the questions of a video come with its recording, those about the picture do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from echo_agent.finetune.data.corpora.avqa import read_avqa
from echo_agent.finetune.data.records import Asked
from tests.finetune.data.corpora.clips import broken, clip

ENTRY: dict[str, Any] = {
    "id": 183,
    "video_name": "-HG3Omg_89c_000030",
    "video_id": 341,
    "question_text": "What happened in the video?",
    "multi_choice": ["motorboat", "Yacht consignment ", "Sailboat set sail", "Consignment car"],
    "answer": 1,
    "question_relation": "Both",
    "question_type": "Happening",
}


def read(tmp_path: Path, *entries: Any) -> Any:
    clip(tmp_path / "audio" / "-HG3Omg_89c_000030.wav")
    path = tmp_path / "val_qa.json"
    path.write_text(json.dumps(entries))
    return read_avqa(path, tmp_path / "audio", split="test")


def test_one_record_for_a_video(tmp_path: Path) -> None:
    other = ENTRY | {
        "id": 184,
        "question_text": "What is calling?",
        "answer": 0,
        "question_relation": "Sound",
    }
    found = read(tmp_path, ENTRY, other, ENTRY)
    assert "1 record; nothing skipped; 1 counted once" in found.report()
    assert [(row.where, row.detail) for row in found.merged] == [
        (f"{tmp_path / 'val_qa.json'}: entry 3", "What happened in the recording?")
    ]
    (record,) = found.records
    choices = ("motorboat", "Yacht consignment", "Sailboat set sail", "Consignment car")
    assert record.asked == (
        Asked(question="What happened in the recording?", choices=choices, answer="Yacht consignment"),
        Asked(question="What is calling?", choices=choices, answer="motorboat"),
    )
    assert (record.id, record.group, record.duration) == ("-HG3Omg_89c_000030", "-HG3Omg_89c", 10.0)
    assert not record.complete and not record.events and record.split == "test"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"question_relation": "View"}, "about what is seen (question_relation View)"),
        ({"video_name": "gone"}, "without audio"),
        ({"video_name": ""}, "with values that do not fit"),
        ({"question_text": " "}, "with values that do not fit"),
        ({"question_text": "\ud800"}, "with values that do not fit"),
        ({"answer": 4}, "with an answer that is none of the choices"),
        ({"answer": -1}, "with an answer that is none of the choices"),
        ({"answer": "motorboat"}, "with an answer that is none of the choices"),
        ({"multi_choice": ["a", "A ", "b", "c"]}, "with choices that are the same"),
        ({"multi_choice": ["a", None]}, "with choices that are no texts"),
        ({"multi_choice": "abcd"}, "with choices that are no texts"),
    ],
)
def test_what_is_skipped(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    found = read(tmp_path, ENTRY | change, ENTRY)
    assert len(found.records) == 1 and len(found.records[0].asked) == 1
    assert [(row.where, row.why) for row in found.skipped] == [(f"{tmp_path / 'val_qa.json'}: entry 1", why)]


def test_entries_that_lack_something(tmp_path: Path) -> None:
    short = {key: value for key, value in ENTRY.items() if key != "answer"}
    found = read(tmp_path, short, "text", ENTRY)
    assert [row.why for row in found.skipped] == ["that lack something", "that are no JSON object"]
    assert found.skipped[0].detail == "answer" and len(found.records) == 1


def test_a_recording_that_cannot_be_read_leaves_out_the_video(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    broken(tmp_path / "audio" / "other_000001.wav")
    found = read(tmp_path, ENTRY, ENTRY | {"video_name": "other_000001"})
    assert [record.id for record in found.records] == ["-HG3Omg_89c_000030"]
    assert [row.why for row in found.skipped] == ["with audio that is empty or cannot be read"]
