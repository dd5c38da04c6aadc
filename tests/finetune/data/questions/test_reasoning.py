"""Reasoning: terse, it has one form; whatever its style, its calls hear what must be heard."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from echo_agent.dialects import InlineDialect
from echo_agent.finetune.data.questions.checks import called_span
from echo_agent.finetune.data.questions.composer import GrammarSettings, compose
from echo_agent.finetune.data.questions.draft import Draft, Look
from echo_agent.finetune.data.questions.reasoning import LONG, terse
from echo_agent.finetune.data.records import Event, Record, Sample
from tests.finetune.data.symbolic import record

EVENTS = (
    Event(label="drum", kind="sound", onset=3.2, offset=4.1),
    Event(label="voice", onset=12.0, offset=14.2, kind="digits", content=("four", "seven", "one")),
    Event(label="bell", kind="sound", onset=20.9, offset=23.0),
    Event(label="saw", kind="burst", onset=25.1, offset=27.2, hits=3),
    Event(label="flute", kind="notes", onset=30.0, offset=32.0, pitches=(60, 62, 67, 64)),
)


def written(draft: Draft, *, listens: bool = False, duration: float = 40.0) -> str:
    about = Record(
        id="r", audio="r.wav", duration=duration, labels=("drum", "bell", "dog", "saw"), events=EVENTS
    )
    return terse(draft, about, np.random.default_rng(0), listens=listens)


def draft(kind: str, looks: tuple[Look, ...], **fields: object) -> Draft:
    return Draft(kind, **{"slots": {}, "answer": "", "choices": None, "looks": looks} | fields)  # type: ignore[arg-type]


def test_what_is_named_stands_before_its_second_and_what_is_found_behind_it() -> None:
    said = draft("digit/nth", (Look(0), Look(1, "four seven one")), slots={"where": "right after the drum"})
    assert written(said) == "drum 3, 12 voice four seven one."
    assert written(said, listens=True) == "drum 3, 12 voice.<seg>11, 15</seg> four seven one."
    between = draft("between/which", (Look(0), Look(1), Look(2)), slots={"a": "drum", "b": "bell"})
    assert written(between) == "drum 3, bell 20, 12 voice."
    part_of_a_word = draft("order/next", (Look(0),), slots={"a": "drumstick"})
    assert written(part_of_a_word) == "3 drum."


def test_choices_that_are_compared_are_looked_for_one_after_the_other() -> None:
    which = draft("presence/which", (Look(2),), choices=("dog", "bell"), absent=("dog",))
    assert written(which) == "dog none, bell 20."
    both = draft("order/first", (Look(0), Look(2)), choices=("bell", "drum"))
    assert written(both, listens=True) == "bell 20.<seg>20, 24</seg> bell, drum 3.<seg>2, 5</seg> drum."
    three = (Look(0), Look(2), Look(3))
    first = draft("order/earliest", three, choices=("bell", "drum", "saw"))
    assert written(first) == "bell 20, drum 3 drum, saw 25 drum."
    last = draft("order/latest", three, choices=("bell", "drum", "saw"))
    assert written(last) == "bell 20, drum 3 bell, saw 25 saw."


def test_in_a_long_recording_a_wide_stretch_is_heard_first() -> None:
    text = written(draft("when/second", (Look(0),), slots={"a": "drum"}), listens=True, duration=LONG)
    wide, near = (called_span(call) for call in InlineDialect().parse(text).calls)
    assert near == (2, 5) and wide[0] <= 2 and wide[1] >= 5
    assert text == f"drum 3.<seg>{wide[0]:.0f}, {wide[1]:.0f}</seg> 3.<seg>2, 5</seg> drum."


def test_what_is_read_is_written_in_single_steps() -> None:
    counted = draft("count/hits", (Look(3, "3 hits"),), slots={"a": "saw"})
    assert written(counted, listens=True) == "saw 25.<seg>24, 28</seg> one two three."
    tune = draft("melody/course", (Look(4, "a tune that goes up and then down"),), slots={"a": "flute"})
    assert written(tune) == "flute 30 up up down."
    loud = draft("loudness/loudest", (Look(0), Look(2)), choices=("bell", "drum"), answer="drum")
    assert written(loud) == "bell 20 soft, drum 3 loud."
    pause = draft("duration/pause", (Look(0), Look(3)), slots={"a": "drum", "b": "saw"})
    assert written(pause) == "drum 3 4, saw 25 27."


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(compose([record(n) for n in range(300)], GrammarSettings(seed=3, reasoning="terse")))


def test_the_solver_needs_no_sentences_and_calls_hold_what_must_be_heard(samples: list[Sample]) -> None:
    told = [sample for sample in samples if sample.reasoning]
    assert len(told) > 900
    for sample in told:
        parsed = InlineDialect().parse(sample.reasoning)
        spans = [called_span(call) for call in parsed.calls]
        assert not parsed.invalid
        if sample.difficulty == "detail":
            assert all(any(a <= s and e <= b for a, b in spans) for s, e in sample.gold_spans), sample


def test_every_second_is_one_of_the_events(samples: list[Sample]) -> None:
    """Whatever is asked, what is written as a place is where something begins, or ends."""
    onsets = {
        r.id: {str(math.floor(time)) for e in r.events for time in (e.onset, e.offset)}
        for r in map(record, range(300))
    }
    for sample in samples:
        if sample.listens or not sample.reasoning:
            continue
        seconds = re.findall(r"(?<![\d.])\d+(?!\.\d|\d| hits)", sample.reasoning)
        assert seconds or " none" in sample.reasoning, sample
        assert set(seconds) <= onsets[sample.record], sample
