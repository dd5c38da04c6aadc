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
from echo_agent.graphs.sought import VOICES, Sought, voiced

LOOKS = 5
"""Most listens that narrow, if the budget of re-listens allows for so many."""
CLOSE = 160.0
"""Seconds of a stretch from which on it is not narrowed any more: the policy itself points at places in it."""
WITHIN = 3
"""Places in a stretch that is still too wide that the search goes on with."""
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
NARROW = 20.0
"""Seconds of the longest window in which a sound and what is said next to it are asked about together: what is said is
understood in it without another listen."""
CERTAIN = 0.9
"""A policy that is so sure of its answer in a window is not asked about another."""

Hear = Callable[[float, float], list[Note]]
"""Listens to a stretch of the recording, and says what each token of it tells, at seconds on the recording."""
Sure = Callable[[float, float], float]
"""How sure the policy is of its answer, 0 to 1, if it is asked about a stretch."""


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
    spoken: bool
    """Whether somebody speaks next to it, on the side that is asked about."""

    @property
    def sound(self) -> Note:
        """The token that tells most."""
        return self.notes[self.at]

    @property
    def stretch(self) -> tuple[float, float]:
        """Where the stretch is."""
        return self.place.start, self.place.end


def narrow(
    duration: float,
    first: Sequence[Note],
    hear: Hear,
    sought: Sought,
    looks: int,
    seconds: float = math.inf,
    longest: float = math.inf,
    sure: Sure | None = None,
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
        sure: Asks the policy about a stretch that was heard, where its answer can tell whether it is the right one.
    """
    search = _Narrowing(duration, first, hear, sought, looks, seconds, longest, sure)
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
        sure: Sure | None,
    ) -> None:
        self.found = Narrowed()
        self._duration, self._first, self._sought = duration, first, sought
        self._hear, self._looks, self._seconds, self._longest = hear, looks, seconds, longest
        self._sure = sure
        self._surest, self._certain = -1.0, False

    def down(self) -> None:
        """Go to the sound that is looked for, and ask about the stretch in which it was heard."""
        best, left = self._best()
        if best is not None:
            self.found.window = best.stretch
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
        """Go to the sound, from there to the nearest voice on the side that is asked about, and ask about that.

        Where the policy is not sure of its answer there, the next place is tried. Two listens are kept for the case
        that nobody speaks near any place: one to the voice that is nearest to the best of them, and one to the window.
        """
        ready: list[_Find] = []
        silent: list[_Find] = []
        best, places = 0.0, self._places(self._first)
        while places and self._looks > (2 if silent and not ready else 1) and not self._certain:
            place = places.pop(0)
            if place.score < HOPELESS * best:
                break
            find = self._look(place, places)
            if find is None:
                continue
            best = max(best, find.place.score)
            (ready if find.spoken else silent).append(find)
            if ready and self._sure is not None and self._looks != 2:  # two are one more place and a window
                self._try(ready.pop())
                best = 0.0  # if that was not it, others that promise less may be
        left = sorted([*ready, *silent], key=lambda one: -one.place.score)
        for find in left:
            if self._looks > 0 and not self._certain:
                self._try(find)
        if self.found.window is None and self.found.heard:
            self.found.window = left[0].stretch if left else self.found.heard[-1]

    def _try(self, find: _Find) -> None:
        """Hear the window of a sound and what is said next to it, and take it if the policy is surer of no other."""
        sound, said = find.sound, self._said(find.notes, find.sound) or self._said_far(find)
        if said is None:
            return
        start, end = min(said[0], sound.start) - LEAD, max(said[1], sound.end) + TAIL
        if end - start > NARROW:
            start, end = said[0] - LEAD, said[1] + TAIL
        start, end = float(math.floor(max(0.0, start))), min(self._duration, float(math.ceil(end)))
        if not self._may_hear(start, end):
            return
        self._listen(start, end)
        sure = 1.0 if self._sure is None else self._sure(start, end)
        self._certain = sure >= CERTAIN
        if sure * find.place.score > self._surest:
            self._surest, self.found.window = sure * find.place.score, (start, end)

    def _said_far(self, find: _Find) -> tuple[float, float] | None:
        """What is said next, where that is beyond the stretch in which a sound was heard."""
        side = self._sought.side
        edge = find.place.end if side > 0 else find.place.start
        beyond = [note for note in self._first if side * ((note.start + note.end) / 2 - edge) > 0]
        for note in sorted(beyond, key=lambda one: side * one.start):
            start, end = self._around(note.start - HEM, note.end + HEM)
            if voiced(note) >= VOICED and self._looks > 1 and self._may_hear(start, end):
                said = self._said(self._listen(start, end), find.sound)
                if said is not None:
                    return said
        return None

    # --- steps ----------------------------------------------------------------------------------------------------

    def _best(self) -> tuple[_Find | None, list[_Place]]:
        """Hear the stretches that promise most; the best of those that need no narrowing, and what was not heard."""
        best: _Find | None = None
        places = self._places(self._first)
        while places and self._looks > 0:
            place = places.pop(0)
            if best is not None and place.score < HOPELESS * best.place.score:
                break
            find = self._look(place, places)
            if find is not None and (best is None or find.place.score > best.place.score):
                best = find
        return best, places

    def _look(self, place: _Place, places: list[_Place]) -> _Find | None:
        """Hear a stretch, if it may be and was not; what was found.

        Of one that is still too wide, what promises most in it is put among the other ``places``.
        """
        if _is_known(place, self.found.heard) or not self._may_hear(place.start, place.end):
            return None
        notes = self._listen(place.start, place.end)
        if place.end - place.start <= CLOSE:
            return self._find(place, notes)
        places[:] = sorted([*self._places(notes)[:WITHIN], *places], key=lambda one: -one.score)
        return None

    def _find(self, place: _Place, notes: list[Note]) -> _Find:
        """What a stretch turned out to hold; where somebody should speak next to it, that tells too."""
        scores = [self._sought.sure(note) for note in notes]
        spoken = [False] * len(notes)
        if self._sought.side:
            spoken = self._spoken_next(notes)
            scores = [
                score if next_to else SILENT * score for score, next_to in zip(scores, spoken, strict=True)
            ]
        at = max(range(len(notes)), key=lambda i: scores[i])
        return _Find(_Place(place.start, place.end, scores[at]), notes, at, spoken[at])

    def _spoken_next(self, notes: Sequence[Note]) -> list[bool]:
        """Of each token whether what is heard next, on the side that is asked about, is a voice."""
        side, named = self._sought.side, {*self._sought.names, *VOICES}
        voices = [voiced(note) >= VOICED for note in notes]
        others = [
            max((there for name, there in note.sounds.items() if name not in named), default=0.0) >= VOICED
            for note in notes
        ]

        def spoken(at: int) -> bool:
            for i in range(at, len(notes) if side > 0 else -1, side):
                if voices[i]:
                    return True
                if abs(i - at) > 1 and others[i]:  # a sound lasts for a token or two
                    return False
            return False

        return [spoken(at) for at in range(len(notes))]

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
