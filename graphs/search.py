"""A recording that is longer than its model can be asked about is searched: coarsely first, then where it matters.

Where its family says what tokens of a listen tell (:meth:`Family.notes <echo_agent.families.base.Family.notes>`: the
embedded models), the whole recording is heard once, in a stream where the family can, else window by window. Then it is
narrowed (:mod:`echo_agent.graphs.narrowing`), and the question is asked of the stretch that was found, as of a
recording of its own with its own clock (:meth:`AudioRef.window <echo_agent.audio.references.AudioRef.window>`). Each
listen that narrows counts as a re-listen. Without any (``max_relistens=0``) the model is asked with the one listen to
the whole.

Of any other model each window is asked first what is heard in it, which makes a *timeline* in words; the question is
asked after the timeline, on the clock of the whole recording, and the policy listens to the crops that it wants. What
was written for the timeline counts as tokens; once half of the budget is spent, the other windows stay unheard.

Every control searches alike: what is controlled is what the policy hears when it calls. Only references and words are
kept in the state. What was heard, what was never heard and where the question was asked is part of the result
(:class:`SearchRecord`). Times are seconds on the whole recording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, inf
from typing import Any

from langchain_core.messages import HumanMessage
from langgraph.config import get_stream_writer
from pydantic import BaseModel, ConfigDict, Field

from echo_agent.answers import as_written, question_text
from echo_agent.audio.recording import AudioRef
from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine
from echo_agent.errors import RecordingTooLongError
from echo_agent.families.base import TAIL, Family, Note
from echo_agent.graphs.clocks import WHEN, Clock, asked_times, moments, second_of
from echo_agent.graphs.narrowing import CLOSE, LOOKS, narrow
from echo_agent.graphs.sought import Sought
from echo_agent.graphs.state import ListeningContext, ListeningState, Spent, recordings_of
from echo_agent.graphs.usage import sampled_tokens
from echo_agent.messages import QUESTION_KEY, audio_block

NOTED = "What is heard in this part of the recording, and when? Say it in a few words."
"""What a model is asked of every window."""
NOTE_TOKENS = (8, 64)
"""Fewest and most tokens that are written of a window."""
SHARE = 0.5
"""Part of a run's tokens that may be spent on the timeline."""


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


def begin_search(recordings: Sequence[AudioRef], context: ListeningContext) -> dict[str, Any] | None:
    """The search that a run begins with; None where its recordings can be heard as they are.

    Raises:
        RecordingTooLongError: One of several recordings is too long.
    """
    model = context.model
    if not isinstance(model, ChatLALM):
        return None
    return SearchRecord().to_state() if too_long(recordings, model.family) else None


def too_long(recordings: Sequence[AudioRef], family: Family) -> bool:
    """Whether what is asked about has to be searched; raises RecordingTooLongError where several are asked about."""
    limit = family.limits.longest_recording
    long = [ref for ref in recordings if ref.seconds > limit + TAIL]
    if long and len(recordings) > 1:
        raise RecordingTooLongError(
            f"{long[0].source} is {long[0].seconds:.1f} s of audio, and {family.name} hears at most {limit:g} s of one "
            "of several recordings: ask about the long one by itself, or cut it into pieces"
        )
    return bool(long)


def search(state: ListeningState, context: ListeningContext) -> dict[str, Any]:
    """One step of a search: all of the narrowing, or the timeline of one more window."""
    step = _Search(state, context)
    return step.narrowed() if step.takes_notes else step.noted()


async def asearch(state: ListeningState, context: ListeningContext) -> dict[str, Any]:
    """The async twin of :func:`search`, for a step that asks the model."""
    return await _Search(state, context).anoted()


def takes_notes(context: ListeningContext) -> bool:
    """Whether listens of the model tell what is heard in them."""
    model = context.model
    return isinstance(model, ChatLALM) and model.family.takes_notes and isinstance(model.engine, TorchEngine)


