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
(:mod:`echo_agent.graphs.search_record`). Times are seconds on the whole recording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil, inf
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.config import get_stream_writer

from echo_agent.answers import as_written, extract_answer, question_text
from echo_agent.audio.recording import AudioRef
from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine
from echo_agent.errors import RecordingTooLongError
from echo_agent.families.base import TAIL, Family, Note
from echo_agent.graphs.calls import no_more
from echo_agent.graphs.clocks import asked_times
from echo_agent.graphs.narrowing import CLOSE, LOOKS, narrow
from echo_agent.graphs.search_record import SearchListen, SearchRecord, clock_choices, window_of
from echo_agent.graphs.sought import Sought
from echo_agent.graphs.state import ListeningContext, ListeningState, Spent, recordings_of
from echo_agent.graphs.usage import confidence_of, finish_of, sampled_tokens
from echo_agent.messages import QUESTION_KEY, audio_block, transcript

NOTED = "What is heard in this part of the recording, and when? Say it in a few words."
"""What a model is asked of every window."""
NOTE_TOKENS = (8, 64)
"""Fewest and most tokens that are written of a window."""
SHARE = 0.5
"""Part of a run's tokens that may be spent on the timeline."""


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
        own = (
            0 if named or sought.side else 1
        )  # a call is left to the policy, where the search does not end in seconds
        looks = min(LOOKS, max(0, budget.max_relistens - own))
        seconds = inf if budget.max_seconds is None else budget.max_seconds
        longest = inf if family.streams else family.limits.longest_recording
        sure = self._sure if self._choices else None
        found = narrow(self._ref.duration, first, hear, sought, looks, seconds, longest, sure)
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

    def _sure(self, start: float, end: float) -> float:
        """How sure the policy is of its answer, 0 to 1, if it is asked about a stretch and may not listen again."""
        budget, context = self._context.budget, self._context
        left = (budget.max_new_tokens - self._spent["tokens"]) // 2
        if left < budget.answer_tokens:
            return 0.0
        question, own = self._put((start, end))
        options: dict[str, Any] = {
            **context.options,
            "temperature": 0.0,
            "seed": context.seed,
            "run": self._state["run"],
            "reserve": 0,
        }
        if context.guided:
            options["choices"] = tuple(own or self._choices or ())
        said: list[BaseMessage] = [question]
        reply = self.model.invoke(said, max_new_tokens=left, **options)
        said.append(reply)
        self._spent["tokens"] += sampled_tokens(reply)
        if extract_answer(transcript(said), ended=finish_of(reply) == "eos") is None:
            said += no_more(reply)
            said.append(self.model.invoke(said, max_new_tokens=budget.answer_tokens, **options))
        answered = extract_answer(transcript(said), ended=finish_of(said[-1]) == "eos") is not None
        return confidence_of(said, self.family) if answered else 0.0

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

    def _put(self, window: tuple[float, float] | None) -> tuple[HumanMessage, tuple[str, ...] | None]:
        """The question about a window or the whole, and the times that its answer is limited to there, if any."""
        question, choices = self._question, self._choices
        ref = self._ref if window is None else window_of(self._ref, window)
        own = clock_choices(self.family, question, choices, self._ref, ref)
        return _asked(question, choices if own is None else list(own), [audio_block(ref)]), own

    def _done(self, record: SearchRecord) -> dict[str, Any]:
        """Put the question, as it is asked now, in the place of the one that was put when the run began."""
        own: tuple[str, ...] | None = None
        if self.takes_notes:
            message, own = self._put(record.window)
        else:
            question = f"{timeline(record, self._ref.duration)}\n\n{self._question}"
            message = _asked(question, self._choices, [])
        message.id = self._state["messages"][-1].id
        record = record.model_copy(update={"done": True, "choices": own})
        return {"messages": [message], "search": record.to_state(), "spent": self._spent}


def _asked(question: str, choices: Sequence[str] | None, heard: Sequence[Any]) -> HumanMessage:
    """A question as a message, after what is heard."""
    return HumanMessage(
        [*heard, {"type": "text", "text": question_text(question, choices)}],
        additional_kwargs={QUESTION_KEY: {"question": question, "choices": choices}},
    )


def _about(ref: AudioRef) -> list[HumanMessage]:
    """The question about a window."""
    return [HumanMessage([audio_block(ref), {"type": "text", "text": NOTED}])]


def _plain(text: str) -> str:
    """What was written, without thoughts' tags and without a call."""
    return re.sub(r"</?think>", " ", re.split(r"<seg>|<tool_call>", text)[0])


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
