"""The solver: the right choices of a question, from its text and the event list alone.

It shares nothing with the makers of questions but the wordings: the text is read back to its kind and slots, and what
it asks is looked up in the events, for every choice by itself. A question is sound if exactly one choice is right,
that one is its answer, and the spans that it names are where the events are. Where the events leave room for doubt
(two onsets close to each other, levels about the same), nothing counts as right.
"""

from __future__ import annotations

from collections.abc import Sequence

from echo_agent.answers import normalise
from echo_agent.errors import DataError
from echo_agent.finetune.data.questions.facts import Doubt, Facts, Solve, Solved
from echo_agent.finetune.data.questions.phrasings import read
from echo_agent.finetune.data.questions.solve_music import MUSIC
from echo_agent.finetune.data.questions.solve_sounds import SOUNDS
from echo_agent.finetune.data.questions.solve_speech import SPEECH
from echo_agent.finetune.data.records import Record, Sample

KINDS: dict[str, Solve] = {**SOUNDS, **SPEECH, **MUSIC}
"""Solvers by kind (``category/variant``)."""


def faults(sample: Sample, record: Record) -> list[str]:
    """What is wrong with a sample of the grammar; empty where nothing is."""
    try:
        kind, slots = read(sample.question)
    except DataError as error:
        return [str(error)]
    found: list[str] = []
    try:
        right, gold = _solve(kind, slots, record, sample.choices)
    except Doubt as doubt:
        return [f"in doubt: {doubt}"]
    if sample.choices is None:
        if not right or normalise(right[0]) not in {normalise(answer) for answer in sample.right}:
            found.append(f"the answer is {right}, not {list(sample.right)}")
    elif list(right) != [sample.answer]:
        found.append(f"of the choices {list(sample.choices)}, {list(right)} are right, not {sample.answer!r}")
    spans = {(round(start, 3), round(end, 3)) for start, end in sample.gold_spans}
    if {(round(e.onset, 3), round(e.offset, 3)) for e in gold} != spans:
        found.append(f"the gold spans {sorted(spans)} are not where {[e.label for e in gold]} are")
    if kind.partition("/")[0] != sample.category:
        found.append(f"the question reads as {kind}, its category is {sample.category}")
    return found


def _solve(kind: str, slots: dict[str, str], record: Record, choices: Sequence[str] | None) -> Solved:
    facts = Facts(record)
    for key in ("a", "b", "after", "before"):
        if key in slots:
            slots[key] = slots[key].lower()
    return KINDS[kind](facts, slots, choices or ())
