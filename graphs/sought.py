"""What a question looks for in a long recording, read from its words and its choices.

It names sounds that listens can tell (:class:`~echo_agent.families.base.Note`); those in the question itself come
before those in the choices, of which but one is right. A name counts by how much likelier it is in a stretch than is
usual in the recording. It may ask for what is said after such a sound or before it: then a voice is looked for there.
And its choices may be times of the recording: then the sound is in one of few places. Nothing here reads audio.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from echo_agent.families.base import Note

SPOKEN = re.compile(r"\b(said|says?|saying|speaks?|speaking|spoken|talks?|talking|words?|digits?|numbers?)\b")
"""Words of a question that ask for speech."""
VOICES = ("voice", "speech")
"""Names that speech goes by in listens."""
_AFTER = r"\b(?:after|following|follows?|behind|since)\b"
_BEFORE = r"\b(?:before|precedes?|preceding|ahead of|until)\b"


@dataclass(frozen=True)
class Sought:
    """What a question looks for."""

    names: tuple[str, ...] = ()
    """Sounds, any of which tells; none where nothing that listens can tell is named."""
    side: int = 0
    """1 where what is said after the sound is asked for, -1 for what is said before it, 0 for neither."""
    times: tuple[float, ...] = ()
    """Seconds of the recording at one of which the sound is heard; none where that is not known."""
    usual: Mapping[str, float] = field(default_factory=dict)
    """How likely each name is in a token of the first listens, as a median."""

    @classmethod
    def of(
        cls, first: Sequence[Note], question: str, choices: Sequence[str] | None, times: Sequence[float] = ()
    ) -> Sought:
        """Read a question.

        Args:
            first: What the first listens told.
            question: The question.
            choices: Its choices.
            times: Those of the choices, where they are seconds of the recording.
        """
        names = dict.fromkeys(name for note in first for name in note.sounds)
        usual = {name: median(note.sounds.get(name, 0.0) for note in first) for name in names}
        named = named_in(question, usual) or named_in(" | ".join(choices or ()), usual)
        return cls(tuple(named), side_of(question, named), tuple(times) if named else (), usual)

    def likely(self, note: Note) -> float:
        """How much a token tells of what is looked for, 0 to 1, against what is usual."""
        if self.names:
            return max(note.sounds.get(name, 0.0) - self.usual.get(name, 0.0) for name in self.names)
        return math.tanh(
            sum(max(0.0, there - self.usual.get(name, 0.0)) for name, there in note.sounds.items())
        )

    def sure(self, note: Note) -> float:
        """The same of a token of a stretch that was heard by itself."""
        if not self.names:
            return self.likely(note)
        return max(note.sounds.get(name, 0.0) for name in self.names)

    def apart(self, note: Note) -> float:
        """The same where each of a few places holds one sound or another: what else it may be counts against it."""
        other = max((there for name, there in note.sounds.items() if name not in self.names), default=0.0)
        return self.sure(note) * (1.0 - other / 2)


def voiced(note: Note) -> float:
    """How likely it is that somebody speaks in a token."""
    return max((note.sounds.get(name, 0.0) for name in VOICES), default=0.0)


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


def side_of(question: str, named: Sequence[str]) -> int:
    """Whether a question asks for what is said after (1) or before (-1) one of the sounds, or neither (0)."""
    text = question.casefold()
    sounds = "|".join(re.escape(name.casefold()) for name in named if name not in VOICES)
    if not sounds or not SPOKEN.search(text):
        return 0
    for side, word in ((1, _AFTER), (-1, _BEFORE)):
        if re.search(rf"{word}(?: (?:the|an?|this|that))? (?:{sounds})\b", text):
            return side
    return 0
