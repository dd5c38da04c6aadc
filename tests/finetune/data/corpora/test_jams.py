"""JAMS in and out: scaper's soundscapes are read, and what is written comes back and keeps to the schema."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.jams import read_jams, write_jams
from echo_agent.finetune.data.records import Event, Record
from tests.finetune.data.corpora.clips import clip
from tests.finetune.data.corpora.test_jsonl import full


def observation(time: float, duration: float, **value: Any) -> dict[str, Any]:
    about = {
        "source_time": 0,
        "event_time": time,
        "event_duration": 0.8,
        "pitch_shift": None,
        "time_stretch": 1.2,
    }
    return {"time": time, "duration": duration, "value": about | value, "confidence": 1.0}


SOUNDSCAPE: dict[str, Any] = {
    "annotations": [
        {
            "annotation_metadata": {"curator": {"name": "", "email": ""}, "annotator": {}, "version": "", "corpus": ""},
            "namespace": "scaper",
            "data": [
                observation(0.0, 10.0, label="park", source_file="bg/park/1.wav", snr=0, role="background"),
                observation(7.0, 0.967, label="human_voice", source_file="fg/voice/42.wav", snr=10, role="foreground"),
                observation(2.0, 5.0, label="siren", source_file="fg/siren/69.wav", snr=5.5, role="foreground"),
            ],
            "sandbox": {"scaper": {"fg_labels": ["car_horn", "human_voice", "siren"], "ref_db": -50}},
            "time": 0,
            "duration": 10.0,
        }
    ],
    "file_metadata": {"title": "", "duration": 10.0, "identifiers": {}, "jams_version": "0.3.4"},
    "sandbox": {},
}  # fmt: skip
"""As scaper 1.6 writes it: the duration of an observation is that after the time stretch."""


def tagged(namespace: str, *rows: tuple[float, float, Any]) -> dict[str, Any]:
    """A file with one annotation of labels."""
    data = [
        {"time": time, "duration": length, "value": value, "confidence": None} for time, length, value in rows
    ]
    return {"annotations": [{"namespace": namespace, "annotation_metadata": {}, "data": data}], "sandbox": {}}


def save(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def test_a_soundscape(tmp_path: Path) -> None:
    audio = clip(tmp_path / "scape_1.wav")
    (record,) = read_jams(save(tmp_path / "scape_1.jams", SOUNDSCAPE)).records
    assert record == Record(
        id="scape_1",
        audio=str(audio),
        duration=10.0,
        events=(
            Event("siren", "sound", 2.0, 7.0, sources=("fg/siren/69.wav",), level_db=-44.5),
            Event("human voice", "sound", 7.0, 7.967, sources=("fg/voice/42.wav",), level_db=-40.0),
        ),
        labels=("car horn", "human voice", "siren"),
        corpus="jams",
    )


def test_a_background_is_not_absent(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav")
    data = copy.deepcopy(SOUNDSCAPE)
    data["annotations"][0]["sandbox"]["scaper"]["fg_labels"].append("park")
    (record,) = read_jams(save(tmp_path / "a.jams", data)).records
    assert "park" not in record.labels and "car horn" in record.labels


def test_labels_and_tags(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav")
    save(tmp_path / "a.jams", tagged("segment_open", (0.0, 10.0, "Street_Noise"), (1.0, 0.5, "Dog")))
    (segments,) = read_jams(tmp_path / "a.jams").records
    assert [(event.label, event.offset) for event in segments.events] == [
        ("street noise", 10.0),
        ("dog", 1.5),
    ]
    assert not segments.complete and not segments.labels and not segments.captions
    save(
        tmp_path / "a.jams",
        tagged("tag_open", (0.0, 10.0, "A street."), (0.0, 0.0, "Noisy."), (1.0, 0.5, "Dog")),
    )
    (tags,) = read_jams(tmp_path / "a.jams").records
    assert tags.captions == ("A street.", "Noisy.") and [event.label for event in tags.events] == ["dog"]
    assert not tags.complete


def test_round_trip(tmp_path: Path) -> None:
    record = full(clip(tmp_path / "sounds" / "a.flac", 2.0))
    empty = Record(id="silence", audio=str(clip(tmp_path / "b.wav", 1.0)), duration=1.01)
    late = empty.model_copy(update={"id": "late", "events": (Event("end", "sound", 0.5, 1.05),)})
    paths = (tmp_path / "x.jams", tmp_path / "deep" / "er" / "y.jams", tmp_path / "late.jams")
    for path, one in zip(paths, (record, empty, late), strict=True):
        write_jams(path, one)
        assert read_jams(path).records == (one,)
        first = path.read_bytes()
        write_jams(path, read_jams(path).records[0])
        assert path.read_bytes() == first
    assert json.loads((tmp_path / "x.jams").read_text())["sandbox"]["echo_agent"]["audio"] == "sounds/a.flac"


def test_what_another_tool_changed_holds(tmp_path: Path) -> None:
    write_jams(tmp_path / "x.jams", full(clip(tmp_path / "a.wav", 2.0)))
    data = json.loads((tmp_path / "x.jams").read_text())
    seen = next(seen for seen in data["annotations"][0]["data"] if seen["value"]["label"] == "Dog_Bark")
    seen["time"], seen["duration"], seen["value"]["label"] = 0.2, 0.4, "barking"
    (record,) = read_jams(save(tmp_path / "x.jams", data)).records
    event = next(event for event in record.events if event.label == "barking")
    assert (event.onset, event.hits) == (0.2, 3) and event.offset == pytest.approx(0.6)


def test_what_is_written_keeps_to_the_schema(tmp_path: Path) -> None:
    """The rules of JAMS 0.3 and of its namespace ``scaper``, as far as they concern what is written."""
    write_jams(tmp_path / "x.jams", full(tmp_path / "a.wav"))
    data = json.loads((tmp_path / "x.jams").read_text(), parse_constant=pytest.fail)
    assert set(data) == {"annotations", "file_metadata", "sandbox"}
    about = data["file_metadata"]
    assert about["duration"] == 2.0 and all(
        isinstance(about[key], str) for key in ("title", "artist", "release")
    )
    assert isinstance(about["identifiers"], dict) and about["jams_version"] == "0.3.4"
    (annotation,) = data["annotations"]
    assert set(annotation) == {"namespace", "annotation_metadata", "data", "sandbox", "time", "duration"}
    assert annotation["namespace"] == "scaper" and annotation["time"] == 0 and annotation["duration"] == 2.0
    assert all(isinstance(value, str) for value in annotation["annotation_metadata"].values())
    assert len(annotation["data"]) == 4
    for seen in annotation["data"]:
        assert set(seen) == {"time", "duration", "value", "confidence"}
        assert seen["time"] >= 0 and seen["duration"] > 0
        value = seen["value"]
        assert value["role"] == "foreground" and isinstance(value["label"], str)
        assert value["event_time"] == seen["time"] and value["event_duration"] == seen["duration"]


def test_where_the_audio_is(tmp_path: Path) -> None:
    path = save(tmp_path / "jams" / "a.jams", SOUNDSCAPE)
    assert [row.why for row in read_jams(path).skipped] == ["without audio"]
    audio = clip(tmp_path / "sound" / "a.ogg")
    assert read_jams(path, tmp_path / "sound").records[0].audio == str(audio)
    data = copy.deepcopy(SOUNDSCAPE)
    data["annotations"][0]["sandbox"]["scaper"]["audio_path"] = "/gone/with/the/machine/mix.wav"
    save(path, data)
    beside = clip(tmp_path / "jams" / "mix.wav")
    assert read_jams(path).records[0].audio == str(beside)
    named = tagged("segment_open", (0.0, 1.0, "dog")) | {"sandbox": {"content_path": "../sound/a.ogg"}}
    assert read_jams(save(tmp_path / "jams" / "b.jams", named)).records[0].audio == str(audio)


def test_a_folder_is_read_in_order_and_bad_files_are_named(tmp_path: Path) -> None:
    for name in ("b", "a", "sub/c"):
        clip(tmp_path / f"{name}.wav")
        save(tmp_path / f"{name}.jams", SOUNDSCAPE)
    (tmp_path / "d.jams").write_text("{")
    (tmp_path / "e.jams").write_bytes(b"\xff")
    found = read_jams(tmp_path)
    assert [record.id for record in found.records] == ["a", "b", "sub/c"]
    assert [(row.where, row.why) for row in found.skipped] == [
        (str(tmp_path / name), "that are not JAMS") for name in ("d.jams", "e.jams")
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="there is no .jams file in"):
        read_jams(tmp_path / "none")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tagged("beat", (0.0, 0.0, 1.0)), "without events"),
        ({"annotations": []}, "without events"),
        ({"annotations": ["x", None]}, "without events"),
        (tagged("segment_open", (0.0, 1.0, {"label": "x"})), "with a label that is no text"),
        (tagged("scaper", (0.0, 1.0, "dog")), "with a label that is no text"),
        (tagged("segment_open", (1.0, 0.0, "x")), "with an event that ends before it begins"),
        (tagged("segment_open", (1.0, float("nan"), "x")), "with a time that is no number"),
        (tagged("segment_open", (10**400, 1.0, "x")), "with a time that is no number"),
        (tagged("segment_open", (-1.0, 2.0, "x")), "with an event that is none"),
        (tagged("segment_open", (9.0, 3.0, "x")), "with an event beyond the end of the audio"),
        ({"annotations": [{"namespace": "scaper", "data": {"time": [0]}}]}, "with observations that are not a list"),
        ({"annotations": [{"namespace": "scaper", "data": [5]}]}, "with a time that is no number"),
        (tagged("segment_open", (0.0, 1.0, "x")) | {"sandbox": {"echo_agent": {"events": 3, "id": 5}}},
         "with values that do not fit"),
    ],
)  # fmt: skip
def test_odd_files_are_skipped_with_a_reason(tmp_path: Path, data: Any, why: str) -> None:
    clip(tmp_path / "a.wav")
    found = read_jams(save(tmp_path / "a.jams", data))
    assert not found.records and [row.why for row in found.skipped] == [why]
