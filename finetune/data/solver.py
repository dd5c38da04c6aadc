"""The solver: the right choices of a question, from its text and the event list alone.

It shares nothing with the makers of questions but the wordings: the text is read back to its kind and slots, and what
it asks is looked up in the events anew, for every choice by itself. A question is sound if exactly one choice is right,
that one is its answer, and the spans that it names are where the events are. Where the events leave room for doubt
(two onsets close to each other, levels about the same), nothing counts as right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from echo_agent.answers import normalise
from echo_agent.errors import DataError
from echo_agent.finetune.data.grammar.phrasings import ORDINALS, read
from echo_agent.finetune.data.records import Event, Record, Sample

NUMBERS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
}  # fmt: skip
CLOSE = 0.3
"""Seconds within which the order of two onsets is in doubt."""


class _Doubt(Exception):
    """The events do not settle what is asked."""


def faults(sample: Sample, record: Record) -> list[str]:
    """What is wrong with a sample of the grammar; empty where nothing is."""
    try:
        kind, slots = read(sample.question)
    except DataError as error:
        return [str(error)]
    found: list[str] = []
    try:
        right, gold = _solve(kind, slots, record, sample.choices)
    except _Doubt as doubt:
        return [f"in doubt: {doubt}"]
    if sample.choices is None:
        if not right or normalise(right[0]) not in {normalise(answer) for answer in sample.right}:
            found.append(f"the answer is {right}, not {list(sample.right)}")
    elif list(right) != [sample.answer]:
        found.append(f"of the choices {list(sample.choices)}, {list(right)} are right, not {sample.answer!r}")
    spans = {(round(start, 3), round(end, 3)) for start, end in sample.gold_spans}
    if {(round(e.onset, 3), round(e.offset, 3)) for e in gold} != spans:
        found.append(f"the gold spans {sorted(spans)} are not where {[e.label for e in gold]} are")
    if kind.partition("/")[0] != sample.family:
        found.append(f"the question reads as {kind}, its family is {sample.family}")
    return found


def _solve(
    kind: str, slots: dict[str, str], record: Record, choices: Sequence[str] | None
) -> tuple[list[str], list[Event]]:
    """Right choices (or the answer of an open question), and the events that must be heard."""
    facts = _Facts(record)
    for key in ("a", "b", "after", "before"):
        if key in slots:
            slots[key] = slots[key].lower()
    return _KINDS[kind](facts, slots, choices or ())


class _Facts:
    """Look-ups in the event list; raises :class:`_Doubt` where they have no single result."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.events = sorted(record.events, key=lambda event: event.onset)

    def all(self, label: str) -> list[Event]:
        return [event for event in self.events if event.label.lower() == label.lower()]

    def only(self, label: str) -> Event:
        found = self.all(label)
        if len(found) != 1:
            raise _Doubt(f"{label!r} is heard {len(found)} times")
        return found[0]

    def order(self, events: Sequence[Event]) -> list[Event]:
        """In order of onset."""
        row = sorted(events, key=lambda event: event.onset)
        for one, other in pairwise(row):
            if other.onset - one.onset < CLOSE:
                raise _Doubt(f"{one.label!r} and {other.label!r} begin together")
        return row

    def beside(self, event: Event, step: int) -> Event:
        """What begins next, or began last, with nothing going on over the border."""
        place = self.events.index(event) + step
        if not 0 <= place < len(self.events):
            raise _Doubt(f"nothing is beside {event.label!r}")
        other = self.events[place]
        if not self.record.complete:
            raise _Doubt("not every event is marked")
        self.order(self.events[max(0, place - 1) : place + 2])
        self.order([event, other])
        earlier, later = (event, other) if step > 0 else (other, event)
        for on in self.events[: self.events.index(later)]:
            if on.offset > later.onset + 0.1:
                raise _Doubt(f"{on.label!r} is still heard when {later.label!r} begins")
        return other

    def phrase(self, slots: dict[str, str], kinds: Sequence[str]) -> Event:
        """The phrase or melody at a place."""
        if "after" in slots or "before" in slots:
            side = "after" if "after" in slots else "before"
            found = self.beside(self.only(slots[side]), 1 if side == "after" else -1)
        else:
            phrases = [event for event in self.events if event.kind in kinds]
            if len(phrases) != 1:
                raise _Doubt(f"{len(phrases)} phrases are in the recording")
            found = phrases[0]
        if found.kind not in kinds:
            raise _Doubt(f"there is {found.label!r} at the place, not one of {list(kinds)}")
        return found


_Solved = tuple[list[str], list[Event]]


