"""What is heard in a listen, written in the decoder's own words, in no more tokens than the listen has.

A line for each event, in order: ``12-15 church bell 3s x3 loud`` (seconds in the recording, its name, how long it
lasts, strokes, loudness where it stands out). Where many events must share a listen's tokens each is told more briefly:
``12-15 church bell``, then ``12 church bell``; where even that is too much the least certain are left out, and dots at
the end say so. So a listen has a constant price, and detail is bought by listening to less.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOUD, SOFT = -14.0, -30.0
"""dB re full scale from which a sound is called loud, and below which soft."""
VOICE = "voice"
"""What the ears call speech."""
NOTHING = "nothing"
"""The note of a listen in which nothing is heard."""
MORE = "..."
"""The last line of a note in which events are left out."""
DETAILS = 3
"""Ways of telling an event, from all that is known to its name and onset."""


@dataclass(frozen=True)
class Heard:
    """One event as the ears hear it; times are seconds in the recording."""

    name: str
    onset: float
    offset: float
    hits: int = 1
    """Strokes, for sounds that come in strokes."""
    level_db: float | None = None
    """How loud it is, in dB re full scale, where that is known."""
    score: float = 1.0
    """How certain the ears are, 0 to 1."""

    @property
    def seconds(self) -> int:
        """How long it lasts, as its whole seconds tell."""
        return second(self.offset) - second(self.onset)


def second(time: float) -> int:
    """The whole second in which something begins: how times are written everywhere."""
    return int(time)


def told(event: Heard, detail: int = DETAILS) -> str:
    """The line of an event; ``detail`` is 3 for everything, 2 for span and name, 1 for onset and name."""
    if detail == 1:
        return f"{second(event.onset)} {event.name}"
    line = f"{second(event.onset)}-{second(event.offset)} {event.name}"
    if detail == 2:
        return line
    line += f" {event.seconds}s"
    if event.hits > 1:
        line += f" x{event.hits}"
    if event.level_db is not None:
        line += " loud" if event.level_db > LOUD else " soft" if event.level_db < SOFT else ""
    return line


_TOLD = re.compile(r"(\d+)(?:-(\d+))? (.+?)(?: \d+s(?: x(\d+))?(?: (loud|soft))?)?")
_LEVELS = {"loud": LOUD + 1.0, "soft": SOFT - 1.0}


def read(note: str) -> list[Heard]:
    """The events that a note tells, with whole seconds; what is said, and what is no line of a note, is left out.

    Strokes and loudness are as they are told: once, and at no level, where nothing is told of them.
    """
    found = (_TOLD.fullmatch(line.strip()) for line in note.splitlines())
    return [
        Heard(
            line[3],
            float(line[1]),
            max(float(line[2] or line[1]), float(line[1]) + 1.0),
            int(line[4] or 1),
            _LEVELS.get(line[5]),
        )
        for line in found
        if line is not None
    ]


def detail_of(events: Sequence[Heard], tokens: int, count: Callable[[str], int]) -> int:
    """The most that so many tokens can tell of each event; 0 where they cannot tell all, arguments as for `note`."""
    for detail in range(DETAILS, 0, -1):
        if count("\n".join(told(event, detail) for event in events)) <= tokens:
            return detail
    return 0


def note(events: Sequence[Heard], tokens: int, count: Callable[[str], int]) -> str:
    """What a listen says of its events, which are in order of onset.

    Args:
        events: What the ears hear.
        tokens: Most tokens that it may take.
        count: How many tokens a text is.
    """
    if not events:
        return NOTHING
    if detail := detail_of(events, tokens, count):
        return "\n".join(told(event, detail) for event in events)
    kept = list(events)
    while kept:
        kept.remove(min(kept, key=lambda event: event.score))
        text = "\n".join([*(told(event, 1) for event in kept), MORE])
        if count(text) <= tokens:
            return text
    return MORE
