"""Scores: matching, intervals and overlaps against values worked out by hand or from the literature."""

from __future__ import annotations

import json
from typing import Any

import pytest

from echo_agent.controls import Control
from echo_agent.rows import Row
from echo_agent.scores import Outcome, overlap, paired_difference, summarise, wilson


def row(id: str = "a", **fields: Any) -> Row:
    if not {"choices", "answers"} & set(fields):
        fields |= {"choices": ["a bell", "a dog"], "answer": "a dog"}
    return Row(id=id, audio="a.wav", question="What is heard?", **fields)


def outcome(
    id: str, control: Control = "on", *, answer: str | None = "a dog", correct: bool = True, **more: Any
) -> Outcome:
    defaults = {
        "status": "unparsed" if answer is None else "answered",
        "relistens": (),
        "tokens": {"prompt": 10, "sampled": 5, "audio": 3},
        "seconds_heard": 0.0,
        "budget_exhausted": False,
        "run": "r",
    }
    return Outcome(id=id, control=control, answer=answer, correct=correct, **(defaults | more))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("a dog", True),
        (" A Dog. ", True),
        ("b) a dog", True),
        ("a bell", False),
        ("dog", False),
        (None, False),
    ],
)
def test_choices(answer: str | None, right: bool) -> None:
    assert row().is_right(answer) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [("four seven", True), ("Four  Seven!", True), ("47", True), ("4", False), ("", False)],
)
def test_open_questions(answer: str, right: bool) -> None:
    assert row(answers=["four seven", "47"]).is_right(answer) is right


def test_wilson_against_published_values() -> None:
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (correct, total), interval in published.items():
        assert wilson(correct, total) == pytest.approx(interval, abs=6e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("heard", "gold", "expected"),
    [
        ([(2, 4)], [(2, 4)], (1.0, 1.0)),
        ([(0, 4)], [(2, 4)], (1.0, 0.5)),
        ([(0, 2)], [(2, 4)], (0.0, 0.0)),
        ([(3, 5)], [(2, 4)], (0.5, 1 / 3)),
        ([(2, 3), (2.5, 3)], [(2, 4)], (0.5, 0.5)),  # heard twice counts once
        ([(0, 10)], [(1, 2), (1.5, 3)], (1.0, 0.2)),
    ],
)
def test_overlap(
    heard: list[tuple[float, float]], gold: list[tuple[float, float]], expected: tuple[float, float]
) -> None:
    assert overlap(heard, gold) == pytest.approx(expected)


def test_summary() -> None:
    rows = [
        row("a", category="order", difficulty="detail", gold_spans=[(2.0, 4.0)]),
        row("b", category="order", difficulty="gist"),
        row("c", category="count"),
    ]
    listen = {"start": 3.0, "end": 5.0, "speed": 1.0}
    outcomes = [
        outcome("a", relistens=(listen,), seconds_heard=2.0),
        outcome("b", answer=None, correct=False),
        outcome("c", answer="a bell", correct=False),
        outcome("a", "off", answer="a bell", correct=False),
        outcome("gone", correct=True),  # a row of another file
    ]
    summary = summarise(rows, outcomes)
    assert json.loads(json.dumps(summary)) == summary
    assert list(summary) == ["on", "off"]
    on = summary["on"]
    assert (on["n"], on["correct"], on["unparsed"]) == (3, 1, 1)
    assert on["accuracy"] == pytest.approx(1 / 3)
    assert on["interval"] == list(wilson(1, 3))
    assert on["listened"] == pytest.approx(1 / 3)
    assert on["seconds_heard"] == pytest.approx(2 / 3)
    assert (on["gold_heard"], on["gold_iou"]) == (pytest.approx(0.5), pytest.approx(1 / 3))
    assert {name: group["accuracy"] for name, group in on["by_category"].items()} == {
        "count": 0.0,
        "order": 0.5,
    }
    assert {name: group["n"] for name, group in on["by_difficulty"].items()} == {"detail": 1, "gist": 1}
    assert summary["off"]["gold_heard"] is None


# --- paired differences -----------------------------------------------------------------------------------------


def test_a_difference_is_taken_question_by_question():
    """The interval of a paired difference knows that hard questions are hard for both."""
    hard = {f"q{i}": float(i % 2) for i in range(200)}
    better = {name: min(1.0, score + (i % 10 == 0)) for i, (name, score) in enumerate(hard.items())}
    found = paired_difference(better, hard)
    assert found is not None and found["points"] == pytest.approx(10.0)
    assert 4 < found["low"] < 10 < found["high"] < 16
    assert paired_difference(hard, hard) == {"points": 0.0, "low": 0.0, "high": 0.0}
    unpaired = paired_difference(dict(zip(hard, reversed(better.values()), strict=True)), hard)
    assert unpaired is not None and unpaired["high"] - unpaired["low"] > 1.5 * (found["high"] - found["low"])


def test_a_difference_is_over_the_questions_of_both():
    assert paired_difference({"a": 1.0, "b": 0.0}, {"a": 0.0, "c": 1.0}) == {
        "points": 100,
        "low": 100,
        "high": 100,
    }
    assert paired_difference({"a": 1.0}, {"b": 1.0}) is None