def _pick(winner: Event, choices: Sequence[str], gold: Sequence[Event]) -> _Solved:
    """The choices that name the winner."""
    return [c for c in choices if c.lower() == winner.label.lower()] or [winner.label], list(gold)


def _first(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    row = facts.order([facts.only(slots["a"]), facts.only(slots["b"])])
    return _pick(row[0], choices, row)


def _ends(at: int) -> Callable[[_Facts, dict[str, str], Sequence[str]], _Solved]:
    def solve(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
        row = facts.order([facts.only(choice) for choice in choices])
        return _pick(row[at], choices, row)

    return solve


def _beside(step: int) -> Callable[[_Facts, dict[str, str], Sequence[str]], _Solved]:
    def solve(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
        anchor = facts.only(slots["a"])
        found = facts.beside(anchor, step)
        return _pick(found, choices, [anchor, found])

    return solve


def _between(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    a, b = facts.only(slots["a"]), facts.only(slots["b"])
    middle = facts.beside(a, 1)
    if facts.beside(b, -1) is not middle:
        raise _Doubt("more than one sound lies between")
    return _pick(middle, choices, [middle])


def _edge(at: int) -> Callable[[_Facts, dict[str, str], Sequence[str]], _Solved]:
    def solve(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
        if not facts.record.complete:
            raise _Doubt("not every event is marked")
        event = facts.events[at]
        facts.order(facts.events[:2] if at == 0 else facts.events[-2:])
        return _pick(event, choices, [event])

    return solve


def _is(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    there = facts.all(slots["a"])
    if not there:
        _missing(facts, slots["a"])
    return ["yes" if there else "no"], there


def _missing(facts: _Facts, label: str) -> None:
    """Make sure that a label is known not to be heard."""
    known = {name.lower() for name in facts.record.labels}
    if not facts.record.complete or label.lower() not in known:
        raise _Doubt(f"it is not known whether {label!r} is heard")


def _which(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    heard = [choice for choice in choices if facts.all(choice)]
    for choice in set(choices) - set(heard):
        _missing(facts, choice)
    return heard, [event for choice in heard for event in facts.all(choice)]


def _lacks(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    lacking = [choice for choice in choices if not facts.all(choice)]
    for choice in lacking:
        _missing(facts, choice)
    heard = [facts.all(choice)[0] for choice in choices if choice not in lacking]
    return lacking, heard


def _hits(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    event = facts.only(slots["a"])
    if event.kind != "burst":
        raise _Doubt(f"the strokes of {event.label!r} are not counted")
    return [str(event.hits)], [event]


def _second(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    event = facts.only(slots["a"])
    near = [choice for choice in choices if abs(float(choice.removesuffix(" s")) + 0.5 - event.onset) < 1.5]
    return near, [event]


def _part(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    event, third = facts.only(slots["a"]), facts.record.duration / 3
    inside = [
        choice
        for k, choice in enumerate(("the first third", "the middle third", "the last third"))
        if k * third <= event.onset and event.offset <= (k + 1) * third
    ]
    return inside, [event]


def _pause(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    a, b = facts.only(slots["a"]), facts.only(slots["b"])
    if facts.beside(a, 1) is not b:
        raise _Doubt("they do not follow each other")
    gap = b.onset - a.offset
    near = [choice for choice in choices if 1 / 1.3 < float(choice.removesuffix(" s")) / gap < 1.3]
    return near, [a, b]


def _versus(
    value: Callable[[_Facts, Event], float], clear: Callable[[float, float], bool], gold: str = "sound"
) -> Callable[[_Facts, dict[str, str], Sequence[str]], _Solved]:
    """Which of two has more, by a clear margin."""

    def solve(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
        a, b = facts.only(slots["a"]), facts.only(slots["b"])
        one, other = value(facts, a), value(facts, b)
        if not clear(max(one, other), min(one, other)):
            raise _Doubt(f"{a.label!r} and {b.label!r} are too much alike")
        heard = [a, b] if gold == "sound" else [facts.beside(a, 1), facts.beside(b, 1)]
        return _pick(a if one > other else b, choices, heard)

    return solve


def _level(facts: _Facts, event: Event) -> float:
    if event.level_db is None:
        raise _Doubt(f"the level of {event.label!r} is not known")
    if sum(e.onset < event.offset and event.onset < e.offset for e in facts.events) > 1:
        raise _Doubt(f"{event.label!r} is heard together with another sound")
    return event.level_db


def _loudest(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    row = sorted((facts.only(choice) for choice in choices), key=lambda event: -_level(facts, event))
    if _level(facts, row[0]) - _level(facts, row[1]) < 3:
        raise _Doubt("two are about as loud")
    return _pick(row[0], choices, row)


def _nth(kind: str) -> Callable[[_Facts, dict[str, str], Sequence[str]], _Solved]:
    def solve(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
        event, n = facts.phrase(slots, (kind,)), slots["n"].lower()
        place = len(event.content) - 1 if n == "last" else ORDINALS.index(n)
        if place >= len(event.content):
            raise _Doubt(f"only {len(event.content)} are spoken")
        return [event.content[place]], [event]

    return solve


def _sequence(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    event = facts.phrase(slots, ("digits",))
    return [" ".join(event.content)], [event]


def _who(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    event = facts.phrase(slots, ("digits", "words"))
    return ([f"a {event.gender}"] if event.gender else []), [event]


def _who_first(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    spoken = facts.order([event for event in facts.events if event.kind in ("digits", "words")])
    if not facts.record.complete or not spoken:
        raise _Doubt("not every phrase is marked")
    return [f"a {spoken[0].gender}"], spoken[:1]


def _digit(facts: _Facts, sound: Event) -> float:
    spoken = facts.beside(sound, 1)
    if spoken.kind != "digits":
        raise _Doubt(f"no digits follow {sound.label!r}")
    return NUMBERS[spoken.content[0]]


def _voice(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    spoken = [facts.beside(facts.only(slots[key]), 1) for key in ("a", "b")]
    if not all(event.voice for event in spoken):
        raise _Doubt("it is not known who speaks")
    return ["yes" if spoken[0].voice == spoken[1].voice else "no"], spoken


def _moves(event: Event) -> str:
    """The course of a melody."""
    if len(event.pitches) < 3:
        raise _Doubt("that is no melody")
    signs = [math.copysign(1, b - a) for a, b in pairwise(event.pitches) if a != b]
    shape = [signs[0], *(b for a, b in pairwise(signs) if a != b)]
    if len(signs) != len(event.pitches) - 1 or len(shape) > 2:
        raise _Doubt("the melody has no clear course")
    return " and then ".join("up" if sign > 0 else "down" for sign in shape)


def _course(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    event = facts.only(slots["a"])
    return [_moves(event)], [event]


def _plays(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    wanted = {"rises": "up", "falls": "down"}.get(slots["how"], slots["how"].removeprefix("goes "))
    if not facts.record.complete:
        raise _Doubt("not every event is marked")
    playing = [event for event in facts.events if event.kind == "notes" and _moves(event) == wanted]
    if len(playing) != 1:
        raise _Doubt(f"{len(playing)} melodies are like that")
    for choice in choices:
        if not facts.all(choice):
            _missing(facts, choice)
    return _pick(playing[0], choices, playing)


def _instrument(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    event = facts.phrase(slots, ("notes",))
    return _pick(event, choices, [event])


def _pair(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
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


def _chord_at(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    second = float(slots["t"])
    playing = [e for e in facts.events if e.kind == "chord" and e.onset - 0.2 <= second <= e.offset + 0.2]
    if len(playing) != 1:
        raise _Doubt(f"{len(playing)} chords are near second {second:g}")
    return _pick(playing[0], choices, playing)


def _chord_next(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    chords = [event for event in facts.events if event.kind == "chord"]
    after = chords[chords.index(facts.only(slots["a"])) + 1]
    return _pick(after, choices, [after])


def _all(facts: _Facts, slots: dict[str, str], choices: Sequence[str]) -> _Solved:
    if not facts.record.complete:
        raise _Doubt("not every event is marked")
    return [", ".join(dict.fromkeys(event.label for event in facts.events))], facts.events


_KINDS: dict[str, Callable[[_Facts, dict[str, str], Sequence[str]], _Solved]] = {
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
    "duration/longer": _versus(lambda _, e: e.offset - e.onset, lambda more, less: more > 1.3 * less),
    "loudness/louder": _versus(_level, lambda more, less: more - less > 5),
    "loudness/loudest": _loudest,
    "list/all": _all,
    "word/nth": _nth("words"),
    "digit/nth": _nth("digits"),
    "digit_sequence/which": _sequence,
    "who/speaks": _who,
    "who/first": _who_first,
    "melody/course": _course,
    "instrument/plays": _plays,
    "instrument/where": _instrument,
    "pattern/pair": _pair,
    "compare/digit": _versus(_digit, lambda more, less: more > less, gold="after"),
    "compare/hits": _versus(
        lambda _, e: e.hits if e.kind == "burst" else 0, lambda more, less: more > less > 0
    ),
    "compare/voice": _voice,
    "chord/at": _chord_at,
    "chord/next": _chord_next,
}
