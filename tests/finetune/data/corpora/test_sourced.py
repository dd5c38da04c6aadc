"""What is skipped is counted and named, and a row is in one of the two places."""

from __future__ import annotations

import pytest

from echo_agent.finetune.data.corpora.sourced import (
    Gathering,
    RowError,
    Skipped,
    Sourced,
    check_end,
    make_event,
    make_record,
)
from echo_agent.finetune.data.records import Record


def record(name: str = "a") -> Record:
    return make_record(id=name, audio=f"{name}.wav", duration=1.0)


def test_the_report_counts_each_kind_and_names_its_first() -> None:
    skipped = [Skipped(f"t.tsv:{n}", "without audio", "no x.*") for n in (4, 5, 9)]
    skipped.insert(1, Skipped("t.tsv:7", "with a time that is no number", "'x'"))
    assert Sourced((record(),), tuple(skipped)).report() == (
        "1 record; 4 rows skipped: 3 without audio (first: t.tsv:4: no x.*); "
        "1 with a time that is no number (first: t.tsv:7: 'x')."
    )
    assert Sourced((record(), record("b"))).report() == "2 records; nothing skipped."
    assert Sourced((), (Skipped("a:1", "odd"),)).report() == "0 records; 1 row skipped: 1 odd (first: a:1)."


def test_a_row_is_a_record_or_is_skipped() -> None:
    found = Gathering()
    for name in ("a", "b", "a", "c"):
        with found.row(name):
            if name == "b":
                raise RowError("without audio")
            found.add(record(name))
    done = found.done()
    assert [one.id for one in done.records] == ["a", "c"]
    assert done.skipped == (
        Skipped("b", "without audio"),
        Skipped("a", "with an id that another row has", "a"),
    )


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
