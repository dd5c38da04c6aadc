"""Scoring: which answers are right, how sure a share is, and how well what was heard again meets the gold spans.

An answer is right if it equals a right one after normalisation (case, spaces, surrounding punctuation). An answer that
could not be read is counted as wrong, and reported apart. Intervals are Wilson's at 95 %. Times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from echo_agent.answers import match_choice, normalise
from echo_agent.rows import Row

Control = Literal["on", "off", "wrong-crop", "silence"]
Z95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


class Outcome(BaseModel):
    """How one row went under one control; one line of ``results.jsonl``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    control: Control
    answer: str | None
    correct: bool
    status: Literal["answered", "unparsed"]
    relistens: tuple[dict[str, Any], ...]
    """Records of what was asked for, in order."""
    tokens: dict[str, int]
    """Tokens of the run: prompt, sampled, audio."""
    seconds_heard: float
    """Seconds of audio that were heard again."""
    budget_exhausted: bool
    run: str
    """Hash of row, model, seed and settings: what must be equal for this line to stand for a new run."""


def is_correct(row: Row, answer: str | None) -> bool:
    """Whether an answer is right: the gold choice, or equal to one of the right answers after normalisation."""
    if answer is None:
        return False
    if row.choices is not None:
        found = match_choice(answer, row.choices)
        return found is not None and found == match_choice(row.answer, row.choices)
    return normalise(answer) in {normalise(text) for text in row.right}


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; the whole range where there is nothing to count."""
    if total == 0:
        return (0.0, 1.0)
    share, square = correct / total, Z95**2 / total
    middle = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return (max(0.0, middle - half), min(1.0, middle + half))


def paired_difference(
    one: Mapping[str, float], other: Mapping[str, float], *, draws: int = 2000, seed: int = 0
) -> dict[str, float] | None:
    """How far two lists of scores are apart, in points of a hundred, question by question.

    Args:
        one: Score (0 to 1) by id of the question.
        other: The same of another policy; questions that are in both are compared.
        draws: Samples of questions, with replacement (bootstrap).
        seed: Of the draws.

    Returns:
        ``points``, and ``low`` and ``high`` of the 95 % interval; None where no question is in both.
    """
    import numpy as np

    apart = np.array([one[name] - other[name] for name in sorted(one.keys() & other.keys())])
    if not len(apart):
        return None
    rng = np.random.default_rng(seed)
    means = apart[rng.integers(len(apart), size=(draws, len(apart)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        name: round(100 * float(value), 1)
        for name, value in (("points", apart.mean()), ("low", low), ("high", high))
    }


def overlap(heard: Iterable[tuple[float, float]], gold: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """How well what was asked for meets the gold spans: the share of gold that it covers, and their IoU."""
    heard, gold = _union(heard), _union(gold)
    both = sum(max(0.0, min(b, d) - max(a, c)) for a, b in heard for c, d in gold)
    length_heard, length_gold = (sum(b - a for a, b in spans) for spans in (heard, gold))
    return both / length_gold, both / (length_heard + length_gold - both)


def _union(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Disjoint spans that cover the same stretches."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def summarise(rows: Sequence[Row], outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Scores per control, as plain JSON: overall, by family and by difficulty."""
    by_id = {row.id: row for row in rows}
    controls: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.id in by_id:
            controls.setdefault(outcome.control, []).append(outcome)
    return {name: _scores(by_id, controls[name]) for name in get_args(Control) if name in controls}


def _scores(rows: dict[str, Row], outcomes: list[Outcome]) -> dict[str, Any]:
    met = [
        overlap(((s["start"], s["end"]) for s in outcome.relistens), rows[outcome.id].gold_spans)
        for outcome in outcomes
        if outcome.relistens and rows[outcome.id].gold_spans
    ]
    listened = [outcome for outcome in outcomes if outcome.relistens]
    return _accuracy(outcomes) | {
        "unparsed": sum(outcome.status == "unparsed" for outcome in outcomes),
        "listened": len(listened) / len(outcomes),
        "relistens": _mean([len(outcome.relistens) for outcome in outcomes]),
        "seconds_heard": _mean([outcome.seconds_heard for outcome in outcomes]),
        "gold_heard": _mean([share for share, _ in met]),
        "gold_iou": _mean([iou for _, iou in met]),
        "by_family": _groups(outcomes, lambda outcome: rows[outcome.id].family),
        "by_difficulty": _groups(outcomes, lambda outcome: rows[outcome.id].difficulty),
    }


def _groups(outcomes: Iterable[Outcome], name: Callable[[Outcome], str]) -> dict[str, Any]:
    """Accuracy for each name that is not empty."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(name(outcome), []).append(outcome)
    return {key: _accuracy(groups[key]) for key in sorted(groups) if key}


def _accuracy(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    correct = sum(outcome.correct for outcome in outcomes)
    low, high = wilson(correct, len(outcomes))
    return {
        "n": len(outcomes),
        "correct": correct,
        "accuracy": correct / len(outcomes),
        "interval": [low, high],
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
