"""Where to listen next in a recording of hours: from what a listen says of every stretch, to the stretch that matters.

A listen has the same few tokens whatever its span, so one to a whole hour says little of each minute of it, but it says
something of every minute. The search takes the stretch that tells most of what the question names, hears it by itself,
with as many tokens as the hour had, and goes on from there: with every listen, a second has many times more tokens. A
stretch that turns out not to hold what it promised is left for the next best one, as long as the budget lasts.

What a question names are the names of sounds that its listens can tell (:class:`~echo_agent.families.base.Note`); those
in the question itself come before those in the choices, of which but one is right. A name counts by how much more
likely it is in a stretch than elsewhere in the recording. Where nothing is named, the stretch is taken that is least
like the others. Nothing here reads audio: hearing is a function that is handed in. Times are seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from echo_agent.families.base import Note

LOOKS = 4
"""Most listens that narrow, if the budget of re-listens allows for so many."""
CLOSE = 120.0
"""Seconds of a stretch from which on it is not narrowed any more: the policy itself points at places in it."""
LEAST = 30.0
"""Seconds of the shortest stretch that is heard by itself."""
MARGIN = 8.0
"""Seconds that are heard on either side of what a token stands for: no sound is cut, and what is next to it tells."""
HOPELESS = 0.5
"""A stretch that promises less than this share of what was found in another is not listened to."""

SPOKEN = re.compile(r"\b(said|says?|saying|speaks?|speaking|spoken|talks?|talking|words?|digits?|numbers?)\b")
"""Words of a question that ask for speech."""
VOICES = ("voice", "speech")
"""Names that speech goes by in listens."""

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


def narrow(
    duration: float,
    first: Sequence[Note],
    hear: Hear,
    score: Callable[[Note], float],
    looks: int,
    seconds: float = math.inf,
    longest: float = math.inf,
) -> Narrowed:
    """Find the stretch that a question is best asked of.

    Args:
        duration: Of the recording.
        first: What the first listens told, which cover all of it.
        hear: Listens to a stretch of whole seconds.
        score: How much a token tells of what is looked for; see :func:`scoring`.
        looks: How often ``hear`` may be called.
        seconds: How much it may listen to in all.
        longest: Seconds that it may listen to at once.
    """
    found = Narrowed()
    places = _places(first, score, duration, longest)
    best: _Place | None = None
    while places and looks > 0:
        place = places.pop(0)
        if best is not None and place.score < HOPELESS * best.score:
            break
        if _is_known(place, found.heard) or place.end - place.start > seconds:
            continue
        notes = hear(place.start, place.end)
        looks -= 1
        seconds -= place.end - place.start
        found.heard.append((place.start, place.end))
        if place.end - place.start > CLOSE:
            places = sorted(
                [*_places(notes, score, duration, longest)[:3], *places], key=lambda one: -one.score
            )
            continue
        certain = max(score(note) for note in notes)
        if best is None or certain > best.score:
            best = _Place(place.start, place.end, certain)
    if best is None and found.heard:  # the budget ended on the way down: the best stretch of the last listen
        best = places[0] if places else _Place(*found.heard[-1], 0.0)
    found.window = None if best is None else (best.start, best.end)
    return found


def scoring(first: Sequence[Note], question: str, choices: Sequence[str] | None) -> Callable[[Note], float]:
    """How much a token tells of what a question is about, 0 to 1, against what is usual in its recording.

    Args:
        first: What the first listens told.
        question: The question.
        choices: Its choices.
    """
    usual: dict[str, float] = {}
    for name in dict.fromkeys(name for note in first for name in note.sounds):
        usual[name] = median(note.sounds.get(name, 0.0) for note in first)
    named = named_in(question, usual) or named_in(" | ".join(choices or ()), usual)

    def likely(note: Note) -> float:
        return max((note.sounds.get(name, 0.0) - usual[name] for name in named), default=0.0)

    def unlike(note: Note) -> float:
        return math.tanh(sum(max(0.0, there - usual.get(name, 0.0)) for name, there in note.sounds.items()))

    return likely if named else unlike


def named_in(text: str, names: Mapping[str, object]) -> list[str]:
    """The names of sounds that stand in a text, in the singular or the plural; voices only where nothing else does.

    Much is said in an hour: what is said after the bell is found by the bell.
    """
    text = text.casefold()
    sounds = [name for name in names if re.search(rf"\b{re.escape(name.casefold())}(?:s|es)?\b", text)]
    found = [name for name in sounds if name not in VOICES]
    if found or not (sounds or SPOKEN.search(text)):
        return found
    return [name for name in names if name in VOICES]


def _places(
    notes: Sequence[Note], score: Callable[[Note], float], duration: float, longest: float
) -> list[_Place]:
    """The stretches around tokens, the most telling first."""
    ranked = sorted(notes, key=lambda note: (-score(note), note.start))
    return [_Place(*_around(note, duration, longest), score(note)) for note in ranked]


def _around(note: Note, duration: float, longest: float) -> tuple[float, float]:
    """A stretch of whole seconds around a token, which may end with the recording."""
    most = duration if math.isinf(longest) else min(duration, math.floor(longest))
    wide = math.ceil(min(max(note.end - note.start + 2 * MARGIN, LEAST), most))
    start = math.floor(max(0.0, min((note.start + note.end - wide) / 2, duration - wide)))
    return float(start), min(duration, float(start + wide))


def _is_known(place: _Place, heard: Sequence[tuple[float, float]]) -> bool:
    """Whether most of a stretch was heard by itself, or in one that is close enough."""
    return any(
        end - start <= max(CLOSE, place.end - place.start)
        and min(place.end, end) - max(place.start, start) > 0.6 * (place.end - place.start)
        for start, end in heard
    )
