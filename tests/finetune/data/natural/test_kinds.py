"""Kinds of questions: each answer is found again from the record by rules written a second time."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.kinds.view import Idea, View
from echo_agent.finetune.data.natural.sounds import kin, sounds
from echo_agent.finetune.data.natural.timelines import as_text, simulate
from echo_agent.finetune.data.records import Event, Record
from echo_agent.small.notes import LOUD, SOFT

KITCHEN = Record(
    id="kitchen",
    audio="none",
    duration=60.0,
    events=(
        Event("telephone", "burst", 2.0, 5.0, hits=3, level_db=-20.0),
        Event("dishes", "sound", 10.0, 14.5, level_db=LOUD + 3),
        Event("cat", "sound", 20.0, 21.0, level_db=SOFT - 3),
        Event("frying", "sound", 30.0, 42.0, level_db=-20.0),
        Event("cat", "sound", 50.0, 51.2, level_db=-20.0),
    ),
    labels=tuple(sorted(sounds())),
)


def ideas(kind: str, record: Record, tries: int = 60) -> list[Idea]:
    """What a maker offers over several draws."""
    drawn = [MAKERS[kind](View(record, np.random.default_rng(seed))) for seed in range(tries)]
    return [idea for idea in drawn if idea is not None]


@pytest.mark.parametrize(("kind", "answers"), [
    ("order/nth", {("telephone",), ("dishes",), ("cat",), ("frying",)}),
    ("order/next", {("dishes",), ("cat",)}),
    ("order/previous", {("telephone",), ("cat",)}),
    ("order/sequence", {("telephone", "dishes", "cat", "frying", "cat")}),
    ("count/hits", {("3",)}),
    ("count/times", {("1",), ("2",), ("3",)}),
    ("count/different", {("4",)}),
    ("repeat/once", {("once",), ("more than once",)}),
    ("loudness/louder", {("dishes",)}),
    ("when/half", {("first half",), ("second half",)}),
    ("scene/where", {("kitchen",)}),
    ("kind/which", {("cat",)}),
    ("list/all", {("telephone", "dishes", "cat", "frying")}),
])  # fmt: skip
def test_answers_in_a_kitchen(kind: str, answers: set[tuple[str, ...]]) -> None:
    found = {idea.answer for idea in ideas(kind, KITCHEN)}
    assert found and found <= answers


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_is_found_and_says_what_the_record_says(kind: str) -> None:
    found = 0
    for seed in range(150):
        rng = np.random.default_rng([7, seed])
        record = simulate(rng)
        idea = MAKERS[kind](View(record, rng))
        if idea is None:
            continue
        found += 1
        check(idea, record)
    assert found >= 20


def check(idea: Idea, record: Record) -> None:
    """The answer of an idea, found again."""
    events = record.events
    onsets: dict[str, list[float]] = {}
    for event in events:
        onsets.setdefault(event.label, []).append(event.onset)
    kind, answer = idea.kind, idea.answer
    first = {key: min(times) for key, times in onsets.items()}
    assert answer not in idea.wrong and len(set(idea.wrong)) == len(idea.wrong)
    if kind == "presence/is":
        assert (idea.a in onsets) == (answer == ("yes",))
        assert answer == ("yes",) or not any(kin(idea.a, key) for key in onsets)
    elif kind in ("presence/which", "presence/either"):
        assert answer[0] in onsets and not any(key in onsets for (key,) in idea.wrong)
    elif kind == "presence/missing":
        assert answer[0] not in onsets and all(key in onsets for (key,) in idea.wrong)
    elif kind in ("order/first", "order/last"):
        pick = min if kind == "order/first" else max
        assert answer[0] == pick((idea.a, idea.b), key=first.__getitem__)
    elif kind == "order/before":
        assert (first[idea.a] < first[idea.b]) == (answer == ("yes",))
    elif kind in ("order/next", "order/previous", "between/which"):
        order = [event.label for event in events]
        at = order.index(idea.a)
        if kind == "between/which":
            low, high = sorted((at, order.index(idea.b)))
            assert order[low + 1 : high] == [answer[0]]
        else:
            assert order[at + (1 if kind == "order/next" else -1)] == answer[0]
    elif kind == "count/times":
        strokes = [event.hits for event in events if event.label == idea.a]
        assert answer == (str(sum(strokes)),) and (len(strokes) == 1 or max(strokes) == 1)
    elif kind == "count/different":
        assert answer == (str(len(onsets)),)
    elif kind in ("when/start", "when/end", "duration/how_long"):
        (event,) = (event for event in events if event.label == idea.a)
        start, end = int(event.onset), int(event.offset)
        assert int(answer[0]) == {"when/start": start, "when/end": end}.get(kind, end - start)
    elif kind == "when/at":
        (heard,) = (e.label for e in events if e.onset <= int(idea.slots["t"]) <= e.offset)
        assert answer == (heard,)
    elif kind == "when/range":
        start, end = int(idea.slots["t"]), int(idea.slots["t2"])
        assert set(answer) == {e.label for e in events if e.onset < end and e.offset > start}
    elif kind == "duration/longer":
        length = {e.label: e.offset - e.onset for e in events}
        assert answer[0] == max((idea.a, idea.b), key=length.__getitem__)
    elif kind == "loudness/louder":
        level = {e.label: e.level_db or 0.0 for e in events}
        assert answer[0] == max((idea.a, idea.b), key=level.__getitem__)
    elif kind == "repeat/once":
        assert (len(onsets[idea.a]) > 1) == (answer == ("more than once",))
    elif kind == "kind/which":
        assert {k for k in onsets if sounds()[k].kind == idea.slots["class"]} == {answer[0]}
    elif kind == "kind/any":
        assert any(sounds()[k].kind == idea.slots["class"] for k in onsets) == (answer == ("yes",))
    elif kind == "absent/when":
        assert idea.a not in onsets
    for name, second in re.findall(r"([a-z][a-z ]+?) (\d+)(?=[,.\-;])", idea.steps):
        key = name.removeprefix("then ").removeprefix("before it ").strip().replace(" ", "_")
        if key in first and kind not in ("count/times", "repeat/once"):
            assert any(int(onset) == int(second) for onset in onsets[key]), idea.steps


def test_nothing_is_asked_about_an_incomplete_record_that_needs_all_of_it() -> None:
    partial = KITCHEN.model_copy(update={"complete": False})
    for kind in ("order/next", "order/nth", "count/different", "list/all", "presence/which", "absent/when"):
        assert not ideas(kind, partial, 10)


def test_sounds_that_begin_together_have_no_order() -> None:
    events = (Event("dog", "sound", 3.0, 5.0), Event("violin", "sound", 3.4, 6.0))
    record = Record(id="r", audio="none", duration=9.0, events=events, labels=tuple(sounds()))
    for kind in ("order/first", "order/before", "order/next", "order/nth", "order/sequence"):
        assert not ideas(kind, record, 10)


def test_a_timeline_has_a_line_for_every_event() -> None:
    assert as_text(KITCHEN).splitlines() == [
        "2-5 telephone 3s x3",
        "10-14 dishes 4s loud",
        "20-21 cat 1s soft",
        "30-42 frying 12s",
        "50-51 cat 1s",
        "length 60",
    ]


def test_simulated_records_are_alike_for_one_seed_and_varied_over_many() -> None:
    drawn = [simulate(np.random.default_rng(seed)) for seed in range(300)]
    assert drawn[5] == simulate(np.random.default_rng(5))
    counts = Counter(len(record.events) for record in drawn)
    assert counts[0] and max(counts) >= 8
    assert len({event.label for record in drawn for event in record.events}) > 150
