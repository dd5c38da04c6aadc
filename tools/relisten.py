"""Re-listen, the tool: a span of a recording in, that stretch of audio to hear in return.

One set of arguments and checks, three ways to use it:

- :func:`check_call` and :func:`resolve_span` decide what is heard. They are pure: no audio is read here.
- the listening graph calls them and puts a :class:`Reply` into its state: a reference, never samples.
- ``make_relisten`` is a LangChain tool for any other agent. It answers with a reference too, of which
  :mod:`echo_agent.tools.audible` makes audio for models that hear nothing else.

What can be mended is mended and said so (swapped, clamped, widened, cut); what cannot is answered with an observation
that tells the policy what was wrong. A mistake of the policy is never an exception, and never silence.

Times are seconds on the recording. A span that is heard slower or faster lasts ``(end - start) / speed`` seconds.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_core.messages import HumanMessage
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echo_agent.audio.recording import AudioRef, Transform, wav_bytes
from echo_agent.errors import RecordingError
from echo_agent.families.base import Limits

if TYPE_CHECKING:
    import numpy as np

DEFAULT_LIMITS = Limits(shortest=0.2, longest_crop=30.0, longest_recording=math.inf)
"""What is asked of a span where nothing is known of the model that will hear it."""

DESCRIPTION = (
    "Listen again to a part of a recording. Give its start and end in seconds; optionally play it slower or faster, "
    "louder or quieter, or only one band of frequencies."
)

SPEEDS = (0.25, 2.0)
GAINS = (-40.0, 40.0)
NOT_FINITE = "start, end and options must be finite numbers"


class RelistenArgs(BaseModel):
    """Arguments of the tool. Out of range is mended by the tool; what is not a finite number is refused."""

    model_config = ConfigDict(extra="forbid")

    start: float = Field(description="Start of the span in seconds.", allow_inf_nan=False)
    end: float = Field(description="End of the span in seconds.", allow_inf_nan=False)
    recording: int = Field(default=1, description="Which recording, counted from 1.")
    speed: float = Field(
        default=1.0, description="Playing speed, 0.25 to 2; the pitch is kept.", allow_inf_nan=False
    )
    low_hz: float | None = Field(
        default=None, description="Leave out what is below this frequency in Hz.", allow_inf_nan=False
    )
    high_hz: float | None = Field(
        default=None, description="Leave out what is above this frequency in Hz.", allow_inf_nan=False
    )
    gain_db: float = Field(
        default=0.0, description="Louder (positive) or quieter (negative), -40 to 40 dB.", allow_inf_nan=False
    )


@dataclass(frozen=True)
class Heard:
    """What a call comes to."""

    ref: AudioRef | None
    """What is heard; None where nothing can be."""
    observation: str
    """What the policy is told; empty when it gets exactly what it asked for."""
    mended: bool = False
    """The span or the transform is not what was asked for."""

    @property
    def ok(self) -> bool:
        """Something is heard."""
        return self.ref is not None


class Reply(BaseModel):
    """What a tool message carries as its artifact, as plain JSON: see :meth:`to_json` and :meth:`of`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Literal["heard", "refused", "malformed", "exhausted"]
    """Heard; refused (a call that cannot be mended, or that a person forbade); a call that could not be read; a call
    beyond the budget."""
    observation: str = ""
    """What the policy is told."""
    ref: AudioRef | None = None
    """What is heard."""
    asked: AudioRef | None = None
    """Under a control: what should have been heard."""
    overlap: float = 0.0
    """Under the controls wrong-crop and oracle: seconds of the crop that lie on a gold span (or, under wrong-crop, on
    what was asked for)."""

    @classmethod
    def to(cls, heard: Heard) -> Self:
        """The reply to a call that was checked."""
        return cls(outcome="heard" if heard.ok else "refused", observation=heard.observation, ref=heard.ref)

    @property
    def content(self) -> str:
        """The reply in words, for models that read the tool's text."""
        told = self.asked or self.ref
        if told is None:
            return self.observation or "No more listening: give your answer."
        heard = f"Heard {_s(told.start)} to {_s(told.end)} s."
        return f"{heard} ({self.observation})" if self.observation else heard

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for ``ToolMessage.artifact``."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def of(cls, message: Any) -> Reply | None:
        """The reply that a tool message carries, or None: foreign, edited (text and artifact disagree) or broken."""
        artifact = getattr(message, "artifact", None)
        if not isinstance(artifact, dict):
            return None
        try:
            reply = cls.model_validate(artifact)
        except ValidationError:
            return None
        return reply if message.text == reply.content else None


def check_call(
    arguments: dict[str, Any],
    recordings: Sequence[AudioRef],
    limits: Limits,
    heard: Sequence[AudioRef] = (),
    note: str = "",
) -> Heard:
    """Check raw arguments of a call and decide what is heard; see :func:`resolve_span`."""
    try:
        args = RelistenArgs.model_validate(arguments)
    except ValidationError as error:
        return Heard(None, not_heard(explain(error)))
    return resolve_span(args, recordings, limits, heard, note)


