"""Solves questions about what is said, and by whom."""

from __future__ import annotations

from collections.abc import Sequence

from echo_agent.finetune.data.questions.facts import Doubt, Facts, Solve, Solved, versus
from echo_agent.finetune.data.questions.phrasings import ORDINALS
from echo_agent.finetune.data.records import Event

NUMBERS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
}  # fmt: skip


def _nth(kind: str) -> Solve:
    def solve(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
        event, n = facts.phrase(slots, (kind,)), slots["n"].lower()
        place = len(event.content) - 1 if n == "last" else ORDINALS.index(n)
        if place >= len(event.content):
            raise Doubt(f"only {len(event.content)} are spoken")
        return [event.content[place]], [event]

    return solve


def _sequence(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    event = facts.phrase(slots, ("digits",))
    return [" ".join(event.content)], [event]


def _who(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    event = facts.phrase(slots, ("digits", "words"))
    return ([f"a {event.gender}"] if event.gender else []), [event]


def _who_first(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    spoken = facts.order([event for event in facts.events if event.kind in ("digits", "words")])
    if not facts.record.complete or not spoken:
        raise Doubt("not every phrase is marked")
    return [f"a {spoken[0].gender}"], spoken[:1]


def _digit(facts: Facts, sound: Event) -> float:
    spoken = facts.beside(sound, 1)
    if spoken.kind != "digits":
        raise Doubt(f"no digits follow {sound.label!r}")
    return NUMBERS[spoken.content[0]]


def _voice(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
    spoken = [facts.beside(facts.only(slots[key]), 1) for key in ("a", "b")]
    if not all(event.voice for event in spoken):
        raise Doubt("it is not known who speaks")
    return ["yes" if spoken[0].voice == spoken[1].voice else "no"], spoken


SPEECH: dict[str, Solve] = {
    "word/nth": _nth("words"),
    "digit/nth": _nth("digits"),
    "digit_sequence/which": _sequence,
    "who/speaks": _who,
    "who/first": _who_first,
    "compare/digit": versus(_digit, lambda more, less: more > less, gold="after"),
    "compare/voice": _voice,
}
"""Solvers by kind."""
