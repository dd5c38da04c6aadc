"""How a long recording was searched: what is kept of it in the state, and what it means for the question.

A search may end in a *window* of the recording. The question is then asked of that window, as of a recording of its
own, and where its answer is a time, the policy is held to the seconds of the window. Times of a record are seconds on
the whole recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from echo_agent.audio.recording import AudioRef
from echo_agent.chat import ChatLALM
from echo_agent.families.base import Family
from echo_agent.graphs.clocks import WHEN, Clock, asked_times, moments, second_of
from echo_agent.graphs.state import ListeningContext, ListeningState, recordings_of


class SearchListen(BaseModel):
    """One listen of a search."""

    model_config = ConfigDict(frozen=True)

    start: float
    end: float
    tokens: int
    """Audio tokens of it."""
    said: str = Field(default="", exclude_if=lambda value: not value)
    """What the model wrote about it, where it was asked."""


class SearchRecord(BaseModel):
    """How a long recording was searched."""

    model_config = ConfigDict(frozen=True)

    listens: tuple[SearchListen, ...] = ()
    """The first listens, which cover what was heard at all, and then those that narrowed, in order."""
    window: tuple[float, float] | None = None
    """The stretch that the question was asked of; None where it was asked of the whole."""
    unheard: tuple[tuple[float, float], ...] = ()
    """What was never heard, not even coarsely."""
    done: bool = Field(default=False, exclude=True)
    """Whether the question may be asked."""
    choices: tuple[str, ...] | None = Field(default=None, exclude=True)
    """What the answer is limited to on the clock of the window, where that differs from what was given."""

    def notes(self, model: str) -> tuple[str, ...]:
        """What a person should know of it, in sentences."""
        tokens = sum(listen.tokens for listen in self.listens)
        times = "one listen" if len(self.listens) == 1 else f"{len(self.listens)} listens"
        where = "of the whole" if self.window is None else f"of {_span(*self.window)}, where its clock begins"
        told = [
            f"it is longer than {model} can be asked about at once: it was searched in {times} ({tokens} audio "
            f"tokens), and the question was asked {where}"
        ]
        if self.window is not None:
            coarsest = max((listen.end - listen.start) / listen.tokens for listen in self.listens)
            told.append(f"all else was heard with one audio token for {coarsest:.1f} s or less")
        if self.unheard:
            spans = ", ".join(_span(*span) for span in self.unheard)
            told.append(f"never heard: {spans}; a larger budget of tokens (max_new_tokens) hears more")
        return tuple(told)

    def to_state(self) -> dict[str, Any]:
        """Plain JSON, with what the graph needs to go on."""
        hidden = {"done": self.done, "choices": None if self.choices is None else list(self.choices)}
        return self.model_dump(mode="json") | hidden

    @classmethod
    def of(cls, state: Any) -> SearchRecord | None:
        """The search of a run; None where there is none."""
        found = state.get("search")
        return None if found is None else cls.model_validate(found)


def _span(start: float, end: float) -> str:
    """A span in seconds, for a sentence."""
    return f"{start:.0f} to {end:.0f} s"


def window_of(ref: AudioRef, window: tuple[float, float]) -> AudioRef:
    """The window of a recording that a question is asked of."""
    return ref.window(int(window[0]), window[1])


def asked_of(state: ListeningState) -> list[AudioRef]:
    """The recordings as the policy is asked about them: the window that a search found, in the place of the whole."""
    recordings, record = recordings_of(state), SearchRecord.of(state)
    if record is None or record.window is None:
        return recordings
    return [window_of(recordings[0], record.window)]


def choices_of(state: ListeningState) -> list[str] | None:
    """What the answer is limited to, on the policy's own clock."""
    record = SearchRecord.of(state)
    return list(record.choices) if record is not None and record.choices else state.get("choices")


def is_on_own_clock(state: ListeningState) -> bool:
    """Whether the policy was held to times of a clock of its own."""
    record = SearchRecord.of(state)
    return record is not None and record.choices is not None


def clock_choices(
    family: Family, question: str, choices: Sequence[str] | None, whole: AudioRef, ref: AudioRef
) -> tuple[str, ...] | None:
    """The whole seconds of ``ref`` that an answer is limited to, where times of ``whole`` are asked for."""
    if asked_times(question, choices, whole, ref.duration) is None:
        return None
    own = family.implied_choices(WHEN, [ref])
    return None if own is None else tuple(own)


def on_recording(answer: str, state: ListeningState, context: ListeningContext) -> str | None:
    """An answer on the policy's clock as one on the recording: the choice that it lies in, or is nearest to."""
    choices, model = state.get("choices"), context.model
    time, (whole,) = second_of(answer), recordings_of(state)
    named = moments(choices, whole.duration)
    assert isinstance(model, ChatLALM)
    if time is None or not choices or named is None:
        return None
    asked = asked_of(state)
    second = Clock(asked[0].origin, model.family.clock(asked)).on_recording(time)
    if list(choices) == model.family.implied_choices(state["question"], [whole]):
        return f"{round(second)} s"
    return min(zip(choices, named, strict=True), key=lambda choice: choice[1].away(second))[0]
