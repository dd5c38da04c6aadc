"""What is skipped is counted and named, and a row is in one of the two places."""

from __future__ import annotations

from typing import Any

import pytest

from echo_agent.finetune.data.corpora.sourced import (
    Finding,
    Gathering,
    RowError,
    Sourced,
    check_end,
    make_event,
    make_record,
    merge_marks,
)
from echo_agent.finetune.data.records import Event, Record


def record(name: str = "a") -> Record:
    return make_record(id=name, audio=f"{name}.wav", duration=1.0)


def test_the_report_counts_each_kind_and_names_its_first() -> None:
    skipped = [Finding(f"t.tsv:{n}", "without audio", "no x.*") for n in (4, 5, 9)]
    skipped.insert(1, Finding("t.tsv:7", "with a time that is no number", "'x'"))
    assert Sourced((record(),), tuple(skipped)).report() == (
        "1 record; 4 rows skipped: 3 without audio (first: t.tsv:4: no x.*); "
        "1 with a time that is no number (first: t.tsv:7: 'x')."
    )
    assert Sourced((record(), record("b"))).report() == "2 records; nothing skipped."
    assert Sourced((), (Finding("a:1", "odd"),)).report() == "0 records; 1 row skipped: 1 odd (first: a:1)."


def test_a_row_is_a_record_or_is_skipped() -> None:
    found = Gathering()
    for name in ("a", "b", "a", "c", "a2"):
        with found.row(name):
            if name == "b":
                raise RowError("without audio")
            found.add(record(name) if name != "a2" else make_record(id="a", audio="other.wav", duration=1.0))
    done = found.done()
    assert [one.id for one in done.records] == ["a", "c"]
    assert done.skipped == (
        Finding("b", "without audio"),
        Finding("a2", "with an id that another row has", "a"),
    )
    assert done.merged == (Finding("a", "with the same as another row", "a"),)
    assert done.report().endswith(
        "; 1 counted once with what says the same: 1 with the same as another row (first: a: a)."
    )


def mark(onset: float, offset: float, label: str = "dog", **fields: Any) -> Event:
    return make_event(**{"label": label, "kind": "sound", "onset": onset, "offset": offset, **fields})


@pytest.mark.parametrize(
    ("marks", "wanted"),
    [
        ([(1, 2), (1, 2)], [(1, 2)]),
        ([(1, 2), (1, 1.4), (1.3, 2)], [(1, 2)]),
        ([(1, 2), (1.5, 3), (2.5, 4), (5, 6)], [(1, 4), (5, 6)]),
        ([(0, 9), (1, 2), (3, 4)], [(0, 9)]),
        ([(1, 2), (2, 3)], [(1, 2), (2, 3)]),
    ],
)
def test_marks_of_one_sound_that_overlap_are_one(
    marks: list[tuple[float, float]], wanted: list[tuple[float, float]]
) -> None:
    for order in (marks, marks[::-1]):
        kept, doubled = merge_marks([mark(*span) for span in order])
        assert [(event.onset, event.offset) for event in kept] == wanted
        assert len(doubled) == len(marks) - len(wanted)


def test_what_may_be_another_sound_is_not_merged() -> None:
    different = [
        mark(1, 2),
        mark(1, 2, "cat"),
        mark(1, 2, sources=("a",)),
        mark(1, 2, sources=("b",)),
        mark(1, 2, kind="burst", hits=2),
        mark(1, 2, kind="burst", hits=3),
        mark(1, 2, "voice", kind="words", content=("red",)),
        mark(1, 2, "voice", kind="words", content=("blue",)),
    ]
    kept, doubled = merge_marks(different * 2)
    assert kept == different and doubled == different


def test_a_mistake_in_the_code_is_not_a_skipped_row() -> None:
    found = Gathering()
    with pytest.raises(ZeroDivisionError), found.row("a"):
        raise ZeroDivisionError
    assert found.done() == Sourced(())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"onset": 2.0, "offset": 1.0}, "with an event that ends before it begins"),
        ({"onset": 1.0, "offset": 1.0}, "with an event that ends before it begins"),
        ({"onset": -1.0, "offset": 1.0}, "with an event that is none"),
        ({"onset": 0.0, "offset": float("nan")}, "with an event that is none"),
        ({"onset": 0.0, "offset": float("inf")}, "with an event that is none"),
        ({"onset": 0.0}, "with an event that is none"),
        ({"onset": 0.0, "offset": 1.0, "lable": "x"}, "with an event that is none"),
        ({"onset": 0.0, "offset": 1.0, "kind": "noise"}, "with an event that is none"),
    ],
)
def test_bad_events_say_what_is_wrong(fields: dict[str, object], why: str) -> None:
    with pytest.raises(RowError) as caught:
        make_event(**{"label": "dog", "kind": "sound", **fields})
    assert caught.value.why == why and caught.value.detail


def test_events_end_with_the_recording() -> None:
    event = make_event(label="dog", kind="sound", onset=0.5, offset=1.04)
    check_end([event], 1.0)
    with pytest.raises(RowError, match="'dog' ends at 1.04 s, the recording at 0.9 s"):
        check_end([event], 0.9)
