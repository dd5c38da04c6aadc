"""Answering the calls of one AI message: what is heard, what is refused, and when the budget is used up.

Every call is answered by exactly one tool message, whose artifact is a :class:`~echo_agent.tools.relisten.Reply`. It
holds references only. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.config import get_stream_writer

from echo_agent.answers import ANSWER, ANSWER_END, TOOL_NAME
from echo_agent.audio.recording import AudioRef
from echo_agent.chat import ERRORS_KEY, TOKENS_KEY, ChatLALM
from echo_agent.graphs.control import right_crop, silent_crop, wrong_crop
from echo_agent.graphs.review import review
from echo_agent.graphs.search_record import asked_of
from echo_agent.graphs.state import ListeningContext, ListeningState, Spent, current
from echo_agent.graphs.usage import finish_of
from echo_agent.messages import FORCE_KEY, message_id
from echo_agent.tools.relisten import Reply, check_call, not_heard

MARGIN = 48
"""Tokens of the context kept free beyond those of the answer, for what a tool has to say."""

FORCE_TEXT = f"Give your answer now, between {ANSWER} and {ANSWER_END}."


@dataclass(frozen=True)
class RawCall:
    """One call of an AI message."""

    id: str
    arguments: dict[str, Any]
    error: str | None = None
    """Why it could not be read."""


def calls_of(message: BaseMessage) -> list[RawCall]:
    """The calls of a message, those that could not be read included."""
    if not isinstance(message, AIMessage):
        return []
    errors = message.response_metadata.get(ERRORS_KEY) or {}
    calls = [
        RawCall(
            call["id"] or f"call_{i}",
            call["args"],
            None if call["name"] == TOOL_NAME else f"there is no tool {str(call['name'])[:24]!r}",
        )
        for i, call in enumerate(message.tool_calls)
    ]
    for i, call in enumerate(message.invalid_tool_calls):
        error = call["error"] or errors.get(call["id"]) or "the call could not be read"
        calls.append(RawCall(call["id"] or f"bad_call_{i}", {}, error))
    return calls


def request_answer(reason: str) -> HumanMessage:
    """The message that asks for the answer at the end of the budget."""
    return HumanMessage(FORCE_TEXT, additional_kwargs={FORCE_KEY: reason}, id=message_id())


def is_forced(messages: Sequence[BaseMessage]) -> bool:
    """Whether the answer has been asked for in this run."""
    return any(FORCE_KEY in message.additional_kwargs for message in current(messages))


def replies_of(messages: Sequence[BaseMessage]) -> list[Reply]:
    """What calls were answered with, in order."""
    replies = (Reply.of(message) for message in messages if isinstance(message, ToolMessage))
    return [reply for reply in replies if reply is not None]


def answer_calls(state: ListeningState, context: ListeningContext, *, ask: bool) -> dict[str, Any]:
    """Answer the calls of the last message.

    Args:
        state: The run.
        context: Its context.
        ask: Interrupt before each call that would be heard.
    """
    messages = current(state["messages"])
    last = messages[-1]
    desk = _Desk(state, context, messages)
    answers: list[ToolMessage] = []
    for call in calls_of(last):
        reply = desk.answer(call, ask=ask)
        answers.append(_answered(call, reply))
    write = get_stream_writer()
    for event in desk.events:
        write(event)
    update: dict[str, Any] = {"messages": answers, "spent": desk.spent}
    if desk.room is not None and desk.room < desk.needed:
        desk.exhausted = desk.exhausted or "context"
    if desk.exhausted:
        update["messages"] = [*answers, request_answer(desk.exhausted)]
        update["budget_exhausted"] = True
    return update


def no_more(message: BaseMessage) -> list[BaseMessage]:
    """What a message is answered with where nothing more may be heard: each call, and the request for the answer."""
    return [
        *(_answered(call, Reply(outcome="exhausted")) for call in calls_of(message)),
        request_answer("off"),
    ]


def _answered(call: RawCall, reply: Reply) -> ToolMessage:
    """The tool message that answers a call."""
    return ToolMessage(
        reply.content,
        artifact=reply.to_json(),
        tool_call_id=call.id,
        name=TOOL_NAME,
        status="success" if reply.ref else "error",
        id=message_id(),
    )


def _within(spans: Sequence[tuple[float, float]], recording: AudioRef) -> tuple[tuple[float, float], ...]:
    """Spans of a file as spans of a recording, which may be a window of it; those outside of it are left out."""
    moved = [(max(0.0, start - recording.origin), end - recording.origin) for start, end in spans]
    return tuple((start, end) for start, end in moved if start < min(end, recording.duration))


class _Desk:
    """Answers the calls of one message in order, and keeps the accounts."""

    def __init__(self, state: ListeningState, context: ListeningContext, messages: list[BaseMessage]) -> None:
        self.context = context
        self.recordings = asked_of(state)
        self.heard = [reply.asked or reply.ref for reply in replies_of(messages)]
        self.spent: Spent = {**state["spent"]}
        self.events: list[dict[str, Any]] = []
        metadata = messages[-1].response_metadata
        self.room: int | None = metadata.get(TOKENS_KEY, {}).get("room")
        """Tokens that are left of the context, where that is known."""
        self.needed = context.budget.answer_tokens + 2 * MARGIN
        out_of_tokens = self.spent["tokens"] >= context.budget.max_new_tokens
        self.exhausted = "tokens" if out_of_tokens or finish_of(messages[-1]) == "length" else ""
        """Why the answer has to be asked for now; empty while it has not."""

    def answer(self, call: RawCall, *, ask: bool) -> Reply:
        """Answer one call."""
        budget = self.context.budget
        if self.context.control == "off":
            self.exhausted = self.exhausted or "off"
        elif self.spent["relistens"] >= budget.max_relistens:
            self.exhausted = self.exhausted or "relistens"
        if call.error is not None and self.exhausted in ("", "tokens"):
            return self._done(Reply(outcome="malformed", observation=not_heard(call.error)))
        limits = self.context.hearing
        if budget.max_seconds is not None:
            left = budget.max_seconds - self.spent["seconds"]
            limits = replace(limits, longest_crop=min(limits.longest_crop, left))
            if left < limits.shortest:
                self.exhausted = self.exhausted or "seconds"
        if self.exhausted:
            return Reply(outcome="exhausted")
        arguments, note = call.arguments, ""
        if ask:
            decision = review(arguments)
            if decision.arguments is None:
                return self._done(Reply(outcome="refused", observation=not_heard(decision.note)))
            arguments, note = decision.arguments, decision.note
        before = [ref for ref in self.heard if ref is not None]
        arguments = self._on_the_clock(arguments)
        heard = check_call(arguments, self.recordings, limits, before, note)
        if heard.ref is None:
            return self._done(Reply(outcome="refused", observation=heard.observation))
        reply = self._deliver(heard.ref, heard.observation)
        if not self._fits(reply.ref or heard.ref):
            self.exhausted = "context"
            return Reply(outcome="exhausted")
        return self._done(reply)

    def _on_the_clock(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments in seconds, where the policy's own last longer."""
        model = self.context.model
        pace = model.family.clock(self.recordings) if isinstance(model, ChatLALM) else 1.0
        if pace == 1.0:
            return arguments
        times = {
            key: arguments[key] for key in ("start", "end") if isinstance(arguments.get(key), int | float)
        }
        return arguments | {key: pace * time for key, time in times.items()}

    def _fits(self, ref: AudioRef) -> bool:
        """Whether the crop leaves room for the answer; takes its room if so."""
        model = self.context.model
        if self.room is None or not isinstance(model, ChatLALM):
            return True
        after = self.room - len(model.family.audio_ids(ref))
        if after < self.needed:
            return False
        self.room = after
        return True

    def _deliver(self, ref: AudioRef, observation: str) -> Reply:
        """What is heard, or under a control another place or nothing."""
        if self.context.control == "silence":
            crop = silent_crop(ref, self.context.recordings)
            return Reply(outcome="heard", observation=observation, ref=crop, asked=ref)
        if self.context.control not in ("wrong-crop", "oracle"):
            return Reply(outcome="heard", observation=observation, ref=ref)
        first = self.recordings[0]
        gold = _within(self.context.gold_spans, first) if ref.sha256 == first.sha256 else ()
        if self.context.control == "oracle":
            crop, overlap = right_crop(ref, gold, self.spent["relistens"], self.context.hearing)
            return Reply(outcome="heard", observation=observation, ref=crop, asked=ref, overlap=overlap)
        crop, overlap = wrong_crop(ref, gold, self.context.recordings, self.context.seed)
        return Reply(outcome="heard", observation=observation, ref=crop, asked=ref, overlap=overlap)

    def _done(self, reply: Reply) -> Reply:
        """Book an answered call."""
        asked = reply.asked or reply.ref
        self.heard.append(asked)
        self.room = None if self.room is None else self.room - MARGIN
        seconds = asked.seconds if asked else 0.0
        self.spent["relistens"] += 1
        self.spent["seconds"] += seconds
        event: dict[str, Any] = {
            "type": TOOL_NAME,
            "index": self.spent["relistens"],
            "outcome": reply.outcome,
        }
        event |= {"start": None, "end": None}
        if asked:
            start, end = asked.on_file
            event |= {"start": start, "end": end, **asked.transform.model_dump()}
            if len(self.recordings) > 1:
                hashes = [recording.sha256 for recording in self.recordings]
                event["recording"] = hashes.index(asked.sha256) + 1
        self.events.append(event | {"seconds": seconds, "observation": reply.observation})
        return reply
