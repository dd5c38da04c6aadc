"""Balance: choosing so that nothing about a question's text tells its answer.

If drums are in most scenes, "Is there any drum?" is answered with yes by somebody who never listens. So what was asked
so far is counted, and of all questions that a recording offers the one is taken which evens the counts out: each answer
as often as any other, each label as often right as its share of being wrong, each place of the right choice alike.
The counts run over a whole set of questions; so a set is composed in one go, in the order of its records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T", bound=Hashable)

LEAD = 2.0
"""By how much a label may be ahead in a contest before it is not let win again."""
FAR = 5
"""By how many an answer may be ahead of the one that was given least."""


class Balance:
    """Counts of what was asked and answered."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._used: Counter[Hashable] = Counter()
        self._score: dict[tuple[str, str], float] = {}

    def least(self, key: str, options: Sequence[T], rng: np.random.Generator) -> T:
        """The option that was taken least often under this key; it counts as taken."""
        option = self.rarest(key, options, rng)
        self._used[key, option] += 1
        return option

    def rarest(self, key: str, options: Sequence[T], rng: np.random.Generator) -> T:
        """The option that was taken least often under this key; ties are broken at random."""
        order = rng.permutation(len(options))
        return options[min((int(i) for i in order), key=lambda i: self._used[key, options[i]])]

    def lead(self, key: str, option: Hashable, options: Sequence[Hashable]) -> int:
        """How many times more often an option was taken than that which was taken least."""
        return self._used[key, option] - min(self._used[key, other] for other in options)

    def score(self, key: str, label: str) -> float:
        """How much more often a label was right than its share of the choices promises."""
        return self._score.get((key, label), 0.0)

    def decide(self, key: str, answer: str, wrong: Sequence[str]) -> None:
        """Note a question: its answer, and the other choices."""
        share = 1 / (1 + len(wrong))
        self._score[key, answer] = self.score(key, answer) + 1 - share
        for label in wrong:
            self._score[key, label] = self.score(key, label) - share

    def due(self, key: str, labels: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Labels in random order, those first that have been right least often for their part."""
        order = [labels[int(i)] for i in rng.permutation(len(labels))]
        return sorted(order, key=lambda label: self.score(key, label))

    def overdue(self, key: str, labels: Sequence[str], rng: np.random.Generator) -> list[str]:
        """The other way round: those first that have been right too often, so that they are wrong now."""
        return self.due(key, labels, rng)[::-1]

    def may_win(self, key: str, winner: str, loser: str) -> bool:
        """Whether the winner of a contest between two labels is not too far ahead already."""
        return self.score(key, winner) - self.score(key, loser) < LEAD and self.score(key, winner) < LEAD

    def place(self, key: str, answer: str, wrong: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
        """The choices, the answer at the place where it stood least often, the others in random order."""
        others = [wrong[int(i)] for i in rng.permutation(len(wrong))]
        spot = self.least(f"place/{key}/{len(wrong) + 1}", range(len(wrong) + 1), rng)
        return (*others[:spot], answer, *others[spot:])
