"""A run as steps that a person can follow: what was heard, and what the policy wrote once it had heard it.

The steps are read from a trace, so from what really went into the context: under a control, what is shown and played
is what was delivered. Times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from echo_agent.answers import ANSWER, ANSWER_END
from echo_agent.audio.picture import steps as pieces_of
from echo_agent.audio.references import AudioRef
from echo_agent.results import RelistenRecord
from echo_agent.traces import Trace

NO_ROOM = "asked for its answer"
"""What is said where the policy was made to answer."""

_NOT_HEARD = re.compile(r"not heard: [^<>\n\"]+")
_UNIT = r"\s?(?:s|sec|secs|second|seconds)\b"
_TIME = re.compile(
    rf"(?<![\w.:])(?:(\d+):([0-5]\d(?:\.\d+)?)|(\d+(?:\.\d+)?)(?={_UNIT}))(?![\w:]|\.\d)", re.I
)
_BARE = re.compile(r"(?<![\w.:])()()(\d+)(?![\w:]|\.\d)")
"""The time tokens of echo-nano: whole seconds without a unit."""


@dataclass
class Step:
    """One step of a run."""

    heard: AudioRef | None = None
    """What was heard again; None for the first listen, and where nothing was."""
    number: int = 0
    """Number of the re-listen, from 1; 0 where nothing was heard again."""
    record: RelistenRecord | None = None
    """What was asked for."""
    told: str = ""
    """What the policy was told where nothing was heard."""
    text: str = ""
    """What it wrote then, without tags."""

    def is_of(self, recording: AudioRef) -> bool:
        """Whether the recording is what was heard; a control may have given silence in its place."""
        return self.heard is not None and self.heard.sha256 == recording.sha256


def steps_of(trace: Trace) -> list[Step]:
    """The steps of a run; the first is the first listen. There are none where the model was not asked."""
    if trace.result.status == "not_understood":
        return []
    found = [Step()]
    opened = False
    """The answer was opened for the policy."""
    records = trace.result.relistens
    for segment in trace.segments:
        if segment.origin == "sampled":
            text = ANSWER + segment.text if opened else segment.text
            opened = False
            written = " ".join(filter(None, pieces_of(text)))
            found[-1].text = f"{found[-1].text} {written}".strip()
        elif segment.origin == "tool":
            for ref in segment.audio:
                number = 1 + sum(step.number > 0 for step in found)
                record = records[number - 1] if number <= len(records) else None
                found.append(Step(heard=ref, number=number, record=record))
            _, tag, rest = segment.text.rpartition(ANSWER)
            opened = bool(tag) and ANSWER_END not in rest
            if not segment.audio and (why := _NOT_HEARD.search(segment.text)):
                found.append(Step(told=why[0].strip(" )")))
            elif opened:
                found.append(Step(told=NO_ROOM))
    return found


def times_in(text: str, duration: float, *, bare: bool) -> Iterator[tuple[str, float | None]]:
    """Pieces of a text in order, each with the time on the recording that it names, if it names one.

    Args:
        text: What the policy wrote.
        duration: Length of the recording; later times name nothing on it.
        bare: A whole number alone is a time, as echo-nano writes them.
    """
    at = 0
    for found in (_BARE if bare else _TIME).finditer(text):
        minutes, seconds, plain = found.groups()
        time = float(plain) if plain else 60 * int(minutes) + float(seconds)
        if time <= duration:
            if found.start() > at:
                yield text[at : found.start()], None
            yield found[0], time
            at = found.end()
    if at < len(text):
        yield text[at:], None
