"""Scoring: which answers are right, how sure a share is, and how well what was heard again meets the gold spans.

An answer is right if it equals a right one after normalisation (case, spaces, surrounding punctuation). An answer that
could not be read is counted as wrong, and reported apart. Intervals are Wilson's at 95 %. Times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from echo_agent.controls import Condition, Status
from echo_agent.rows import Question
from echo_agent.spans import seconds_on, union

Z95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""


class Outcome(BaseModel):
    """How one row went under one control; one line of ``results.jsonl``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    control: Condition
    seed: int = 0
    """Seed of sampling and of the choice of wrong crops."""
    line: int = 0
    """Line of the question in its file, from 1."""
    answer: str | None
    correct: bool
    status: Status
    prediction: str = ""
    """What was written as the answer, as it stands, whether or not it can be read; where no answer was opened, all that
    was written. This is what a benchmark's own rule is applied to."""
    relistens: tuple[dict[str, Any], ...]
    """Records of what was asked for, in order."""
    tokens: dict[str, int]
    """Tokens of the run: prompt, sampled, audio."""
    seconds_heard: float
    """Seconds of audio that were heard again."""
    budget_exhausted: bool
    run: str
    """Hash of row, model, seed and settings: what must be equal for this line to stand for a new run."""
    made_by: str = ""
    """Hash of the file of questions, model and settings: equal for all lines of one evaluation, whatever its shard."""


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
    heard, gold = union(heard), union(gold)
    both = sum(seconds_on(span, gold) for span in heard)
    length_heard, length_gold = (sum(b - a for a, b in spans) for spans in (heard, gold))
    return both / length_gold, both / (length_heard + length_gold - both)


def bootstrap(scores: Sequence[float], *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean by drawing scores with replacement; the whole range where there are none."""
    import numpy as np

    if not len(scores):
        return (0.0, 1.0)
    rng = np.random.default_rng(seed)
    values = np.array(scores, dtype=float)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return (float(low), float(high))


def mcnemar(mended: int, spoiled: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    Args:
        mended: Questions that are right under the one condition only.
        spoiled: Questions that are right under the other only.

    Returns:
        How likely it is that they are shared out as unevenly or more so by chance alone, 0 to 1.
    """
    total, fewer = mended + spoiled, min(mended, spoiled)
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**total)


def summarise(rows: Sequence[Question], outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Scores per control, as plain JSON: overall, by category and by difficulty."""
    by_id = {row.id: row for row in rows}
    controls: dict[Condition, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.id in by_id:
            controls.setdefault(outcome.control, []).append(outcome)
    return {name: _scores(by_id, controls[name]) for name in get_args(Condition) if name in controls}


def _scores(rows: dict[str, Question], outcomes: list[Outcome]) -> dict[str, Any]:
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
        "by_category": _groups(outcomes, lambda outcome: rows[outcome.id].category),
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
