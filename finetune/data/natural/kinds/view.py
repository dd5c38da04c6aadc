"""What makers of questions look at, and what they make: a view of a record, and an idea that is not yet in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

from echo_agent.finetune.data.natural.sounds import NO_SOUND, kin, sounds
from echo_agent.finetune.data.natural.timelines import heard
from echo_agent.finetune.data.records import Record
from echo_agent.small.notes import second

Form = Literal["sound", "yes-no", "number", "time", "word", "sounds", "sentence"]
"""What an answer is: a sound, yes or no, a number, a time, one of some words, several sounds, or a sentence."""

APART = 1.0
"""Seconds between two onsets that have an order."""


@dataclass(frozen=True)
class Idea:
    """A question before it is worded."""

    kind: str
    form: Form
    answer: tuple[str, ...]
    """Keys of sounds, or the words of the answer."""
    steps: str
    """What leads to the answer, in the words of a timeline."""
    a: str = ""
    """Key of the sound that the question names, and of the second."""
    b: str = ""
    slots: dict[str, str] = field(default_factory=dict)
    """What else stands in the question."""
    wrong: tuple[tuple[str, ...], ...] = ()
    """What the other choices are made of, the likeliest first; empty: it is asked without choices."""
    gold: tuple[int, ...] = ()
    """Events that must be heard."""


class View:
    """A record as the makers see it."""

    def __init__(self, record: Record, rng: np.random.Generator) -> None:
        """Sort what is heard; speech and music are asked about elsewhere."""
        self.record, self.rng = record, rng
        self.events = [e for e in record.events if e.label in sounds() and e.label not in NO_SOUND]
        counts = Counter(e.label for e in self.events)
        self.keys = list(dict.fromkeys(e.label for e in self.events))
        self.once = [i for i, e in enumerate(self.events) if counts[e.label] == 1]
        self.ordered = all(
            b.onset - a.onset >= APART for a, b in zip(self.events, self.events[1:], strict=False)
        )

    def pick(self, items: Sequence[int]) -> int | None:
        """One of the items, or None where there is none."""
        return items[int(self.rng.integers(len(items)))] if items else None

    def at(self, i: int) -> str:
        """An event as the steps name it: ``dog 12``."""
        return f"{self.name(i)} {second(self.events[i].onset)}"

    def span(self, i: int) -> str:
        """An event with its end: ``dog 12-15``."""
        return f"{self.name(i)} {second(self.events[i].onset)}-{second(self.events[i].offset)}"

    def length(self, i: int) -> int:
        """Seconds that an event lasts, as its line says."""
        return heard(self.events[i]).seconds

    def name(self, i: int) -> str:
        """Plain name of an event."""
        return sounds()[self.events[i].label].plain

    def absent(self, size: int, near: Sequence[str] = ()) -> list[str]:
        """Keys of sounds that are not heard, are akin to none that is, and not to each other."""
        chosen: list[str] = []
        pool = [key for key in self.record.labels if key in sounds() and key not in NO_SOUND]
        if not self.record.complete:
            return []
        for i in self.rng.permutation(len(pool))[:60]:
            key = pool[int(i)]
            if len(chosen) == size:
                break
            if not any(kin(key, other) for other in (*self.keys, *chosen, *near)):
                chosen.append(key)
        return chosen

    def others(self, keys: Sequence[str], size: int = 3) -> tuple[tuple[str, ...], ...]:
        """Wrong choices: what else is heard, then what is not."""
        heard = [key for key in self.keys if not any(kin(key, other) for other in keys)]
        heard = [heard[int(i)] for i in self.rng.permutation(len(heard))][
            : size - int(self.rng.random() < 0.4)
        ]
        return tuple((key,) for key in (*heard, *self.absent(size - len(heard), keys)))


Maker = Callable[[View], Idea | None]


def coin(view: View) -> bool:
    """True in half of the cases."""
    return bool(view.rng.random() < 0.5)


def two_once(view: View) -> tuple[int, int] | None:
    """Two sounds that are heard once, the earlier one first."""
    pairs = [
        (i, j)
        for i, j in combinations(view.once, 2)
        if view.events[j].onset - view.events[i].onset >= APART
        and not kin(view.events[i].label, view.events[j].label)
    ]
    return pairs[int(view.rng.integers(len(pairs)))] if pairs else None


def named(view: View, i: int, j: int) -> tuple[str, str]:
    """Their keys, in either order."""
    pair = (view.events[i].label, view.events[j].label)
    return pair if coin(view) else (pair[1], pair[0])


def numbers_near(view: View, right: int, least: int = 1) -> tuple[tuple[str, ...], ...]:
    """Other numbers near the right one."""
    near = [n for n in range(max(least, right - 3), right + 4) if n != right]
    return tuple((str(near[int(i)]),) for i in view.rng.permutation(len(near))[:3])