def resolve_span(
    args: RelistenArgs,
    recordings: Sequence[AudioRef],
    limits: Limits,
    heard: Sequence[AudioRef] = (),
    note: str = "",
) -> Heard:
    """Decide what is heard.

    A reversed span is swapped, one that leaves the recording is clamped, one that is too short for the model is widened
    about its middle, one that is too long loses its end. A recording shorter than the shortest crop is heard whole.

    Args:
        args: What was asked for.
        recordings: The run's recordings, whole, in the order in which they were first heard.
        limits: What the model can hear.
        heard: What was heard again before in this run: an exact repeat is noted (and heard).
        note: What else the policy is to be told.
    """
    if not 1 <= args.recording <= len(recordings):
        there = f"there is only 1 to {len(recordings)}" if recordings else "there is no recording"
        return Heard(None, not_heard(f"no recording {args.recording}, {there}"))
    recording = recordings[args.recording - 1]
    notes = [note] if note else []
    transform = _transform(args, notes)
    start, end = args.start, args.end
    if start > end:
        start, end = end, start
        notes.append("swapped")
    if start >= recording.duration or end < 0 or (end == 0 and start < 0):
        return Heard(None, not_heard(f"{_s(start)}-{_s(end)} is outside of 0-{_s(recording.duration)}"))
    if start < 0 or end > recording.duration:
        start, end = max(0.0, start), min(recording.duration, end)
        notes.append("clamped")
    shortest, longest = limits.shortest * transform.speed, limits.longest_crop * transform.speed
    if recording.duration < shortest and transform.speed > 1:
        transform = transform.model_copy(update={"speed": 1.0})
        notes.append("speed set to 1")
        shortest, longest = limits.shortest, limits.longest_crop
    if end - start < min(shortest, recording.duration) - 1e-6:
        middle = (start + end) / 2
        start = max(0.0, min(middle - shortest / 2, recording.duration - shortest))
        end = min(recording.duration, start + shortest)
        notes.append("widened")
    if end - start > longest + 1e-6:
        end = start + longest
        notes.append("cut")
    mended = bool(notes)
    try:
        ref = recording.span(start, end, transform)
    except RecordingError:
        return Heard(None, not_heard(f"{_s(start)}-{_s(end)} is too short"))
    if any(ref.key() == before.key() for before in heard):
        notes.append("heard before")
    observation = f"heard {_s(ref.start)}-{_s(ref.end)}: {', '.join(notes)}" if notes else ""
    return Heard(ref, observation, mended)


def not_heard(why: str) -> str:
    """The observation for a call that nothing is heard for; it never looks like a tag, whatever the policy wrote."""
    return f"not heard: {why}".replace("<", "").replace(">", "")


def explain(error: ValidationError) -> str:
    """The first fault of the arguments in a few words."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "finite_number":
        return NOT_FINITE
    where = ".".join(str(part) for part in first["loc"])[:24]
    what = {"missing": "is missing", "extra_forbidden": "is not an option"}.get(
        first["type"], "must be a number"
    )
    return f"{where} {what}"


def _transform(args: RelistenArgs, notes: list[str]) -> Transform:
    """The transform that was asked for, its values put into range."""
    speed = min(max(args.speed, SPEEDS[0]), SPEEDS[1])
    gain = min(max(args.gain_db, GAINS[0]), GAINS[1])
    if speed != args.speed:
        notes.append(f"speed set to {speed:g}")
    if gain != args.gain_db:
        notes.append(f"gain set to {gain:g}")
    low = args.low_hz if args.low_hz is not None and args.low_hz > 0 else None
    high = args.high_hz if args.high_hz is not None and args.high_hz > 0 else None
    if low is not None and high is not None and low > high:
        low, high = high, low
        notes.append("band swapped")
    try:
        return Transform(speed=speed, low_hz=low, high_hz=high, gain_db=gain)
    except ValidationError:
        notes.append("band left out")
        return Transform(speed=speed, gain_db=gain)


def _s(seconds: float) -> str:
    """Seconds with at most two decimals."""
    return f"{round(seconds, 2):.6g}"


# --- for any LangChain agent ------------------------------------------------------------------------------------


def audio_message(heard: Sequence[tuple[AudioRef, np.ndarray]], rate: int) -> HumanMessage:
    """A user message with the audio itself (float32 mono samples at ``rate``), for models that hear no tool message."""
    blocks: list[str | dict[str, Any]] = []
    for ref, samples in heard:
        text = f"The audio from {_s(ref.start)} to {_s(ref.end)} s:"
        blocks += [{"type": "text", "text": text}, audio_of(samples, rate)]
    return HumanMessage(content=blocks)


def audio_of(samples: np.ndarray, rate: int) -> dict[str, Any]:
    """A content block with the audio itself."""
    data = base64.b64encode(wav_bytes(samples, rate)).decode()
    return {"type": "audio", "base64": data, "mime_type": "audio/wav"}
