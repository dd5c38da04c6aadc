"""What an event list says: the look-ups that the solver makes in it.

Where the events leave room for doubt (two onsets close to each other, levels about the same), there is no result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from echo_agent.finetune.data.records import Event, Record

CLOSE = 0.3
"""Seconds within which the order of two onsets is in doubt."""
Solved = tuple[list[str], list[Event]]
"""The right choices, or the answer of an open question, and the events that must be heard."""


class Doubt(Exception):
    """The events do not settle what is asked."""


class Facts:
    """Look-ups in the event list; raises :class:`Doubt` where they have no single result."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.events = sorted(record.events, key=lambda event: event.onset)

    def all(self, label: str) -> list[Event]:
        """The events of a label."""
        return [event for event in self.events if event.label.lower() == label.lower()]

    def only(self, label: str) -> Event:
        """The one event of a label."""
        found = self.all(label)
        if len(found) != 1:
            raise Doubt(f"{label!r} is heard {len(found)} times")
        return found[0]

    def order(self, events: Sequence[Event]) -> list[Event]:
        """In order of onset."""
        row = sorted(events, key=lambda event: event.onset)
        for one, other in pairwise(row):
            if other.onset - one.onset < CLOSE:
                raise Doubt(f"{one.label!r} and {other.label!r} begin together")
        return row

    def beside(self, event: Event, step: int) -> Event:
        """What begins next, or began last, with nothing going on over the border."""
        place = self.events.index(event) + step
        if not 0 <= place < len(self.events):
            raise Doubt(f"nothing is beside {event.label!r}")
        other = self.events[place]
        if not self.record.complete:
            raise Doubt("not every event is marked")
        self.order(self.events[max(0, place - 1) : place + 2])
        self.order([event, other])
        later = other if step > 0 else event
        for on in self.events[: self.events.index(later)]:
            if on.offset > later.onset + 0.1:
                raise Doubt(f"{on.label!r} is still heard when {later.label!r} begins")
        return other

    def phrase(self, slots: dict[str, str], kinds: Sequence[str]) -> Event:
        """The phrase or melody at a place."""
        if "after" in slots or "before" in slots:
            side = "after" if "after" in slots else "before"
            found = self.beside(self.only(slots[side]), 1 if side == "after" else -1)
        else:
            phrases = [event for event in self.events if event.kind in kinds]
            if len(phrases) != 1:
                raise Doubt(f"{len(phrases)} phrases are in the recording")
            found = phrases[0]
        if found.kind not in kinds:
            raise Doubt(f"there is {found.label!r} at the place, not one of {list(kinds)}")
        return found


Solve = Callable[[Facts, dict[str, str], Sequence[str]], Solved]
"""Solves questions of one kind: facts, slots of the wording, choices."""


def pick(winner: Event, choices: Sequence[str], gold: Sequence[Event]) -> Solved:
    """The choices that name the winner."""
    return [c for c in choices if c.lower() == winner.label.lower()] or [winner.label], list(gold)


def missing(facts: Facts, label: str) -> None:
    """Make sure that a label is known not to be heard."""
    known = {name.lower() for name in facts.record.labels}
    if not facts.record.complete or label.lower() not in known:
        raise Doubt(f"it is not known whether {label!r} is heard")


def versus(
    value: Callable[[Facts, Event], float], clear: Callable[[float, float], bool], gold: str = "sound"
) -> Solve:
    """Which of two has more, by a clear margin."""

    def solve(facts: Facts, slots: dict[str, str], choices: Sequence[str]) -> Solved:
        a, b = facts.only(slots["a"]), facts.only(slots["b"])
        one, other = value(facts, a), value(facts, b)
        if not clear(max(one, other), min(one, other)):
            raise Doubt(f"{a.label!r} and {b.label!r} are too much alike")
        heard = [a, b] if gold == "sound" else [facts.beside(a, 1), facts.beside(b, 1)]
        return pick(a if one > other else b, choices, heard)

    return solve
