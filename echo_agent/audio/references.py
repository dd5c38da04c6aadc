"""The reference to a stretch of a recording, which travels in place of its samples.

`AudioRef` is what stands in graph state, messages and checkpoints: a few strings and numbers that say which
sound, which span and which transform, never the samples.

One grid holds references and samples together: at rate r, sample j lies at time j / r, and a span from
`start` to `end` seconds is the samples `round(start * r)` up to `round(end * r)`. So the length of a crop
follows from the reference alone (`AudioRef.samples`).

A *window* is a stretch of a file that is a recording of its own (`AudioRef.window`): it has its own clock, which begins
at its `origin`. So an hour can be asked about minute by minute, by models that never heard of an hour.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field, model_validator

from echo_agent.audio.transforms import Transform
from echo_agent.errors import RecordingError

__all__ = ["MEMORY", "AudioRef", "samples_of_span"]

MEMORY = "memory:"
"""What the source of a recording begins with that was given as an array or as bytes."""


class AudioRef(BaseModel):
    """One stretch of one recording, heard in one way; plain JSON both ways.

    Spans made by `Recording.ref` and `AudioRef.span` lie on whole milliseconds (or at the recording's end),
    so equal keys mean equal samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str = Field(min_length=1)
    """Absolute path of the file, or "memory:" and the first 16 digits of the hash."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Hash of the file's bytes, or of the array's samples and rate."""
    duration: float = Field(gt=0)
    """Length of the whole recording, seconds."""
    start: float = Field(ge=0)
    """Where the stretch begins, seconds on the recording."""
    end: float = Field(gt=0)
    """Where it ends, seconds on the recording."""
    transform: Transform = Transform()
    """How it is to be heard."""
    origin: float = Field(default=0.0, ge=0, exclude_if=lambda value: value == 0.0)
    """Second of the file at which the recording begins, where it is a window; whole seconds, so that the samples of a
    window lie on the grid of the file."""

    @model_validator(mode="after")
    def _span_lies_in_the_recording(self) -> AudioRef:
        if not self.start < self.end <= self.duration:
            raise ValueError(
                "a span needs 0 <= start < end <= duration, "
                f"got {self.start:g} to {self.end:g} of {self.duration:g} s"
            )
        return self

    @property
    def seconds(self) -> float:
        """Seconds of audio that are heard: the span's length, longer where it is played slower."""
        return (self.end - self.start) / self.transform.speed

    @property
    def is_whole(self) -> bool:
        """Whether this is the whole recording as it is: the first listen."""
        return self.start == 0.0 and self.end == self.duration and self.transform.is_identity

    @property
    def on_file(self) -> tuple[float, float]:
        """Where the stretch begins and ends in seconds of the file, whatever the clock of its recording."""
        return self.origin + self.start, self.origin + self.end

    @property
    def in_memory(self) -> bool:
        """Whether the recording was given as samples, so that only its owner can give it again."""
        return self.source.startswith(MEMORY)

    def samples(self, rate: int) -> int:
        """How many samples `crop` gives for this reference at `rate` Hz."""
        first, last = samples_of_span(self.start, self.end, self.duration, rate)
        return self.transform.samples_out(last - first)

    def span(
        self, start: float = 0.0, end: float | None = None, transform: Transform | None = None
    ) -> AudioRef:
        """Refer to another span of the same recording.

        Args:
            start: Seconds on the recording; taken to the nearest millisecond.
            end: Seconds on the recording; None, or within half a millisecond of it, is the recording's end.
            transform: How it is to be heard; None is as recorded.

        Returns:
            A reference whose span lies on whole milliseconds, or ends with the recording.

        Raises:
            RecordingError: The span does not lie within the recording or holds less than a millisecond.
        """
        start, end = _on_milliseconds(start, end, self.duration, self.source)
        return AudioRef(
            source=self.source,
            sha256=self.sha256,
            duration=self.duration,
            start=start,
            end=end,
            transform=transform or Transform(),
            origin=self.origin,
        )

    def window(self, first: int, end: float) -> AudioRef:
        """A stretch of this recording as a recording of its own, whole.

        Args:
            first: Second of this recording at which its clock begins.
            end: Second of this recording at which it ends.

        Raises:
            RecordingError: The stretch does not lie within the recording.
        """
        if not 0 <= first < end <= self.duration + 0.0005:
            raise RecordingError(
                f"a window of {self.source} needs 0 <= start < end <= {self.duration:.3f} s, got {first:g} to {end:g} s"
            )
        length = round(min(end, self.duration) - first, 6)
        return AudioRef(
            source=self.source,
            sha256=self.sha256,
            duration=length,
            start=0.0,
            end=length,
            origin=self.origin + first,
        )

    def key(self) -> str:
        """A short string that is one to one with content, span (to the millisecond) and transform."""
        key = f"{self.sha256[:32]}:{round(self.start * 1000)}-{round(self.end * 1000)}"
        if self.origin:
            key += f":from{round(self.origin * 1000)}"
        if not self.transform.is_identity:
            heard = self.transform
            key += f":x{heard.speed!r}:{heard.low_hz!r}-{heard.high_hz!r}:{heard.gain_db!r}"
        return key


def samples_of_span(start: float, end: float, duration: float, rate: int) -> tuple[int, int]:
    """The span's samples at `rate`, first and one past the last; never none."""
    total = max(1, round(duration * rate))
    first = min(round(start * rate), total - 1)
    return first, max(first + 1, min(round(end * rate), total))


def _on_milliseconds(start: float, end: float | None, duration: float, name: str) -> tuple[float, float]:
    end = duration if end is None else end
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RecordingError(f"a span of {name} cannot begin or end at {start} or {end}")
    if start < 0 or end > duration + 0.0005 or start >= end:
        raise RecordingError(
            f"a span of {name} needs 0 <= start < end <= {duration:.3f} s, got {start:g} to {end:g} s"
        )
    end = duration if round(end, 3) >= round(duration, 3) else round(end, 3)
    start = round(start, 3)
    if start >= end:
        raise RecordingError(f"a span of {name} at {start:g} s holds less than a millisecond")
    return start, end
