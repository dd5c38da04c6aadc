"""Solves questions about which sounds are heard, in what order, how often, when, how long and how loud."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from echo_agent.finetune.data.questions.facts import Doubt, Facts, Solve, Solved, missing, pick, versus
from echo_agent.finetune.data.records import Event


def _first(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    row = facts.order([facts.only(slots["a"]), facts.only(slots["b"])])
    return pick(row[0], choices, row)


def _ends(at: int) -> Solve:
    def solve(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
        row = facts.order([facts.only(choice) for choice in choices])
        return pick(row[at], choices, row)

    return solve


def _beside(step: int) -> Solve:
    def solve(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
        anchor = facts.only(slots["a"])
        found = facts.beside(anchor, step)
        return pick(found, choices, [anchor, found])

    return solve


def _between(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    a, b = facts.only(slots["a"]), facts.only(slots["b"])
    middle = facts.beside(a, 1)
    if facts.beside(b, -1) is not middle:
        raise Doubt("more than one sound lies between")
    return pick(middle, choices, [middle])


def _edge(at: int) -> Solve:
    def solve(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
        if not facts.record.complete:
            raise Doubt("not every event is marked")
        event = facts.events[at]
        facts.order(facts.events[:2] if at == 0 else facts.events[-2:])
        return pick(event, choices, [event])

    return solve


def _is(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    there = facts.all(slots["a"])
    if not there:
        missing(facts, slots["a"])
    return ["yes" if there else "no"], there


def _which(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    heard = [choice for choice in choices if facts.all(choice)]
    for choice in set(choices) - set(heard):
        missing(facts, choice)
    return heard, [event for choice in heard for event in facts.all(choice)]


def _lacks(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    lacking = [choice for choice in choices if not facts.all(choice)]
    for choice in lacking:
        missing(facts, choice)
    heard = [facts.all(choice)[0] for choice in choices if choice not in lacking]
    return lacking, heard


def _hits(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    event = facts.only(slots["a"])
    if event.kind != "burst":
        raise Doubt(f"the strokes of {event.label!r} are not counted")
    return [str(event.hits)], [event]


def _second(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    event = facts.only(slots["a"])
    near = [choice for choice in choices if abs(float(choice.removesuffix(" s")) + 0.5 - event.onset) < 1.5]
    return near, [event]


def _part(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    event, third = facts.only(slots["a"]), facts.record.duration / 3
    inside = [
        choice
        for k, choice in enumerate(("the first third", "the middle third", "the last third"))
        if k * third <= event.onset and event.offset <= (k + 1) * third
    ]
    return inside, [event]


def _pause(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    a, b = facts.only(slots["a"]), facts.only(slots["b"])
    if facts.beside(a, 1) is not b:
        raise Doubt("they do not follow each other")
    gap = b.onset - a.offset
    near = [choice for choice in choices if 1 / 1.3 < float(choice.removesuffix(" s")) / gap < 1.3]
    return near, [a, b]


def _level(facts: Facts, event: Event) -> float:
    if event.level_db is None:
        raise Doubt(f"the level of {event.label!r} is not known")
    if sum(e.onset < event.offset and event.onset < e.offset for e in facts.events) > 1:
        raise Doubt(f"{event.label!r} is heard together with another sound")
    return event.level_db


def _loudest(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    row = sorted((facts.only(choice) for choice in choices), key=lambda event: -_level(facts, event))
    if _level(facts, row[0]) - _level(facts, row[1]) < 3:
        raise Doubt("two are about as loud")
    return pick(row[0], choices, row)


def _pair(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    right, gold = [], []
    for choice in choices:
        a, b = choice.split(", then ")
        places = [
            (one, two)
            for one, two in pairwise(facts.events)
            if (one.label, two.label) == (a, b) and facts.beside(one, 1) is two
        ]
        if len(places) > 1:
            right.append(choice)
            gold += [event for row in places for event in row]
    return right, gold


def _all(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    if not facts.record.complete:
        raise Doubt("not every event is marked")
    return [", ".join(dict.fromkeys(event.label for event in facts.events))], facts.events


SOUNDS: dict[str, Solve] = {
    "order/first": _first,
    "order/earliest": _ends(0),
    "order/latest": _ends(-1),
    "order/next": _beside(1),
    "order/previous": _beside(-1),
    "between/which": _between,
    "first_last/first": _edge(0),
    "first_last/last": _edge(-1),
    "presence/is": _is,
    "presence/which": _which,
    "presence/missing": _lacks,
    "count/hits": _hits,
    "when/second": _second,
    "when/part": _part,
    "duration/pause": _pause,
    "duration/longer": versus(lambda _, e: e.offset - e.onset, lambda more, less: more > 1.3 * less),
    "loudness/louder": versus(_level, lambda more, less: more - less > 5),
    "loudness/loudest": _loudest,
    "list/all": _all,
    "pattern/pair": _pair,
    "compare/hits": versus(
        lambda _, e: e.hits if e.kind == "burst" else 0, lambda more, less: more > less > 0
    ),
}
"""Solvers by kind."""
