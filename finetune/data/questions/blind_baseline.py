"""Needs audio: which questions can be answered without hearing, and how they are removed.

Half of a well-known benchmark can be answered by a model that never hears the audio (MMAU-mini, see "AudioMCQ",
arXiv 2509.21060). The *blind policy* measures that: it learns from questions and choices alone which choice is right,
as a conditional logit (McFadden 1974) over hashed features of the wording, the choice, its place, its rank among
numbers, and its likeness to the other choices.

Dropping what it answers rightly would only turn the bias round, and thinning its likeliest choices would hand the lead
to the second likeliest. So a question is kept with a probability that undoes what the text tells: that of the least
likely choice over that of the right one. Among the questions that are kept, each choice is then as likely as any other,
as far as the policy's probabilities are true; they are calibrated for each family. Every question is judged by a policy
that has not seen it, nor any question about the same recording.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from echo_agent.answers import match_choice, normalise
from echo_agent.finetune.data.records import Sample
from echo_agent.scores import wilson

SIZE = 1 << 15
"""Hashed features."""
STEPS, RATE, DECAY = 120, 0.05, 2e-4
"""Steps of Adam, its rate, and the weight of the squared norm in the loss."""
FOLDS = 5
MARGIN = 0.05
"""By how much the likeliest choice must be above an even share before a question may be dropped."""
POWERS = tuple(k / 10 for k in range(21))
"""Powers of the probabilities that are tried to calibrate them; 0 means that nothing was learned."""


class BlindReport(BaseModel):
    """How often a policy that never hears is right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: int
    """Those with choices."""
    accuracy: float
    chance: float
    """Mean of one over the number of choices."""
    interval: tuple[float, float]
    """95 % interval of the accuracy (Wilson)."""
    categories: Mapping[str, tuple[int, float, float]]
    """Of each category: questions, accuracy, chance."""

    @property
    def gap(self) -> float:
        """Points above chance."""
        return 100 * (self.accuracy - self.chance)

    def report(self) -> str:
        """One line, with the category that is farthest from chance."""
        low, high = self.interval
        text = (
            f"{self.accuracy:.1%} right ({low:.1%} to {high:.1%}) of {self.questions} with choices, "
            f"chance {self.chance:.1%}"
        )
        if not self.categories:
            return text
        worst = max(
            self.categories, key=lambda category: self.categories[category][1] - self.categories[category][2]
        )
        count, accuracy, chance = self.categories[worst]
        return f"{text}; most for {worst}: {accuracy:.0%} of {count}, chance {chance:.0%}"


class BlindPolicy:
    """Knows questions and choices, and no audio."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        """Learn from samples; those without choices are passed over."""
        known = [sample for sample in samples if _right(sample) is not None]
        self._weights = np.zeros(SIZE)
        if known:
            self._weights = _fitted(_Table.of(known), np.array([_right(sample) for sample in known]))

    def scores(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        """Probabilities of the choices of each sample (all with choices)."""
        if not samples:
            return []
        table = _Table.of(samples)
        return np.split(table.probabilities(self._weights), table.starts[1:])

    def answers(self, samples: Sequence[Sample]) -> list[int]:
        """Index of the likeliest choice of each sample."""
        return [int(np.argmax(row)) for row in self.scores(samples)]


def blind_accuracy(policy: BlindPolicy, test: Sequence[Sample]) -> BlindReport:
    """What a policy that learned from other samples gets right of ``test``, without audio."""
    asked = [sample for sample in test if _right(sample) is not None]
    hits = [guess == _right(sample) for guess, sample in zip(policy.answers(asked), asked, strict=True)]
    return _reported(asked, hits)


def cross_fitted(samples: Sequence[Sample], seed: int) -> list[np.ndarray]:
    """Probabilities of the choices of each sample, by policies that saw nothing of its recording."""
    groups = sorted({sample.record or sample.group or sample.id for sample in samples})
    order = np.random.default_rng(seed).permutation(len(groups))
    fold = {groups[int(g)]: k % FOLDS for k, g in enumerate(order)}
    folds = np.array([fold[sample.record or sample.group or sample.id] for sample in samples])
    found: list[np.ndarray] = [np.zeros(0)] * len(samples)
    for k in range(FOLDS):
        policy = BlindPolicy([sample for sample, f in zip(samples, folds, strict=True) if f != k])
        mine = np.flatnonzero(folds == k)
        for i, row in zip(mine, policy.scores([samples[int(i)] for i in mine]), strict=True):
            found[int(i)] = row
    return found


def needs_audio(samples: Sequence[Sample], *, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Samples that are kept, and those that are dropped since the text gives them away; both in their order.

    Open questions are kept: nothing is there to choose from.
    """
    asked = [sample for sample in samples if _right(sample) is not None]
    rows = cross_fitted(asked, seed)
    rng = np.random.default_rng([seed, 1])
    lost: set[int] = set()
    for category in sorted({sample.category for sample in asked}):
        mine = [i for i, sample in enumerate(asked) if sample.category == category]
        right = [_right(asked[i]) or 0 for i in mine]
        for i, k, row in zip(mine, right, calibrated([rows[i] for i in mine], right), strict=True):
            told = row.max() - 1 / len(row) > MARGIN
            if told and rng.random() >= row.min() / row[k]:
                lost.add(id(asked[i]))
    return [s for s in samples if id(s) not in lost], [s for s in samples if id(s) in lost]


