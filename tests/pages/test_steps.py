"""What a page tells of a run is what went into its context."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo_agent import EchoAgent
from echo_agent.pages.steps import NO_ROOM, steps_of, times_in
from tests.pages.conftest import SCRIPT, Ran, run_of
from tests.scripted import ASK_FOREVER, ASK_ONCE, scripted_family


def test_the_steps_of_a_run(ran: Ran) -> None:
    first, again = steps_of(ran.trace)
    assert (first.number, first.heard, first.text, first.told) == (0, None, "At 3 s", "")
    assert again.heard is not None and again.record is not None
    assert (again.number, again.heard.start, again.heard.end) == (1, 2.0, 4.0)
    assert again.heard.transform.speed == again.record.speed == 0.5
    assert again.text == "a dog barks", "neither tags nor the answer"


@pytest.mark.parametrize("kind", ["qwen2.5-omni", "qwen2-audio"])
def test_an_answer_that_was_asked_for_is_none_of_the_reasoning(yard: Path, kind: str) -> None:
    with EchoAgent(scripted_family(ASK_FOREVER, kind)) as agent:
        trace = run_of(agent, yard, max_relistens=2).trace
    steps = steps_of(trace)
    assert [step.number for step in steps] == [0, 1, 2, 0]
    assert steps[-1].told == NO_ROOM and "dog" not in steps[-1].text


def test_a_call_for_which_nothing_is_heard_says_why(yard: Path) -> None:
    with EchoAgent(
        scripted_family({**ASK_ONCE, "<think>": "<seg>50.0, 60.0</seg>", ")": "a dog barks"})
    ) as agent:
        trace = run_of(agent, yard).trace
    steps = steps_of(trace)
    assert steps[1].told == "not heard: 50-60 is outside of 0-12"
    assert steps[1].text.startswith("a dog barks") and steps[1].number == 0


def test_under_a_control_what_was_delivered_is_shown(yard: Path) -> None:
    with EchoAgent(scripted_family(SCRIPT)) as agent:
        trace = run_of(agent, yard, control="wrong-crop").trace
    step = steps_of(trace)[1]
    assert step.heard is not None and step.record is not None and step.record.instead is not None
    assert (step.heard.start, step.heard.end) == (step.record.instead.start, step.record.instead.end)
    assert (step.record.start, step.record.end) == (2.0, 4.0)


@pytest.mark.parametrize(
    ("text", "bare", "found"),
    [
        ("a bell at 12.5 s, and 1:02 later", False, [12.5, 62.0]),
        ("at 3 seconds, 3 dogs, v1.2, 10:20:30, 5 sheep", False, [3.0]),
        ("drum 57, 62 voice", True, [57.0, 62.0]),
        ("3.5 and 1:02", True, []),
        ("at 99 s", False, []),
    ],
)
def test_times_in_a_text(text: str, bare: bool, found: list[float]) -> None:
    pieces = list(times_in(text, 70.0, bare=bare))
    assert "".join(piece for piece, _ in pieces) == text
    assert [time for _, time in pieces if time is not None] == found