def windows_of(ref: AudioRef, longest: float) -> list[AudioRef]:
    """A recording as windows of about equal length that are no longer than that; they cover it."""
    size = ceil(ref.duration / ceil(ref.duration / (longest // 1)))
    starts = range(0, ceil(ref.duration), size)
    return [ref.window(first, min(first + size, ref.duration)) for first in starts]


class _Search:
    """The search of one run, as far as it is."""

    def __init__(self, state: ListeningState, context: ListeningContext) -> None:
        assert isinstance(context.model, ChatLALM)
        self.model = context.model
        self.family = context.model.family
        self.takes_notes = takes_notes(context)
        self._state, self._context = state, context
        (self._ref,) = recordings_of(state)
        self._record = SearchRecord.of(state) or SearchRecord()
        self._question, self._choices = state["question"], state.get("choices")
        self._writes = get_stream_writer()
        self._spent: Spent = {**state["spent"]}

    # --- by the notes of listens --------------------------------------------------------------------------------

    def narrowed(self) -> dict[str, Any]:
        """Hear the whole, then ever less of it, and ask about what was found."""
        family, listens = self.family, list[SearchListen]()
        whole = [self._ref] if family.streams else windows_of(self._ref, family.limits.longest_recording)
        first = [note for ref in whole for note in self._hear(ref, listens)]

        def hear(start: float, end: float) -> list[Note]:
            self._spent["relistens"] += 1
            self._spent["seconds"] += end - start
            return self._hear(self._ref.window(int(start), end), listens)

        named = asked_times(self._question, self._choices, self._ref, CLOSE) or ()
        times = [one.start for one in named if one.start == one.end]
        sought = Sought.of(first, self._question, self._choices, times)
        budget = self._context.budget
        looks = min(LOOKS, max(0, budget.max_relistens - 1))  # a call is left to the policy
        seconds = inf if budget.max_seconds is None else budget.max_seconds
        longest = inf if family.streams else family.limits.longest_recording
        found = narrow(self._ref.duration, first, hear, sought, looks, seconds, longest)
        window = found.window
        if window is None and not family.streams:
            best = max(first, key=sought.likely)
            near = next(ref for ref in whole if ref.origin <= best.start < ref.origin + ref.duration)
            window = (near.origin, near.origin + near.duration)
        return self._done(self._record.model_copy(update={"listens": tuple(listens), "window": window}))

    def _hear(self, ref: AudioRef, listens: list[SearchListen]) -> list[Note]:
        """Listen, and say what each token tells, on the clock of the whole recording."""
        engine = self.model.engine
        assert isinstance(engine, TorchEngine)
        notes = engine.notes(ref)
        listens.append(self._listen(ref))
        return [Note(ref.origin + note.start, ref.origin + note.end, note.sounds) for note in notes]

    def _listen(self, ref: AudioRef, said: str = "") -> SearchListen:
        """The record of a listen, which is told to whoever follows the run."""
        start, end = ref.origin - self._ref.origin, ref.origin - self._ref.origin + ref.duration
        made = SearchListen(start=start, end=end, tokens=self.family.audio_tokens(ref), said=said)
        self._writes({"type": "search", **made.model_dump(mode="json")})
        return made

    # --- by asking about windows --------------------------------------------------------------------------------

    def noted(self) -> dict[str, Any]:
        """Ask what is heard in the next window; with the last, ask the question."""
        ref, options = self._next()
        return self._ask() if ref is None else self._take(ref, self.model.invoke(_about(ref), **options))

    async def anoted(self) -> dict[str, Any]:
        """The async twin of :meth:`noted`."""
        ref, options = self._next()
        if ref is None:
            return self._ask()
        return self._take(ref, await self.model.ainvoke(_about(ref), **options))

    def _windows(self) -> list[AudioRef]:
        return windows_of(self._ref, self.family.limits.longest_recording)

    def _next(self) -> tuple[AudioRef | None, dict[str, Any]]:
        """The window to ask about next, and how; None where all were heard, or the tokens are spent."""
        windows, heard = self._windows(), len(self._record.listens)
        most = SHARE * self._context.budget.max_new_tokens
        if heard == len(windows) or (heard and self._spent["tokens"] >= most):
            return None, {}
        room = self.family.context_length // 3 // len(windows)
        tokens = min(NOTE_TOKENS[1], max(NOTE_TOKENS[0], min(room, int(most / len(windows)))))
        return windows[heard], {"max_new_tokens": tokens, "choices": (), "temperature": 0.0, "max_repeats": 3}

    def _take(self, ref: AudioRef, message: Any) -> dict[str, Any]:
        """Note what was written of a window."""
        self._spent["tokens"] += sampled_tokens(message)
        listen = self._listen(ref, " ".join(as_written(_plain(message.text)).split()))
        record = self._record.model_copy(update={"listens": (*self._record.listens, listen)})
        return {"search": record.to_state(), "spent": self._spent}

    def _ask(self) -> dict[str, Any]:
        """Ask the question after the timeline."""
        heard = self._record.listens[-1].end
        unheard = ((heard, self._ref.duration),) if len(self._record.listens) < len(self._windows()) else ()
        return self._done(self._record.model_copy(update={"unheard": unheard}))

    # --- the question ---------------------------------------------------------------------------------------------

    def _done(self, record: SearchRecord) -> dict[str, Any]:
        """Put the question, as it is asked now, in the place of the one that was put when the run began."""
        question, choices, blocks = self._question, self._choices, list[Any]()
        if self.takes_notes:
            ref = self._ref if record.window is None else window_of(self._ref, record.window)
            blocks = [audio_block(ref)]
            own = clock_choices(self.family, question, choices, self._ref, ref)
            record = record.model_copy(update={"choices": own})
            choices = choices if own is None else list(own)
        else:
            question = f"{timeline(record, self._ref.duration)}\n\n{question}"
        message = HumanMessage(
            [*blocks, {"type": "text", "text": question_text(question, choices)}],
            id=self._state["messages"][-1].id,
            additional_kwargs={QUESTION_KEY: {"question": question, "choices": choices}},
        )
        record = record.model_copy(update={"done": True})
        return {"messages": [message], "search": record.to_state(), "spent": self._spent}


def _about(ref: AudioRef) -> list[HumanMessage]:
    """The question about a window."""
    return [HumanMessage([audio_block(ref), {"type": "text", "text": NOTED}])]


def _plain(text: str) -> str:
    """What was written, without thoughts' tags and without a call."""
    return re.sub(r"</?think>", " ", re.split(r"<seg>|<tool_call>", text)[0])


def _span(start: float, end: float) -> str:
    """A span in seconds, for a sentence."""
    return f"{start:.0f} to {end:.0f} s"


def window_of(ref: AudioRef, window: tuple[float, float]) -> AudioRef:
    """The window of a recording that a question is asked of."""
    return ref.window(int(window[0]), window[1])


def timeline(record: SearchRecord, duration: float) -> str:
    """What was noted of a recording, in words for the model."""
    lines = [
        f"The recording is {duration:.0f} s long, too long to be heard at once. This was noted of its parts:"
    ]
    lines += [
        f"{listen.start:.0f}-{listen.end:.0f} s: {listen.said or 'nothing'}" for listen in record.listens
    ]
    lines += [f"{start:.0f}-{end:.0f} s: not heard" for start, end in record.unheard]
    return "\n".join([*lines, "Listen again to a part of it to hear it."])


# --- the window -------------------------------------------------------------------------------------------------


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
