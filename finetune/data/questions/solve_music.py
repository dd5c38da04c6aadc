"""Solves questions about music: the course of a melody, the instrument that plays it, the chords of a song."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from echo_agent.finetune.data.questions.facts import Doubt, Facts, Solve, Solved, missing, pick
from echo_agent.finetune.data.records import Event


def _moves(event: Event) -> str:
    """The course of a melody."""
    if len(event.pitches) < 3:
        raise Doubt("that is no melody")
    signs = [math.copysign(1, b - a) for a, b in pairwise(event.pitches) if a != b]
    shape = [signs[0], *(b for a, b in pairwise(signs) if a != b)]
    if len(signs) != len(event.pitches) - 1 or len(shape) > 2:
        raise Doubt("the melody has no clear course")
    return " and then ".join("up" if sign > 0 else "down" for sign in shape)


def _course(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    event = facts.only(slots["a"])
    return [_moves(event)], [event]


def _plays(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    wanted = {"rises": "up", "falls": "down"}.get(slots["how"], slots["how"].removeprefix("goes "))
    if not facts.record.complete:
        raise Doubt("not every event is marked")
    playing = [event for event in facts.events if event.kind == "notes" and _moves(event) == wanted]
    if len(playing) != 1:
        raise Doubt(f"{len(playing)} melodies are like that")
    for choice in choices:
        if not facts.all(choice):
            missing(facts, choice)
    return pick(playing[0], choices, playing)


def _instrument(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    event = facts.phrase(slots, ("notes",))
    return pick(event, choices, [event])


def _chord_at(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    second = float(slots["t"])
    playing = [e for e in facts.events if e.kind == "chord" and e.onset - 0.2 <= second <= e.offset + 0.2]
    if len(playing) != 1:
        raise Doubt(f"{len(playing)} chords are near second {second:g}")
    return pick(playing[0], choices, playing)


def _chord_next(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    chords = [event for event in facts.events if event.kind == "chord"]
    after = chords[chords.index(facts.only(slots["a"])) + 1]
    return pick(after, choices, [after])


MUSIC: dict[str, Solve] = {
    "melody/course": _course,
    "instrument/plays": _plays,
    "instrument/where": _instrument,
    "chord/at": _chord_at,
    "chord/next": _chord_next,
}
"""Solvers by kind."""
