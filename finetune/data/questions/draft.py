"""Drafts: a question before it is worded, and what its makers may know about a recording.

A maker looks at a :class:`Scope` and returns a :class:`Draft`, or None where the recording offers no question of its
kind that has exactly one right answer. It is sparing: sounds that begin close to each other have no order, labels that
say nearly the same are never choices of one question, and where a source did not mark everything, nothing is asked that
depends on there being no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from echo_agent.finetune.data.questions.balance import Balance
from echo_agent.finetune.data.records import Event, Record

APART = 0.4
"""Seconds by which two onsets must differ to have an order."""
KIN = (
    {"bell", "telephone", "beep"}, {"airplane", "helicopter", "car", "engine"}, {"water", "splash", "bubbles", "rain"},
    {"harp", "guitar"}, {"cymbal", "sword"}, {"scream", "laughter", "crowd", "clapping"},
    {"drum", "gunshot", "thunder"}, {"wolf", "dog"}, {"saw", "chopping"},
)  # fmt: skip
"""Labels that one sound may well go by: where one is heard, it is not asked whether the other is missing."""

VOICE = "voice"
"""Label of whatever is spoken."""


@dataclass(frozen=True)
class Look:
    """One step of the reasoning: an event that is found, and what is to be heard there."""

    event: int
    heard: str = ""
    """What a closer listen tells; empty where it is enough to find it."""


@dataclass(frozen=True)
class Draft:
    """A question before it is worded."""

    kind: str
    """``category/variant``, as in the file of wordings."""
    slots: dict[str, str]
    answer: str
    choices: tuple[str, ...] | None
    looks: tuple[Look, ...]
    """What leads to the answer, in the order in which it is looked for."""
    gold: tuple[int, ...] = ()
    """Events that must be heard; those of the looks where empty."""
    answers: tuple[str, ...] = ()
    """Other spellings of an open question's answer."""
    absent: tuple[str, ...] = ()
    """Labels that are found nowhere on the way."""

    @property
    def category(self) -> str:
        """The category of the question."""
        return self.kind.partition("/")[0]


def akin(a: str, b: str) -> bool:
    """Whether two labels may well name the same sound."""
    if a == b or any(a in kin and b in kin for kin in KIN):
        return True
    first, second = ({word for word in label.split() if len(word) > 2} for label in (a, b))
    return bool(first & second) or a in b or b in a


@dataclass(frozen=True)
class About:
    """What the records of a set have in them, all together."""

    words: tuple[str, ...] = ()
    """Words that are spoken: what wrong choices are made of."""
    instruments: tuple[str, ...] = ()
    """What notes are played on."""
    both_genders: bool = False
    """Whether women and men speak."""
    lengths: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Median length of the sounds of each label and kind, s."""
    levels: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Median level of the sounds of each label and kind, dB."""

    @classmethod
    def of(cls, records: Iterable[Record]) -> About:
        """Look through all events."""
        words: set[str] = set()
        instruments: set[str] = set()
        genders: set[str] = set()
        lengths: dict[tuple[str, str], list[float]] = {}
        levels: dict[tuple[str, str], list[float]] = {}
        for event in (event for record in records for event in record.events):
            lengths.setdefault((event.label, event.kind), []).append(event.offset - event.onset)
            if event.level_db is not None:
                levels.setdefault((event.label, event.kind), []).append(event.level_db)
            words.update(event.content if event.kind == "words" else ())
            instruments.update((event.label,) if event.kind == "notes" else ())
            genders.add(event.gender)
        return cls(
            tuple(sorted(words)),
            tuple(sorted(instruments)),
            {"woman", "man"} <= genders,
            {key: float(np.median(values)) for key, values in lengths.items()},
            {key: float(np.median(values)) for key, values in levels.items()},
        )


