"""The everyday recordings and their questions belong together, and echo-nano owns up to what it does not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_agent import Recording
from echo_agent.families.known_words import unknown_words
from echo_agent.rows import read_rows

FOLDER = Path(__file__).parents[2] / "examples"
ROWS = [json.loads(line) for line in (FOLDER / "everyday.jsonl").read_text("utf-8").splitlines()]


def test_rows_are_read_and_fit_their_recordings() -> None:
    rows = read_rows(FOLDER / "everyday.jsonl")
    assert len(rows) == len(ROWS) == 33
    for name in {row["audio"] for row in ROWS}:
        recording = Recording.open(FOLDER / name)
        mine = [row for row in ROWS if row["audio"] == name]
        assert all(row["duration"] == pytest.approx(recording.duration, abs=0.1) for row in mine), name
        assert all(end <= recording.duration for row in mine for _, end in row["gold_spans"]), name
        assert not recording.notes and recording.is_silent == ("room" in name)


def test_every_recording_is_asked_about_and_credited() -> None:
    files = {f"everyday/{path.name}" for path in (FOLDER / "everyday").glob("*.ogg")}
    assert files == {row["audio"] for row in ROWS} and len(files) == 11
    credit = (FOLDER / "everyday" / "CREDITS.md").read_text("utf-8")
    licences = {line.split("|")[-2].strip() for line in credit.splitlines() if line.startswith("| ")}
    assert licences - {"licence"} <= {"CC0-1.0", "CC-BY-3.0"}


def test_answers_are_among_the_choices_in_no_fixed_place() -> None:
    places = [row["choices"].index(row["answer"]) for row in ROWS if "choices" in row]
    assert len(places) > 15 and max(map(places.count, places)) <= len(places) * 0.6


def test_the_small_vocabulary_does_not_understand_most_of_them() -> None:
    known = [row for row in ROWS if not unknown_words(row["question"], row.get("choices"))]
    assert len(known) <= 4
