"""Reasoning in words: where things are, by the first listen; a call to hear a span again; what is heard there.

A span is named before what is in it is spoken about, and what follows a call continues the same sentence. In long
recordings a first call hears a wide stretch, and a second one the place in it: the first listen of ten minutes cannot
tell a second.

There are two ways to put it. *Sentences* vary as speech does, for models that were taught language. *Terse* reasoning
says the same in few tokens and always in the same way, for a small policy that was taught no language: a sound that the
question names stands before its second (it is found by its name), any other behind it (it is found by its place):
``drum 3, 12 voice.<seg>11, 15</seg> four seven one.``
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from echo_agent.dialects import InlineDialect
from echo_agent.finetune.data.questions.draft import Draft, Look
from echo_agent.finetune.data.records import Event, Record
from echo_agent.finetune.data.vocabulary import DIGITS

FOUND = (
    "I hear the {what} around second {t}",
    "At {t} s I hear the {what}",
    "Around {t} s I hear the {what}",
    "From {t} s on I hear the {what}",
    "Second {t} has the {what}",
)
ABSENT = ("I hear no {what}", "There is no {what}", "Nothing sounds like {what}")
CALL = ("; I listen there again", "; once more", "; let me hear that again", "; closer")
WIDE = ("; I listen to that stretch", "; first the wider stretch", "; let me hear more of it")
THEN = (" and in it, near {t} s,", " where around {t} s it comes,", " so near {t} s")
HEARD = (" and hear {heard}", " there: {heard}", " it is {heard}", " now I hear {heard}")
AGAIN = (" and hear the {what}", " yes, the {what}", " there: the {what}")
CLOSE = (" So: {answer}.", " Hence {answer}.", " The answer is {answer}.", " That is: {answer}.", "")

LONG = 150.0
"""Seconds from which on a place is first heard in a wider stretch."""
NUMBERS = DIGITS[1:]
"""Strokes, counted aloud."""
MARGIN = 0.5
"""Seconds before and after what is heard again, at least."""

_CALLS = InlineDialect()


def spans(event: Event, record: Record, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Where to listen for an event: in a long recording a wide stretch first, then the place."""
    near = _within(math.floor(event.onset - MARGIN), math.ceil(event.offset + MARGIN), record.duration)
    if record.duration < LONG:
        return [near]
    width = max(20.0, record.duration / 8)
    start = math.floor(event.onset - rng.uniform(0.1, 0.9) * max(0.0, width - (near[1] - near[0])))
    return [_within(start, math.ceil(start + width), record.duration), near]


def _within(start: float, end: float, duration: float) -> tuple[float, float]:
    return (max(0, start), end if end <= duration else round(duration, 1))


def reasoning(draft: Draft, record: Record, rng: np.random.Generator, *, listens: bool) -> str:
    """The thought that leads to a draft's answer; with calls where it ``listens``."""
    sentences = [_said(rng, ABSENT, what=label) + "." for label in draft.absent]
    again = _again(draft) if listens else set()
    for look in draft.looks:
        event = record.events[look.event]
        text = _said(rng, FOUND, what=event.label, t=f"{math.floor(event.onset)}")
        if look.event in again:
            text += _calls(look, event, record, rng)
        elif look.heard:
            text += f": {look.heard}"
        sentences.append(text + ".")
    return " ".join(sentences) + _said(rng, CLOSE, answer=draft.answer)


def terse(draft: Draft, record: Record, rng: np.random.Generator, *, listens: bool) -> str:
    """The thought of :func:`reasoning` in few tokens; of ``rng`` are only the wide stretches of long recordings."""
    compared = _compared(draft, record)
    again = _again(draft) if listens else set()
    steps = [(label, f"{label} none") for label in draft.absent]
    for look in draft.looks:
        event = record.events[look.event]
        second = math.floor(event.onset)
        named = compared or any(re.search(rf"\b{re.escape(event.label)}\b", s) for s in draft.slots.values())
        text = f"{event.label} {second}" if named else f"{second} {event.label}"
        if draft.kind == "duration/pause":
            text += f" {math.floor(event.offset)}"
        heard = _spelled(draft, event) or look.heard
        if look.event in again:
            text += f".{f' {second}.'.join(_CALLS.format_call(*span) for span in spans(event, record, rng))}"
            text += f" {heard or event.label}"
        elif heard:
            text += f" {heard}"
        steps.append((event.label if named else "", text))
    if compared:
        steps.sort(key=lambda step: (draft.choices or ()).index(step[0]))
    elif not any(look.heard for look in draft.looks):
        steps.sort(key=lambda step: not step[0])
    leaders = _leaders(draft, record, [label for label, _ in steps])
    return ", ".join(text + leader for (_, text), leader in zip(steps, leaders, strict=True)) + "."


def _leaders(draft: Draft, record: Record, labels: Sequence[str]) -> list[str]:
    """What stands behind each of the sounds of which the earliest or latest is wanted: which of those so far it is."""
    if draft.kind not in ("order/earliest", "order/latest"):
        return [""] * len(labels)
    onsets = {record.events[look.event].label: record.events[look.event].onset for look in draft.looks}
    best = min if draft.kind == "order/earliest" else max
    return ["", *(f" {best(labels[:n], key=onsets.__getitem__)}" for n in range(2, len(labels) + 1))]


def _spelled(draft: Draft, event: Event) -> str:
    """What is in an event in single steps, so that it is read and not guessed.

    Strokes are counted aloud, a melody is told from note to note, and of all sounds whose loudness is compared it is
    said how loud they are.
    """
    if draft.kind in ("count/hits", "compare/hits") and event.hits <= len(NUMBERS):
        return " ".join(NUMBERS[: event.hits])
    if draft.kind in ("melody/course", "instrument/plays"):
        return " ".join("up" if b > a else "down" for a, b in pairwise(event.pitches))
    if draft.kind == "loudness/loudest":
        return "loud" if event.label == draft.answer else "soft"
    return ""


def _compared(draft: Draft, record: Record) -> bool:
    """Whether the question is which of its choices is heard, or where: then each of them is looked for."""
    labels = [*draft.absent, *(record.events[look.event].label for look in draft.looks)]
    return len(labels) > 1 and set(labels) <= set(draft.choices or ())


def _again(draft: Draft) -> set[int]:
    """Events that are heard again: those that a closer listen tells something of, else those that must be heard."""
    telling = {look.event for look in draft.looks if look.heard}
    looked = {look.event for look in draft.looks}
    return telling or (set(draft.gold) & looked) or looked


def _calls(look: Look, event: Event, record: Record, rng: np.random.Generator) -> str:
    """One call or two, and what is heard."""
    *wide, near = spans(event, record, rng)
    text = ""
    for span in wide:
        text += (
            _said(rng, WIDE)
            + " "
            + _CALLS.format_call(*span)
            + _said(rng, THEN, t=f"{math.floor(event.onset)}")
        )
    text += ("" if wide else _said(rng, CALL)) + " " + _CALLS.format_call(*near)
    return text + (_said(rng, HEARD, heard=look.heard) if look.heard else _said(rng, AGAIN, what=event.label))


def _said(rng: np.random.Generator, lines: Sequence[str], **slots: str) -> str:
    return lines[int(rng.integers(len(lines)))].format(**slots)