@dataclass
class Scope:
    """A recording as the makers of questions see it."""

    record: Record
    rng: np.random.Generator
    balance: Balance
    open_share: float = 0.25
    """Share of questions without choices, in the categories that allow it."""
    about: About = About()
    """What the set that the recording belongs to can say."""
    voices: bool = False
    """Whether a voice, whoever's, may be the answer to what is next to a sound or between two."""
    events: tuple[Event, ...] = field(init=False)
    once: list[int] = field(init=False)
    """Sounds whose label occurs once, voices apart."""

    def __post_init__(self) -> None:
        """Count the labels."""
        self.events = self.record.events
        counts = Counter(event.label for event in self.events)
        self.once = [i for i, e in enumerate(self.events) if counts[e.label] == 1 and self.is_sound(i)]

    # --- events -------------------------------------------------------------------------------------------------

    def is_sound(self, i: int) -> bool:
        """Whether event ``i`` is no spoken phrase, chord or beat."""
        return self.events[i].kind in ("sound", "burst", "notes") and self.events[i].label != VOICE

    def found(self, i: int) -> bool:
        """Whether event ``i`` may be found by its place: a sound that occurs once, or a voice where wanted."""
        return i in self.once or (self.voices and self.label(i) == VOICE)

    def elsewhere(self, near: Sequence[int]) -> list[str]:
        """Labels of all that may be found by its place and is not one of the events ``near``."""
        return list(
            dict.fromkeys(self.label(i) for i in range(len(self.events)) if i not in near and self.found(i))
        )

    def label(self, i: int) -> str:
        """Label of event ``i``."""
        return self.events[i].label

    def clear(self, i: int) -> bool:
        """Whether event ``i`` begins well apart from its neighbours, so that it has a place in the order."""
        events = self.events
        before = i == 0 or events[i].onset - events[i - 1].onset >= APART
        return before and (i + 1 == len(events) or events[i + 1].onset - events[i].onset >= APART)

    def usual(self, table: Mapping[tuple[str, str], float], i: int) -> float:
        """What is usual of sounds like event ``i``, by one of the tables of :class:`About`."""
        return table[self.events[i].label, self.events[i].kind]

    def alone(self, i: int) -> bool:
        """Whether nothing else is heard during event ``i``."""
        event = self.events[i]
        return not any(
            other.onset < event.offset and event.onset < other.offset
            for k, other in enumerate(self.events)
            if k != i
        )

    def follows(self, i: int, j: int) -> bool:
        """Whether ``j`` is heard right after ``i``: next in order, when ``i`` is over."""
        if j != i + 1 or not (self.record.complete and self.clear(i) and self.clear(j)):
            return False
        return self.events[i].offset <= self.events[j].onset + 0.05 and not self._still_heard(i, j)

    def _still_heard(self, i: int, j: int) -> bool:
        """Whether something earlier goes on over the border between two events."""
        return any(event.offset > self.events[j].onset + 0.05 for event in self.events[:i])

    def neighbours(self, i: int) -> list[tuple[str, int]]:
        """Sounds that occur once right next to event ``i``: on which side of each ``i`` is, and its index."""
        places = []
        if i > 0 and i - 1 in self.once and self.follows(i - 1, i):
            places.append(("after", i - 1))
        if i + 1 in self.once and self.follows(i, i + 1):
            places.append(("before", i + 1))
        return places

    # --- labels -------------------------------------------------------------------------------------------------

    def present(self) -> list[str]:
        """Labels of sounds that are heard."""
        return sorted({self.label(i) for i in range(len(self.events)) if self.is_sound(i)})

    def absent(self) -> list[str]:
        """Labels that are known not to be heard, and are akin to none that is."""
        if not self.record.complete:
            return []
        heard = {event.label for event in self.events}
        labels = set(self.record.labels) - {VOICE}
        return sorted(label for label in labels if not any(akin(label, other) for other in heard))

    def distinct(self, labels: Sequence[str], taken: Sequence[str], size: int) -> list[str]:
        """The first ``size`` of the labels that are akin to none of ``taken`` and none of each other."""
        chosen: list[str] = []
        for label in labels:
            if len(chosen) < size and not any(akin(label, other) for other in (*taken, *chosen)):
                chosen.append(label)
        return chosen

    # --- choices ------------------------------------------------------------------------------------------------

    def among(
        self,
        kind: str,
        answer: str,
        pool: Sequence[str],
        named: Sequence[str] = (),
        outside: Sequence[str] | None = None,
    ) -> list[str] | None:
        """Three wrong labels: of the recording (``pool``) first, of those that are absent where need be.

        Those come first that have been right too often in questions of this kind. ``outside`` narrows down what may be
        taken of the absent ones.
        """
        inside = self.distinct(self.balance.overdue(kind, pool, self.rng), [answer, *named], 3)
        if len(inside) == 3:
            return inside
        absent = [label for label in self.absent() if outside is None or label in outside]
        due = self.balance.overdue(kind, absent, self.rng)
        wrong = [*inside, *self.distinct(due, [answer, *named, *inside], 3 - len(inside))]
        return wrong if len(wrong) == 3 else None

    def settle(self, kind: str, answer: str, wrong: Sequence[str]) -> tuple[str, ...]:
        """Note a question whose choices are labels, and lay the choices out."""
        self.balance.decide(kind, answer, wrong)
        return self.balance.place(kind, answer, wrong, self.rng)

    def shuffled(self, items: Sequence[int]) -> list[int]:
        """Indices in random order."""
        return [items[int(i)] for i in self.rng.permutation(len(items))]

    def duel(self, kind: str, pairs: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """Of pairs (winner, loser), one whose winner has not won too often; labels akin do not meet."""
        pairs = [pair for pair in pairs if not akin(self.label(pair[0]), self.label(pair[1]))]
        best = sorted(
            ((self.balance.score(kind, self.label(w)) - self.balance.score(kind, self.label(v)), k)
             for k, (w, v) in enumerate(pairs)),
        )  # fmt: skip
        for _, k in best[:3]:
            winner, loser = pairs[k]
            if self.balance.may_win(kind, self.label(winner), self.label(loser)):
                return winner, loser
        return None

    def versus(self, kind: str, winner: int, loser: int) -> tuple[tuple[str, str], dict[str, str]]:
        """The two choices of a contest, and its slots ``a`` and ``b`` in the same order."""
        a, b = self.settle(kind, self.label(winner), [self.label(loser)])
        return (a, b), {"a": a, "b": b}


Maker = Callable[[Scope], Draft | None]
"""Makes a draft of one kind, or None where the recording offers none."""
