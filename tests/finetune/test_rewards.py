"""Rewards: values worked out by hand, the edges of each, and the range that each stays in."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from echo_agent.audio.recording import Recording
from echo_agent.dialects import InlineDialect
from echo_agent.finetune.config import RewardConfig
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.rewards import (
    REWARDS,
    Judged,
    needs_counterfactual,
    repeats,
    total,
    turn_tags,
    well_formed,
)
from echo_agent.finetune.trajectories import to_trajectory
from echo_agent.stores import RecordingStore
from tests.tiny import KINDS, tiny_family

TURN = "<think>At <seg>2.0, 4.0</seg> a dog barks.</think><answer>a dog</answer>"
ILL_FORMED = TURN.replace("</think>", "")
ECHO = {"format": 1.0, "confidence": 1.0, "relisten": 1.0, "consistency": 1.0}


def judged(text: str = TURN, **changes: Any) -> Judged:
    """A right answer after one span that was heard again, sure to 0.8."""
    usual = Judged(
        text=text,
        correct=True,
        forced=False,
        confidence=0.8,
        asked=((2.0, 4.0),),
        seconds_heard=2.0,
        gold_spans=((3.0, 5.0),),
        correct_without=None,
    )
    return replace(usual, **changes)


def reward(name: str, text: str = TURN, **changes: Any) -> float:
    return REWARDS[name](judged(text, **changes))


@pytest.mark.parametrize("kind", [*KINDS, "echo-small"])
def test_a_turn_is_paid_as_its_family_was_taught_to_write_it(kind: str) -> None:
    """What SFT teaches is well-formed, and right."""
    family, store = tiny_family(kind), RecordingStore()
    recording = store.add(Recording.from_array(np.zeros(8 * 16000, np.float32), 16000))
    row = Sample(
        id="s", audio="none", question="What is it?", answers=("a dog",), reasoning="<seg>2, 4</seg>dog 2."
    )
    made = to_trajectory(row, family, InlineDialect(), recording)
    written = [
        i for part in made.segments if part.origin != "prompt" for i in part.ids if i != family.audio_id
    ]
    turn = judged(family.detokenize(written), tags=turn_tags(family))
    thought = () if kind == "echo-small" else ("<think>", "</think>")
    assert turn.tags == (*thought, "<answer>", "</answer>")
    assert REWARDS["accuracy"](turn) == REWARDS["format"](turn) == 0.5
    assert REWARDS["accuracy"](replace(turn, text=f"{turn.text}</think>")) == 0.0


def test_names_are_those_of_recipes() -> None:
    assert list(REWARDS) == list(RewardConfig.model_fields)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (TURN, True),
        ("<think></think><answer>x</answer>", True),
        ("So: <think>a\nb</think>\n\n<answer>\nx\n</answer> done", True),
        ("", False),
        ("a dog", False),
        ("<answer>x</answer>", False),
        ("<think>a</think>", False),
        ("<think>a<answer>x</answer>", False),
        ("a</think><answer>x</answer>", False),
        ("<think>a</think><answer>x", False),
        ("<think>a</think>x</answer>", False),
        ("<think>a</think><answer> \n</answer>", False),
        ("<answer>x</answer><think>a</think>", False),
        ("<think>a<answer>x</answer></think>", False),
        ("</think>a<think><answer>x</answer>", False),
        ("<think>a</think></answer>x<answer>", False),
        ("<think>a</think><think>b</think><answer>x</answer>", False),
        ("<think>a</think><answer>x</answer><answer>y</answer>", False),
        ("<think><think>a</think><answer>x</answer>", False),
        ("<think>a</think><answer>x</answer></answer>", False),
        ("<THINK>a</THINK><answer>x</answer>", False),
    ],
)
def test_format(text: str, good: bool) -> None:
    assert well_formed(judged(text)) is good
    assert reward("format", text) == (0.5 if good else 0.0)
    assert reward("format", text, correct=False, confidence=None) == (0.5 if good else 0.0)


@pytest.mark.parametrize(
    ("answer", "expected"), [("a dog</answer>", 0.5), ("a dog", 0.0), ("a dog</think></answer>", 0.0)]
)
def test_format_of_a_forced_answer(answer: str, expected: float) -> None:
    """What counts is the turn, with the tags that the tool wrote to ask for the answer."""
    said = "<think>At <seg>2.0, 4.0</seg>"
    text = said + InlineDialect().answer_opening(said) + answer
    assert reward("format", text, forced=True) == expected


@pytest.mark.parametrize(
    ("text", "correct", "expected"),
    [(TURN, True, 0.5), (TURN, False, 0.0), (ILL_FORMED, True, 0.0), (ILL_FORMED, False, 0.0)],
)
@pytest.mark.parametrize("confidence", [None, 0.0, 1.0])
def test_accuracy_is_flat(text: str, correct: bool, expected: float, confidence: float | None) -> None:
    assert reward("accuracy", text, correct=correct, confidence=confidence) == expected


@pytest.mark.parametrize(
    ("correct", "confidence", "expected"),
    [
        (True, 1.0, 0.5),
        (True, 0.8, 0.48),
        (True, 0.5, 0.375),
        (True, 0.0, 0.0),
        (False, 1.0, -0.5),
        (False, 0.8, -0.32),
        (False, 0.5, -0.125),
        (False, 0.0, 0.0),
        (False, None, 0.0),
    ],
)
def test_confidence(correct: bool, confidence: float | None, expected: float) -> None:
    assert reward("confidence", correct=correct, confidence=confidence) == pytest.approx(expected)


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("confidence", [None, 0.9])
def test_confidence_without_format(correct: bool, confidence: float | None) -> None:
    assert reward("confidence", ILL_FORMED, correct=correct, confidence=confidence) == 0


def test_confidence_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="'confidence' needs the probability.*weigh 'accuracy'"):
        reward("confidence", confidence=None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.5),
        ({"confidence": 0.1}, 0.5),
        ({"asked": ((2.0, 4.0), (6.0, 7.0))}, 0.5),
        ({"correct": False}, 0.0),
        ({"text": ILL_FORMED}, 0.0),
        ({"asked": (), "seconds_heard": 0.0}, 0.0),  # a call is written, and nothing was heard
    ],
)
def test_relisten(changes: dict[str, Any], expected: float) -> None:
    assert reward("relisten", **changes) == expected


CALL = "<seg>2.0, 4.0</seg>"


@pytest.mark.parametrize(
    ("thought", "faults"),
    [
        ("nothing to hear", 0),
        (f"in {CALL} a dog barks", 0),
        (f"in {CALL}, a dog barks", 0),
        (f"in {CALL}.", 0),
        (f"in {CALL} 3 dogs bark", 0),
        (f"in {CALL}The dog barks", 1),
        (f"in {CALL} The dog barks", 1),
        (f"in {CALL}\n\n\tThe dog barks", 1),
        (f"in {CALL} Ärger", 1),
        (f"in {CALL} a dog. The dog barks", 0),
        (f"{CALL}{CALL} a dog barks", 1),
        (f"{CALL}{CALL} The dog barks", 2),
        (f"{CALL} {CALL} a {CALL}, b", 1),
        (f"in {CALL}", 1),  # the end of the thought follows
        (f"in {CALL} ", 1),
        (f"in {CALL} (heard 2.0-3.5: Cut) a dog barks", 0),
        (f"in {CALL} (heard 2.0-3.5: cut) The dog barks", 1),
        (f"in {CALL} (heard 2.0-3.5: cut)The dog barks", 1),
        (f"{CALL} (heard before)\n{CALL} a dog", 1),
        (f"{CALL} (cannot read 'Speed(2)') a dog", 0),
        (f"{CALL} (cannot read 'Speed(2)') A dog", 1),
        (f"in {CALL} (Never closed", 0),
        ("in <seg>here\nand there</seg> The dog", 1),  # malformed, and a call all the same
        ("in 4.0</seg> The dog", 0),  # never opened: no call
        ("in <seg>2.0, 4.0 The dog", 0),  # never closed: no call yet
    ],
)
def test_consistency(thought: str, faults: int) -> None:
    text = f"<think>{thought}</think><answer>x</answer>"
    assert reward("consistency", text) == pytest.approx(-0.1 * faults)
    assert reward("consistency", text, correct=False, asked=()) == pytest.approx(-0.1 * faults)


def test_consistency_at_the_end_of_the_text() -> None:
    assert reward("consistency", f"<think>in {CALL}") == 0
    assert reward("consistency", f"<think>in {CALL} ") == 0


@pytest.mark.parametrize(("calls", "expected"), [(1, -0.1), (4, -0.4), (5, -0.5), (6, -0.5), (40, -0.5)])
def test_consistency_has_a_worst(calls: int, expected: float) -> None:
    assert reward("consistency", f"{CALL} Here. " * calls) == expected


def test_consistency_skips_what_the_tool_writes() -> None:
    """The observation as the dialect writes it, whatever is in it: only what the policy wrote is judged."""
    reply = InlineDialect().readable_reply("heard 1.0-2.0: Swapped")
    assert reward("consistency", f"{CALL}{reply} a dog") == 0
    assert reward("consistency", f"{CALL}{reply} A dog") == -0.1


def test_consistency_leaves_calls_in_turns_alone() -> None:
    call = '<tool_call>\n{"name": "relisten", "arguments": {"start": 2.0, "end": 4.0}}\n</tool_call>\nThe dog'
    assert reward("consistency", call) == 0


@pytest.mark.parametrize(
    ("asked", "gold", "iou"),
    [
        (((2.0, 4.0),), ((3.0, 5.0),), 1 / 3),
        (((3.0, 5.0),), ((3.0, 5.0),), 1.0),
        (((3.0, 4.0), (4.0, 5.0)), ((3.0, 5.0),), 1.0),
        (((3.0, 5.0), (3.0, 5.0)), ((3.0, 5.0),), 1.0),
        (((0.0, 10.0),), ((3.0, 4.0), (6.0, 7.0)), 0.2),
        (((3.0, 4.0),), ((3.0, 4.0), (6.0, 7.0)), 0.5),
        (((0.0, 1.0),), ((3.0, 5.0),), 0.0),
        (((0.0, 3.0),), ((3.0, 5.0),), 0.0),
        ((), ((3.0, 5.0),), 0.0),
        (((3.0, 5.0),), (), 0.0),
        ((), (), 0.0),
    ],
)
@pytest.mark.parametrize("correct", [True, False])
def test_overlap(
    asked: tuple[tuple[float, float], ...],
    gold: tuple[tuple[float, float], ...],
    iou: float,
    correct: bool,
) -> None:
    assert reward("overlap", asked=asked, gold_spans=gold, correct=correct) == pytest.approx(iou)


@pytest.mark.parametrize("seconds", [0.0, 0.25, 2.0, 90.0])
def test_price_is_per_second(seconds: float) -> None:
    assert reward("price", seconds_heard=seconds) == -seconds
    assert total(judged(seconds_heard=seconds), {"price": 0.02}) == pytest.approx(-0.02 * seconds)


@pytest.mark.parametrize(
    ("asked", "correct", "without", "needed", "expected"),
    [
        (True, True, False, True, 1.0),
        (True, True, True, True, 0.0),
        (True, True, None, True, 0.0),
        (True, False, False, False, 0.0),
        (True, False, True, False, 0.0),
        (False, True, False, False, 0.0),
        (False, True, None, False, 0.0),
        (False, False, None, False, 0.0),
    ],
)
def test_counterfactual(
    asked: bool, correct: bool, without: bool | None, needed: bool, expected: float
) -> None:
    spans = ((2.0, 4.0),) if asked else ()
    assert reward("counterfactual", asked=spans, correct=correct, correct_without=without) == expected
    assert needs_counterfactual(judged(asked=spans, correct=correct, correct_without=without)) is needed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"confidence": 1.0}, 1.5),  # the most that Echo pays
        ({}, 0.5 + 0.48 + 0.5),
        ({"asked": ()}, 0.5 + 0.48),
        ({"correct": False}, 0.5 - 0.32),
        ({"text": TURN.replace(" a dog barks", " A dog barks")}, 0.5 + 0.48 + 0.5 - 0.1),
        ({"text": ILL_FORMED}, 0.0),
        ({"text": f"<think>{CALL * 6}", "correct": False, "confidence": None}, -0.5),
    ],
)
def test_total_of_echo(changes: dict[str, Any], expected: float) -> None:
    assert total(judged(**changes), ECHO) == pytest.approx(expected)


def test_total_weighs() -> None:
    weights = {"accuracy": 2.0, "overlap": 0.3, "price": 0.1, "counterfactual": 0.25}
    assert total(judged(correct_without=False), weights) == pytest.approx(1.0 + 0.1 - 0.2 + 0.25)
    assert total(judged(), {}) == 0


def test_total_leaves_out_what_weighs_nothing() -> None:
    """A reward that cannot be computed is no obstacle where its weight is 0."""
    unknown = judged(confidence=None)
    assert total(unknown, {"accuracy": 1.0, "confidence": 0.0}) == 0.5
    with pytest.raises(ValueError, match="confidence"):
        total(unknown, {"accuracy": 1.0, "confidence": 0.1})


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ((), 0),
        (((2.0, 4.0),), 0),
        (((2.0, 4.0), (2.0, 4.0)), 1),
        (((2.0, 4.0), (2.0, 4.0), (2.0, 4.0)), 2),
        (((2.0, 4.0), (3.0, 5.0)), 1),  # just half
        (((2.0, 4.0), (3.25, 5.25)), 0),
        (((2.0, 4.0), (4.0, 6.0)), 0),
        (((0.0, 9.0), (3.0, 4.0)), 1),  # the whole of the shorter
        (((3.0, 4.0), (0.0, 9.0)), 1),
        (((2.0, 4.0), (6.0, 8.0), (2.5, 4.5)), 1),  # not of the one just before
        (((2.0, 4.0), (4.0, 6.0), (3.0, 5.0)), 1),  # of two, and counted once
    ],
)
def test_repeats(asked: tuple[tuple[float, float], ...], count: int) -> None:
    assert repeats(asked) == count


RANGES = {
    "format": (0.0, 0.5),
    "accuracy": (0.0, 0.5),
    "confidence": (-0.5, 0.5),
    "relisten": (0.0, 0.5),
    "consistency": (-0.5, 0.0),
    "overlap": (0.0, 1.0),
    "price": (-4.0, 0.0),  # no bound of its own: what is heard in the grid
    "counterfactual": (0.0, 1.0),
}


def grid() -> list[Judged]:
    """Every combination of a few values, whether or not they can be."""
    spans = ((), ((3.0, 5.0),), ((0.0, 2.0), (4.0, 6.0)))
    axes = itertools.product(
        (TURN, ILL_FORMED, f"<think>{CALL} A " * 7),
        (True, False),
        (0.0, 0.1, 0.6, 1.0),
        spans,
        spans,
        (None, False, True),
        (False, True),
    )
    return [
        judged(
            text,
            correct=correct,
            confidence=confidence,
            asked=asked,
            seconds_heard=sum(end - start for start, end in asked),
            gold_spans=gold,
            correct_without=without,
            forced=forced,
        )
        for text, correct, confidence, asked, gold, without, forced in axes
    ]


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_ranges(name: str) -> None:
    """Each reward stays in its range and reaches both of its ends."""
    values = [REWARDS[name](case) for case in grid()]
    assert (min(values), max(values)) == RANGES[name]


def test_being_right_never_pays_less() -> None:
    """Of two rollouts that differ in nothing else, with any reward."""
    for case in grid():
        if not case.correct:
            for name, function in REWARDS.items():
                assert function(replace(case, correct=True)) >= function(case), name


def test_being_surer_pays_only_the_right() -> None:
    """Certainty as such is worth nothing: it raises the reward of a right answer and lowers that of a wrong one."""
    sure = [step / 10 for step in range(11)]
    right = [reward("confidence", confidence=value) for value in sure]
    wrong = [reward("confidence", correct=False, confidence=value) for value in sure]
    assert right == sorted(right) and len(set(right)) == len(sure)
    assert wrong == sorted(wrong, reverse=True) and len(set(wrong)) == len(sure)
