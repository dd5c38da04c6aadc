"""The trace of a run: every step of it as plain JSON, to be kept, shown and read back.

``echo-agent ask --trace`` writes one and ``echo-agent report`` makes a page of it. A trace holds references to audio,
never samples; what it says is data from outside when it is read, and is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echo_agent.audio.recording import Recording
from echo_agent.audio.references import AudioRef
from echo_agent.errors import DataError, RecordingError
from echo_agent.messages import delta_of
from echo_agent.rendering import visible_text
from echo_agent.results import EchoResult
from echo_agent.text import parse_json, read_text
from echo_agent.trajectory import Segment, pack_ids

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent


class TracedSegment(Segment):
    """Consecutive tokens of one origin, and what they say."""

    text: str = ""
    """The tokens as text, placeholders left out."""


class Trace(BaseModel):
    """One run; see the module."""

    model_config = ConfigDict(frozen=True)

    echo_agent: str
    """The version that made the run."""
    model: str
    """Name of the model and a hash of its weights."""
    recording: AudioRef
    """What the question was about."""
    question: str
    choices: list[str] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the question, as they were given."""
    result: EchoResult
    segments: list[TracedSegment]
    """What went into the context, in order."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: runs of placeholders packed."""
        data = self.model_dump(mode="json", exclude={"segments"})
        data["segments"] = [
            segment.model_dump(mode="json", exclude_none=True) | {"ids": pack_ids(segment.ids)}
            for segment in self.segments
        ]
        return data


SAME = 0.05
"""Seconds by which a file may differ in length from sound that was given in memory, and still be taken for it."""


def trace_of(
    agent: EchoAgent,
    recording: Recording,
    question: str,
    choices: Sequence[str] | None,
    options: Mapping[str, Any],
    result: EchoResult,
) -> Trace:
    """The trace of a run that has ended."""
    # A chat server's tokens are not seen: what was said is all there is.
    seen = result.trajectory.segments if any(map(delta_of, result.messages)) else ()
    segments = [
        TracedSegment(
            **dict(segment),
            text=visible_text(
                agent.family, [token for token in segment.ids if token != agent.family.audio_id]
            ),
        )
        for segment in seen
    ]
    return Trace(
        echo_agent=version("echo-agent"),
        model=agent.fingerprint,
        recording=recording.ref(),
        question=question,
        choices=None if choices is None else list(choices),
        options=dict(options),
        result=result,
        segments=segments,
    )


def read_trace(path: Path) -> Trace:
    """Read a trace that :meth:`Trace.to_json` gave.

    Raises:
        DataError: The file cannot be read, or holds no trace.
    """
    try:
        return Trace.model_validate(parse_json(read_text(path, "a trace")))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{path} is no trace of a run ({where or 'the whole'}: {first['msg']}); "
            "`echo-agent ask ... --trace` writes one"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is no trace of a run: {error}") from None


def recording_of(trace: Trace, audio: str | None = None) -> Recording:
    """Open the recording of a run.

    Args:
        trace: The run.
        audio: Where it is now; None is where it was.

    Raises:
        RecordingError: It is not there, cannot be opened, or is another.
    """
    ref = trace.recording
    if audio is None and (ref.in_memory or not Path(ref.source).exists()):
        where = "was given in memory" if ref.in_memory else f"is not at {ref.source} any more"
        raise RecordingError(f"the recording of this run {where}: name its file with --audio")
    recording = Recording.open(audio or ref.source)
    same = abs(recording.duration - ref.duration) <= SAME if ref.in_memory else recording.sha256 == ref.sha256
    if not same:
        raise RecordingError(
            f"{recording.source} is not the recording of this run: its content is another; name the right file with "
            "--audio"
        )
    return recording
