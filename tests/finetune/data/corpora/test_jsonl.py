"""Records written by hand are read, mistakes are named by line, and what was written comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_agent.finetune.data.corpora.jsonl import read_jsonl, write_records
from echo_agent.finetune.data.records import Asked, Event, Record
from tests.finetune.data.corpora.clips import broken, clip, write

DOG = {"label": "dog", "onset": 1.2, "offset": 2.0}


def full(audio: Path) -> Record:
    """A record with every field set."""
    events = (
        Event("Dog_Bark", "burst", 0.1, 0.7000000000000001, hits=3, sources=("a.wav",), level_db=-20.5),
        Event("voice", "digits", 0.5, 1.9, content=("one", "two"), voice="slt", gender="woman"),
        Event("piano", "notes", 1 / 3, 2.0, pitches=(60, 64)),
        Event("Am", "chord", 0.0, 2.0, content=("Am",)),
    )
    return Record(
        id="k/1",
        audio=str(audio),
        duration=2.0,
        events=events,
        labels=("Dog_Bark", "cat"),
        complete=False,
        corpus="own",
        group="g",
        split="validation",
        licence="CC0-1.0",
        captions=("Ein Hund – zwei Stimmen.",),
        tempo=120.5,
        key="A minor",
        asked=(Asked(question="Who?", choices=("a", "b"), answer="b"),),
    )


def test_what_may_be_left_out(tmp_path: Path) -> None:
    audio = clip(tmp_path / "sounds" / "kitchen.noon.wav", 3.0)
    path = write(tmp_path / "own.jsonl", json.dumps({"audio": "sounds/kitchen.noon.wav", "events": [DOG]}))
    found = read_jsonl(path)
    assert found.records == (
        Record(
            id="sounds/kitchen.noon",
            audio=str(audio),
            duration=3.0,
            events=(Event("dog", "sound", 1.2, 2.0),),
        ),
    )
    assert found.report() == "1 record; nothing skipped."


def test_round_trip(tmp_path: Path) -> None:
    records = [full(clip(tmp_path / "a.flac", 2.0))]
    records.append(Record(id="b", audio=str(clip(tmp_path / "else" / "b.wav", 1.0)), duration=1.01))
    path = tmp_path / "sub" / "out.jsonl"
    write_records(path, records)
    assert read_jsonl(path).records == tuple(records)
    here = tmp_path / "out.jsonl"
    write_records(here, records)
    assert [json.loads(line)["audio"] for line in here.read_text().splitlines()] == ["a.flac", "else/b.wav"]
    assert read_jsonl(here).records == tuple(records)
    first = here.read_bytes()
    write_records(here, read_jsonl(here).records)
    assert here.read_bytes() == first


def test_a_moved_folder_still_reads(tmp_path: Path) -> None:
    old = tmp_path / "old"
    write_records(old / "out.jsonl", [full(clip(old / "a.wav", 2.0))])
    old.rename(tmp_path / "new")
    (record,) = read_jsonl(tmp_path / "new" / "out.jsonl").records
    assert record.audio == str(tmp_path / "new" / "a.wav")


ROW = '{{"audio": "a.wav", "events": [{{"label": "x", "onset": 2, "offset": {offset}}}]}}'
BAD = {
    "that are no JSON object": '{"audio": "a.wav"',
    "that name no audio": '{"events": []}',
    "without audio": '{"audio": "gone.wav"}',
    "with audio that is empty or cannot be read": '{"audio": "broken.wav"}',
    "with a duration that is not that of the audio": '{"audio": "a.wav", "duration": 5}',
    "with an event that ends before it begins": ROW.format(offset=1),
    "with an event beyond the end of the audio": ROW.format(offset=4),
    "with an event that is none": '{"audio": "a.wav", "events": [{"label": "x", "onset": 2}]}',
    "with values that do not fit": '{"audio": "a.wav", "event": []}',
    "with an id that another row has": '{"audio": "a.wav", "events": [{"label": "x", "onset": 2, "offset": 3}]}',
}


def test_every_bad_row_is_named_with_its_line_and_the_others_are_read(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav", 3.0)
    broken(tmp_path / "broken.wav")
    lines = ['{"audio": "a.wav"}', *BAD.values(), "", '{"audio": "a.wav", "id": "last"}']
    found = read_jsonl(write(tmp_path / "own.jsonl", *lines))
    assert [record.id for record in found.records] == ["a", "last"]
    assert [(row.where, row.why) for row in found.skipped] == [
        (f"{tmp_path / 'own.jsonl'}:{number}", why) for number, why in enumerate(BAD, start=2)
    ]
    report = found.report()
    assert "2 records; 10 rows skipped" in report and all(why in report for why in BAD)


@pytest.mark.parametrize(
    "line",
    [
        '["audio"]',
        '{"audio": 3}',
        '{"audio": "a.wav", "events": "dog"}',
        '{"audio": "a.wav", "events": ["dog"]}',
        '{"audio": "a.wav", "duration": "long"}',
        '{"audio": "a.wav", "duration": NaN}',
        '{"audio": "a.wav", "duration": true}',
        '{"audio": "a.wav", "id": ""}',
        '{"audio": "a.wav", "split": "dev"}',
        '{"audio": "a.wav", "events": [{"label": "x", "onset": 0, "offset": Infinity}]}',
        '{"audio": "a.wav", "events": [{"label": "x", "onset": "soon", "offset": 1}]}',
        '{"audio": "a\\u0000.wav"}',
        '{"audio": "a\\ud800.wav"}',
        '{"audio": "a.wav", "duration": 1' + "0" * 400 + "}",
        '{"audio": "."}',
        "[" * 100_000,
    ],
)
def test_odd_rows_are_skipped_with_a_reason(tmp_path: Path, line: str) -> None:
    clip(tmp_path / "a.wav", 3.0)
    found = read_jsonl(write(tmp_path / "own.jsonl", line, '{"audio": "a.wav"}'))
    assert len(found.records) == 1 and len(found.skipped) == 1
    assert len(found.skipped[0].detail) < 400 and found.report().encode()


def test_the_same_row_twice_is_one_and_said(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav", 3.0)
    line = json.dumps({"audio": "a.wav", "events": [DOG, DOG]})
    found = read_jsonl(write(tmp_path / "own.jsonl", line, line))
    assert len(found.records) == 1 and len(found.records[0].events) == 1 and not found.skipped
    assert "2 counted once with what says the same" in found.report() and "own.jsonl:2" in found.report()


def test_overlapping_events_are_fine(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav", 3.0)
    events = [DOG, {"label": "cat", "onset": 0.5, "offset": 3.0}, DOG | {"label": "cow"}]
    (record,) = read_jsonl(
        write(tmp_path / "own.jsonl", json.dumps({"audio": "a.wav", "events": events}))
    ).records
    assert [event.label for event in record.events] == ["cat", "dog", "cow"]
