"""Times on the clock of a window, which begins at 0 where a search ended, and on that of the recording it lies in.

A policy that is asked about a window tells times of the window. Where the choices of a question are times of the
recording, as seconds ("1800 s") or as parts of it ("the last third"), the policy is held to the whole seconds of its
window, and its second becomes the choice that it lies in or is nearest to. Times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from echo_agent.audio.recording import AudioRef
from echo_agent.question_forms import answer_kind

WHEN = "When is it heard?"
"""A question for a time."""
_SECONDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:s|sec|secs|seconds?)\s*", re.IGNORECASE)
_PART = re.compile(
    r"\s*(?:in )?(?:the )?(first|middle|second|third|fourth|last) (half|third|quarter)\s*", re.IGNORECASE
)
_LENGTH = re.compile(r"\b(how long|how much (?:more )?time|length|duration|lasts|pause|gap)\b", re.IGNORECASE)
"""Words of a question that ask how long something is."""
_HOW_MANY = {"half": 2, "third": 3, "quarter": 4}
_WHICH = {"first": 0, "middle": 1, "second": 1, "third": 2, "fourth": 3, "last": -1}


class Clock(NamedTuple):
    """How the policy's seconds lie on the recording."""

    origin: float
    """Second at which its clock begins."""
    pace: float
    """Seconds that pass in one of its seconds."""

    def on_recording(self, time: float) -> float:
        """A time of the policy's, on the recording."""
        return self.origin + self.pace * time


class Moment(NamedTuple):
    """A stretch of a recording that a choice names; a second has no length."""

    start: float
    end: float

    def away(self, time: float) -> float:
        """Seconds between it and a time; 0 where the time lies in it."""
        return max(0.0, self.start - time, time - self.end)


def second_of(text: str) -> float | None:
    """The time that a text is (``1800 s``), or None."""
    found = _SECONDS.fullmatch(text)
    return None if found is None else float(found[1])


def moments(choices: Sequence[str] | None, duration: float) -> list[Moment] | None:
    """What choices name of a recording of this length, where all of them are seconds or parts of it; else None."""
    found = [_moment(choice, duration) for choice in choices or ()]
    return [one for one in found if one is not None] if found and None not in found else None


def _moment(choice: str, duration: float) -> Moment | None:
    second = second_of(choice)
    if second is not None:
        return Moment(second, second)
    part = _PART.fullmatch(choice)
    if part is None:
        return None
    count, number = _HOW_MANY[part[2].lower()], _WHICH[part[1].lower()]
    number = count - 1 if number < 0 else number
    return Moment(number * duration / count, (number + 1) * duration / count) if number < count else None


def asked_times(
    question: str, choices: Sequence[str] | None, ref: AudioRef, longest: float
) -> list[Moment] | None:
    """What choices name of a recording, where its times are asked for and not a length; else None.

    Args:
        question: The question.
        choices: Its choices.
        ref: The recording.
        longest: Where the words of the question do not tell, choices are times if one lies beyond this.
    """
    found = moments(choices, ref.duration)
    if found is None or _LENGTH.search(question):
        return None
    seconds = all(one.start == one.end for one in found)
    told = not seconds or answer_kind(question) == "time"
    return found if told or max(one.start for one in found) > longest else None
