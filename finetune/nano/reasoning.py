"""What echo-nano is taught to write: reasoning that finds the answer step by step, listening again; then the answer.

``<think> drum 3, 12 voice.<seg> 11, 15</seg>`` (the crop's audio stands here) `` four seven one</think>`` and
``<answer> four seven one</answer>``. Each step takes one look: a sound that the question names is written before its
second (it is found in the audio by its name), and one that is found from there after its second (it is found by its
place, as in the list of all events). A span is named before its content.
Words and numbers always follow a space, so that they are the same tokens wherever they are copied from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from echo_agent.finetune.data.records import Event
from echo_agent.finetune.nano.questions import Question


@dataclass(frozen=True)
class Part:
    """One part of an assistant's turn: text, or a listen to a span of the recording."""

    text: str = ""
    span: tuple[int, int] | None = None
    sampled: bool = True
    """Whether the policy writes it and is trained on it; what a tool inserts is not."""
    listing: bool = False
    """Whether it is the list of all events: long, and learned before the rest."""


def transcript(events: Sequence[Event], spoken: bool = False) -> str:
    """The list of events as text: whole second of the onset, label, and what is said if ``spoken`` is set."""
    rows = []
    for event in events:
        said = "".join(f" {word}" for word in event.content) if spoken else ""
        rows.append(f" {math.floor(event.onset)} {event.label}{said}")
    return ",".join(rows) + "."


def trace(events: Sequence[Event], question: Question) -> str:
    """What leads to the answer: sounds that the question names with their second, then what is found from there."""
    steps = []
    for place, index in enumerate(question.trace):
        if index is None:
            steps.append(f" {question.named[place]} none")
            continue
        label, second = events[index].label, math.floor(events[index].onset)
        steps.append(f" {label} {second}" if place < len(question.named) else f" {second} {label}")
    return ",".join(steps) + "."


def thought(
    events: Sequence[Event],
    question: Question,
    span: tuple[int, int] | None,
    *,
    refused: bool = False,
    given: bool = False,
    mislooked: str | None = None,
    misheard: str | None = None,
    spoken: bool = False,
) -> list[Part]:
    """The assistant's turn for a question.

    Args:
        events: Events of the recording.
        question: What is asked.
        span: Where to listen again; None to answer from the first listen.
        refused: The call is answered by a request for the answer, as when the budget is used up.
        given: The span is not learned; what is in it is.
        mislooked: Replaces the steps to the answer, and is not learned; see ``misheard``.
        misheard: Replaces what is heard, and is not learned: the right answer has to come from the audio and the
            choices.
        spoken: The list of all events includes what is said in them.
    """
    answer = f"<answer> {question.answer}</answer><|end|>"
    if question.category == "list":
        return [Part(f"<think>{transcript(events, spoken)}", listing=True), Part(f"</think>{answer}")]
    looked = Part(f"<think>{mislooked or trace(events, question)}", sampled=mislooked is None)
    if span is not None:
        call = Part(f"<seg> {span[0]}, {span[1]}</seg>", sampled=not given)
        if refused:
            forced = Part("</think><answer>", sampled=False)
            return [looked, call, forced, Part(answer.removeprefix("<answer>"))]
        before = [looked, call, Part(span=span, sampled=False)]
    else:
        before = [looked]
    if misheard is not None:
        return [*before, Part(f" {misheard}", sampled=False), Part(f"</think>{answer}")]
    heard = f" {question.heard}" if question.heard else ""
    return [*before, Part(f"{heard}</think>{answer}")]
