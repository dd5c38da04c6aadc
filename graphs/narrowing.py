"""Where to listen next in a recording of hours: from what a listen says of every stretch, to the stretch that matters.

A listen has the same few tokens whatever its span, so one to a whole hour says little of each minute of it, but it says
something of every minute. The search takes the stretch that tells most of what is looked for
(:class:`~echo_agent.graphs.sought.Sought`), hears it by itself, with as many tokens as the hour had, and goes on from
there: with every listen, a second has many times more tokens. A stretch that turns out not to hold what it promised is
left for the next best one, as long as the budget lasts.

- Where the answer is one of a few times, the search goes to each of them.
- Where what is said next to a sound is asked for, the search goes from the sound to the nearest voice on that side, and
  ends in a window that is just long enough for both, or for the voice where it is far away.

Nothing here reads audio: hearing is a function that is handed in. Times are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from echo_agent.families.base import Note
from echo_agent.graphs.sought import Sought, voiced

LOOKS = 4
"""Most listens that narrow, if the budget of re-listens allows for so many."""
CLOSE = 120.0
"""Seconds of a stretch from which on it is not narrowed any more: the policy itself points at places in it."""
LEAST = 30.0
"""Seconds of the shortest stretch that is heard by itself."""
MARGIN = 8.0
"""Seconds that are heard on either side of what a token stands for: no sound is cut, and what is next to it tells."""
BESIDE = 24.0
"""Seconds that are heard on the side on which something is said."""
HOPELESS = 0.5
"""A stretch that promises less than this share of what was found in another is not listened to."""
VOICED = 0.5
"""From this likelihood on, somebody speaks in a token."""
AROUND = (8.0, 12.0)
"""Seconds that are heard before and after a time that may be the answer."""
AHEAD, BEHIND = 1.0, 4.0
"""Seconds before and after such a time in which the sound is expected."""
SILENT = 0.5
"""What a sound counts for next to which nobody speaks, where somebody should."""
HEM = 4.0
"""Seconds on either side of a token in which somebody speaks."""
LEAD, TAIL = 2.0, 3.0
"""Seconds that a window has before and after what is said, and before or after the sound next to it."""
NARROW = 40.0
"""Seconds of the longest window in which a sound and what is said next to it are asked about together."""

Hear = Callable[[float, float], list[Note]]
"""Listens to a stretch of the recording, and says what each token of it tells, at seconds on the recording."""


@dataclass
class Narrowed:
    """How a search went."""

    window: tuple[float, float] | None = None
    """The stretch to ask about; None where it was not narrowed at all."""
    heard: list[tuple[float, float]] = field(default_factory=list)
    """What was listened to after the first listens, in order."""


@dataclass(frozen=True)
class _Place:
    """A stretch that may hold what is looked for."""

    start: float
    end: float
    score: float


@dataclass(frozen=True)
class _Find:
    """What a stretch turned out to hold."""

    place: _Place
    """The stretch, with how sure it is that it holds what is looked for."""
    notes: list[Note]
    """What it told, token by token."""
    at: int
    """Which token tells most."""


def narrow(
    duration: float,
    first: Sequence[Note],
    hear: Hear,
    sought: Sought,
    looks: int,
    seconds: float = math.inf,
    longest: float = math.inf,
) -> Narrowed:
    """Find the stretch that a question is best asked of.

    Args:
        duration: Of the recording.
        first: What the first listens told, which cover all of it.
        hear: Listens to a stretch of whole seconds.
        sought: What is looked for.
        looks: How often ``hear`` may be called.
        seconds: How much it may listen to in all.
        longest: Seconds that it may listen to at once.
    """
    search = _Narrowing(duration, first, hear, sought, looks, seconds, longest)
    if sought.times:
        search.among_times()
    elif sought.side:
        search.beside()
    else:
        search.down()
    return search.found


class _Narrowing:
    """One search."""

    def __init__(
        self,
        duration: float,
        first: Sequence[Note],
        hear: Hear,
        sought: Sought,
        looks: int,
        seconds: float,
        longest: float,
    ) -> None:
        self.found = Narrowed()
        self._duration, self._first, self._sought = duration, first, sought
        self._hear, self._looks, self._seconds, self._longest = hear, looks, seconds, longest

    def down(self) -> None:
        """Go to the sound that is looked for, and ask about the stretch in which it was heard."""
        best, left = self._best(self._looks)
        if best is not None:
            self.found.window = (best.place.start, best.place.end)
        elif self.found.heard:  # the budget ended on the way down: the best stretch of the last listen
            self.found.window = (left[0].start, left[0].end) if left else self.found.heard[-1]

    def among_times(self) -> None:
        """Go to each of the times that the answer is among, and ask about the stretch around the best."""
        times, best = self._sought.times, None
        told = [max(map(self._sought.likely, _over(self._first, time, time))) for time in times]
        for time, _ in sorted(zip(times, told, strict=True), key=lambda one: -one[1]):
            start = float(math.floor(max(0.0, time - AROUND[0])))
            end = min(self._duration, float(math.ceil(time + AROUND[1])))
            if self._may_hear(start, end):
                notes = _over(self._listen(start, end), time - AHEAD, time + BEHIND)
                place = _Place(start, end, max(map(self._sought.apart, notes)))
                best = place if best is None or place.score > best.score else best
        if best is not None:
            self.found.window = (best.start, best.end)

    def beside(self) -> None:
        """Go to the sound, from there to the nearest voice on the side that is asked about, and ask about that."""
        best, _ = self._best(self._looks - 1)  # one is left for the window
        if best is None:
            return self.down()
        self.found.window = (best.place.start, best.place.end)
        sound, side = best.notes[best.at], self._sought.side
        said = self._said(best.notes, sound)
        edge = best.place.end if side > 0 else best.place.start
        beyond = [note for note in self._first if side * ((note.start + note.end) / 2 - edge) > 0]
        for note in sorted(beyond, key=lambda one: side * one.start):
            start, end = self._around(note.start - HEM, note.end + HEM)
            if said is None and self._looks > 1 and voiced(note) >= VOICED and self._may_hear(start, end):
                said = self._said(self._listen(start, end), sound)
        if said is None:
            return
        start, end = min(said[0], sound.start) - LEAD, max(said[1], sound.end) + TAIL
        if end - start > NARROW:
            start, end = said[0] - LEAD, said[1] + TAIL
        start, end = float(math.floor(max(0.0, start))), min(self._duration, float(math.ceil(end)))
        if self._may_hear(start, end):
            self._listen(start, end)
            self.found.window = (start, end)

    # --- steps ----------------------------------------------------------------------------------------------------

    def _best(self, looks: int) -> tuple[_Find | None, list[_Place]]:
        """Hear the stretches that promise most; the best of those that need no narrowing, and what was not heard."""
        best: _Find | None = None
        places, kept = self._places(self._first), self._looks - looks
        while places and self._looks > kept:
            place = places.pop(0)
            if best is not None and place.score < HOPELESS * best.place.score:
                break
            if _is_known(place, self.found.heard) or not self._may_hear(place.start, place.end):
                continue
            notes = self._listen(place.start, place.end)
            if place.end - place.start > CLOSE:
                places = sorted([*self._places(notes)[:3], *places], key=lambda one: -one.score)
                continue
            find = self._find(place, notes)
            best = find if best is None or find.place.score > best.place.score else best
        return best, places

    def _find(self, place: _Place, notes: list[Note]) -> _Find:
        """What a stretch turned out to hold; where somebody should speak next to it, that tells too."""
        scores = [self._sought.sure(note) for note in notes]
        if self._sought.side:
            scores = [
                score if self._speaks_next(notes, at) else SILENT * score for at, score in enumerate(scores)
            ]
        at = max(range(len(notes)), key=lambda i: scores[i])
        return _Find(_Place(place.start, place.end, scores[at]), notes, at)

    def _speaks_next(self, notes: Sequence[Note], at: int) -> bool:
        """Whether what is heard next to a token, on the side that is asked about, is a voice."""
        side, other = self._sought.side, [name for name in notes[at].sounds if name not in self._sought.names]
        for i in range(at, len(notes) if side > 0 else -1, side):
            if voiced(notes[i]) >= VOICED:
                return True
            if abs(i - at) > 1 and max((notes[i].sounds[name] for name in other), default=0.0) >= VOICED:
                return False
        return False

    def _said(self, notes: Sequence[Note], sound: Note) -> tuple[float, float] | None:
        """The nearest stretch in which somebody speaks, on the side of the sound that is asked about."""
        side = self._sought.side
        run: list[Note] = []
        for note in notes if side > 0 else reversed(notes):
            if side * (note.start - sound.start) >= 0 and voiced(note) >= VOICED:
                run.append(note)
            elif run:
                break
        return (min(note.start for note in run), max(note.end for note in run)) if run else None

    def _may_hear(self, start: float, end: float) -> bool:
        """Whether the budget allows for a listen to a stretch."""
        return self._looks > 0 and 0 < end - start <= self._seconds

    def _listen(self, start: float, end: float) -> list[Note]:
        """Hear a stretch."""
        self._looks -= 1
        self._seconds -= end - start
        self.found.heard.append((start, end))
        return self._hear(start, end)

    def _places(self, notes: Sequence[Note]) -> list[_Place]:
        """The stretches around tokens, the most telling first."""
        likely, side = self._sought.likely, self._sought.side
        before, after = (MARGIN, BESIDE)[:: side or 1] if side else (MARGIN, MARGIN)
        ranked = sorted(notes, key=lambda note: (-likely(note), note.start))
        return [_Place(*self._around(note.start - before, note.end + after), likely(note)) for note in ranked]

    def _around(self, start: float, end: float) -> tuple[float, float]:
        """A stretch of whole seconds, long enough to be heard by itself, which may end with the recording."""
        most = self._duration if math.isinf(self._longest) else min(self._duration, math.floor(self._longest))
        wide = math.ceil(min(max(end - start, LEAST), most))
        first = math.floor(max(0.0, min((start + end - wide) / 2, self._duration - wide)))
        return float(first), min(self._duration, float(first + wide))


def _over(notes: Sequence[Note], start: float, end: float) -> list[Note]:
    """The tokens that stand for a stretch; the last one where it lies beyond them."""
    return [note for note in notes if note.start <= end and start <= note.end] or [notes[-1]]


def _is_known(place: _Place, heard: Sequence[tuple[float, float]]) -> bool:
    """Whether most of a stretch was heard by itself, or in one that is close enough."""
    return any(
        end - start <= max(CLOSE, place.end - place.start)
        and min(place.end, end) - max(place.start, start) > 0.6 * (place.end - place.start)
        for start, end in heard
    )