def calibrated(rows: Sequence[np.ndarray], right: Sequence[int]) -> list[np.ndarray]:
    """Probabilities raised to the power that makes the right choices likeliest (temperature scaling, Guo 2017)."""
    best = max(
        POWERS,
        key=lambda power: sum(float(np.log(_powered(r, power)[k])) for r, k in zip(rows, right, strict=True)),
    )
    return [_powered(row, best) for row in rows]


def _powered(row: np.ndarray, power: float) -> np.ndarray:
    raised = np.maximum(row, 1e-9) ** power
    return raised / raised.sum()


def _reported(asked: Sequence[Sample], hits: Sequence[bool]) -> BlindReport:
    categories: dict[str, tuple[int, float, float]] = {}
    for category in sorted({sample.category for sample in asked}):
        mine = [i for i, sample in enumerate(asked) if sample.category == category]
        categories[category] = (
            len(mine),
            float(np.mean([hits[i] for i in mine])),
            float(np.mean([1 / len(asked[i].choices or "?") for i in mine])),
        )
    total = len(asked)
    return BlindReport(
        questions=total,
        accuracy=sum(hits) / total if total else 0.0,
        chance=float(np.mean([1 / len(s.choices or "?") for s in asked])) if total else 0.0,
        interval=wilson(sum(hits), total) if total else (0.0, 1.0),
        categories=categories,
    )


def _right(sample: Sample) -> int | None:
    """Index of the right choice; None where there are no choices."""
    return None if sample.choices is None else match_choice(sample.answer, sample.choices)


# --- features ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Features of all choices of some samples."""

    features: np.ndarray
    """``[choices, most features]`` int, 0 where there are fewer."""
    starts: np.ndarray
    """``[samples]``: the row of each sample's first choice."""

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> _Table:
        """Hash the features of every choice."""
        rows: list[list[int]] = []
        starts: list[int] = []
        for sample in samples:
            starts.append(len(rows))
            rows += _choice_features(sample)
        widest = max(len(row) for row in rows)
        table = np.zeros((len(rows), widest), np.int64)
        for i, row in enumerate(rows):
            table[i, : len(row)] = row
        return cls(table, np.array(starts))

    def probabilities(self, weights: np.ndarray) -> np.ndarray:
        """Softmax over the choices of each sample, one after another."""
        scores = weights[self.features].sum(1)
        sizes = np.diff([*self.starts, len(scores)])
        scores = np.exp(scores - np.repeat(np.maximum.reduceat(scores, self.starts), sizes))
        return scores / np.repeat(np.add.reduceat(scores, self.starts), sizes)


def _choice_features(sample: Sample) -> list[list[int]]:
    """Ids of the features of each choice, 1 and up."""
    assert sample.choices is not None
    choices = [normalise(choice) for choice in sample.choices]
    question = normalise(sample.question)
    words = re.findall(r"\w+", question)
    grams = sorted({*words, *(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))})
    wording = " ".join(word for word in words if word not in set(" ".join(choices).split()))
    alike = _ranks([sum(len(set(c.split()) & set(o.split())) for o in choices) for c in choices])
    letters = _ranks([len(c) for c in choices])
    numbers = [_number(c) for c in choices]
    sizes = _ranks([n for n in numbers if n is not None]) if None not in numbers else [0] * len(choices)
    length = "short" if (sample.duration or 0) < 45 else "long"
    found = []
    for k, choice in enumerate(choices):
        named = f" {choice} " in f" {' '.join(words)} "
        first = named and not any(
            0 <= question.find(o) < question.find(choice) for o in choices if o != choice
        )
        plain = [
            f"place {k}",
            f"alike {alike[k]}",
            f"letters {letters[k]}",
            f"size {sizes[k]}",
            f"named {named} {first}",
        ]
        texts = [
            *plain,
            *(f"{sample.category} {name}" for name in plain),
            *(f"{wording} {name}" for name in plain),
            f"is {choice}",
            f"{wording} is {choice}",
            f"{sample.category} is {choice}",
            f"{sample.category} {length} is {choice}",
            *(f"{sample.category} is {choice} not {other}" for other in choices if other != choice),
            *(f"{gram} > {choice}" for gram in grams),
        ]
        found.append([1 + zlib.crc32(text.encode()) % (SIZE - 1) for text in texts])
    return found


def _number(text: str) -> float | None:
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*\w*", text)
    return float(match[1]) if match else None


def _ranks(values: Sequence[float]) -> list[int]:
    """Place of each value in their order; the same for the same."""
    order = sorted(set(values))
    return [order.index(value) for value in values]


def _fitted(table: _Table, right: np.ndarray) -> np.ndarray:
    """Weights of the conditional logit: full-batch Adam on the mean log-likelihood."""
    target = np.zeros(len(table.features))
    target[table.starts + right] = 1
    weights, mean, square = np.zeros(SIZE), np.zeros(SIZE), np.zeros(SIZE)
    width = table.features.shape[1]
    flat = table.features.ravel()
    for step in range(1, STEPS + 1):
        error = (table.probabilities(weights) - target) / len(right)
        gradient = np.bincount(flat, np.repeat(error, width), minlength=SIZE) + DECAY * weights
        gradient[0] = 0
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        weights = weights - RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    return weights
