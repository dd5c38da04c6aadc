"""Records and samples: what every source yields, and what every dataset holds.

A :class:`Record` is a recording with what is known to be in it: a mixed scene with exact ground truth, a row of a
corpus of strong labels, a caption with chords and beats. A :class:`Sample` is a question about a record, with its
answer, where it can be heard, and reasoning that names a span before it speaks about it.

Times are seconds from the start of the recording, levels dB re full scale. Files of records and samples are JSON lines
or Parquet, one object each.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from echo_agent.rows import Row

EventKind = Literal["sound", "burst", "notes", "digits", "words", "chord", "beat"]
Voice = Literal["", "woman", "man"]
Split = Literal["train", "validation", "test"]
Use = Literal["", "sft", "rl"]

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
MOST_HITS = 1000
"""Hits of a burst: what is counted aloud must end."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Event:
    """One event of a recording."""

    label: str
    """Class of the sound, instrument, or ``voice`` for spoken phrases."""
    kind: EventKind
    onset: Seconds
    offset: Seconds
    content: tuple[str, ...] = ()
    """Spoken digits or words, in order; the name of a chord."""
    hits: Annotated[int, Field(ge=1, le=MOST_HITS)] = 1
    """How often a burst is struck."""
    sources: tuple[str, ...] = ()
    """Where its clips come from: the unit by which training and test are kept apart."""
    voice: str = ""
    """Who speaks, as the source names them."""
    gender: Voice = ""
    """Whether a woman or a man speaks; empty where nobody does or it is not known."""
    pitches: tuple[Annotated[int, Field(ge=0, le=127)], ...] = ()
    """MIDI pitches of ``notes``, in order."""
    level_db: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """How loud it is, where that is known."""


class Record(BaseModel):
    """A recording and what is known about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Text
    """Unique in its corpus."""
    audio: Text
    """Path of the recording: absolute, or relative to the file that the record stands in."""
    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    events: tuple[Event, ...] = ()
    """In order of onset."""
    labels: tuple[str, ...] = ()
    """Every label that the source would have marked had it been heard: what is not among the events and stands here
    is known to be absent. Empty: nothing is known to be absent."""
    complete: bool = True
    """Whether every event of the labels is marked; where not, nothing is asked that depends on there being no other."""
    corpus: str = ""
    """Where it comes from: ``scenes``, ``audioset-strong``, ``desed``, ..."""
    group: str = ""
    """Records of one group stay in one split; its id where empty."""
    split: Split | None = None
    """Where the source has a split of its own; None: it is made."""
    licence: str = ""
    captions: tuple[str, ...] = ()
    """Sentences about the recording."""
    tempo: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Beats per minute."""
    key: str = ""
    """Musical key, such as ``A minor``."""
    asked: tuple[Asked, ...] = ()
    """Questions that the source brings along."""

    @field_validator("events")
    @classmethod
    def _ordered(cls, events: tuple[Event, ...], info: ValidationInfo) -> tuple[Event, ...]:
        duration = info.data.get("duration", math.inf)
        for event in events:
            if not event.onset < event.offset:
                raise ValueError(
                    f"{event.label!r} ends at {event.offset} s, not after its onset {event.onset} s"
                )
            if event.offset > duration + 0.05:
                raise ValueError(
                    f"{event.label!r} ends at {event.offset} s, but the recording at {duration} s"
                )
        return tuple(sorted(events, key=lambda event: (event.onset, event.offset)))


class Asked(BaseModel):
    """A question that a corpus brings along (AVQA)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Text
    choices: tuple[str, ...] | None = None
    answer: Text


Record.model_rebuild()


class Sample(Row):
    """One row of a dataset: a question about a record, its answer, and how it is found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: str = ""
    """Id of the record it is about."""
    corpus: str = ""
    group: str = ""
    """Samples of one group stay in one split."""
    split: Split = "train"
    use: Use = ""
    """``sft`` where question and reasoning are valid, ``rl`` where only the question is; empty for tests."""
    reasoning: str = ""
    """The thought as a policy writes it, calls included: ``The bell rings early <seg>3, 6</seg> and then ...``.
    It holds no answer tag. Empty where there is none."""
    phrasing: str = ""
    """Which wording was taken: ``order/next/train/2``, or the model that wrote it."""
    licence: str = ""
    composer: str = ""
    """``grammar``, or the model that wrote it."""

    @model_validator(mode="after")
    def _inside(self) -> Sample:
        for start, end in self.gold_spans:
            if self.duration is not None and end > self.duration + 0.05:
                raise ValueError(
                    f"gold span {start}, {end} lies outside of the recording of {self.duration} s"
                )
        return self

    @property
    def listens(self) -> bool:
        """Whether its reasoning listens again."""
        return "<seg>" in self.reasoning


SAMPLE_COLUMNS = tuple(field.serialization_alias or name for name, field in Sample.model_fields.items())
"""Names of a sample's fields in files."""
