"""The reason node: one call of the model, and what it cost.

``ChatLALM`` is told how many tokens it may sample. A model of another maker is held to the budget from here: what it
wrote is counted as its server says, or estimated, and a stream that passes what is left is ended. When the answer has
been asked for, such a model is called without its tool, so that nothing but an answer can follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing, nullcontext
from functools import cache
from typing import Any, cast

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    message_chunk_to_message,
)
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.config import get_stream_writer

from echo_agent.answers import ANSWER
from echo_agent.chat import ChatLALM
from echo_agent.graphs.calls import MARGIN, calls_of, is_forced, request_answer
from echo_agent.graphs.hearing import AudioRefusals, check_hears
from echo_agent.graphs.search_record import choices_of
from echo_agent.graphs.state import ListeningContext, ListeningState, Spent, current
from echo_agent.graphs.usage import finish_of, sampled_tokens, written_tokens
from echo_agent.messages import holds_audio_data
from echo_agent.tools.audible import hearable
from echo_agent.tools.bound import make_relisten

Update = dict[str, Any]


def reason(state: ListeningState, context: ListeningContext) -> Update:
    """Let the model go on."""
    call = _Call(state, context)
    with call.refusals():
        if not context.stream_tokens:
            return _reasoned(state, call.model.invoke(call.messages, **call.options))
        whole = _Whole(call.given(), call.limit)
        with closing(
            cast("Generator[AIMessage]", call.model.stream(call.messages, **call.options))
        ) as chunks:
            for chunk in chunks:
                if not whole.add(chunk):
                    break
    return _reasoned(state, whole.message())


async def areason(state: ListeningState, context: ListeningContext) -> Update:
    """Let the model go on."""
    call = _Call(state, context) if context.by_reference else await asyncio.to_thread(_Call, state, context)
    with call.refusals():
        if not context.stream_tokens:
            return _reasoned(state, await call.model.ainvoke(call.messages, **call.options))
        given = await asyncio.to_thread(call.given) if holds_audio_data(call.messages) else call.given()
        whole = _Whole(given, call.limit)
        chunks = cast("AsyncGenerator[AIMessage]", call.model.astream(call.messages, **call.options))
        async with aclosing(chunks):
            async for chunk in chunks:
                if not whole.add(chunk):
                    break
    return _reasoned(state, whole.message())


class _Call:
    """One call of the model; audio is read here where it is not delivered by reference."""

    def __init__(self, state: ListeningState, context: ListeningContext) -> None:
        messages, budget = current(state["messages"]), context.budget
        forced = is_forced(messages)
        self._context = context
        self.model: Runnable[Any, AIMessage] = context.model
        self.limit: float | None = None
        """Tokens after which a stream is ended; None where the model itself keeps to the budget."""
        self.options: dict[str, Any] = dict(context.options)
        self.options |= {"temperature": context.temperature} if context.temperature is not None else {}
        self.options |= {"top_p": context.top_p} if context.top_p is not None else {}
        left = budget.max_new_tokens - state["spent"]["tokens"]
        if context.ours:
            reserve = budget.answer_tokens + MARGIN
            left, reserve = (budget.answer_tokens, 0) if forced else (left, reserve)
            self.options |= {"seed": context.seed, "run": state["run"], "max_new_tokens": left}
            self.options |= {"reserve": reserve}
            self.options |= {"choices": tuple(choices_of(state) or ())} if context.guided else {}
        else:  # before its answer, such a model may think once more: it cannot be put right in front of it
            self.limit = max(budget.answer_tokens, budget.max_new_tokens) if forced else left
            self.model = context.model if forced else context.model.bind_tools([_tool_schema()])
        if not context.ours and not context.by_reference:
            check_hears(context.model)
        self.messages: list[BaseMessage] = (
            [*messages] if context.by_reference else hearable(messages, context.recordings, context.rate)
        )

    def given(self) -> str:
        """What the model is given to continue, as a person reads it."""
        model = self._context.model
        return model.context(self.messages).readable if isinstance(model, ChatLALM) else ""

    def refusals(self) -> Any:
        """What a refusal to hear becomes."""
        return nullcontext() if self._context.ours else AudioRefusals(self._context.model)


@cache
def _tool_schema() -> dict[str, Any]:
    return convert_to_openai_tool(make_relisten([]))


class _Whole:
    """A message that is being streamed."""

    def __init__(self, given: str, limit: float | None) -> None:
        self._write: Callable[[Any], None] = get_stream_writer()
        self._limit, self._written = limit, 0.0
        self._whole: AIMessageChunk | AIMessage | None = None
        self._cut = False
        self._send(given, "tool")

    def _send(self, text: str, origin: str) -> None:
        if text:
            self._write({"type": "token", "text": text, "origin": origin})

    def add(self, chunk: AIMessage) -> bool:
        """Take one more chunk (a model that cannot stream gives its whole message as one); whether more may come."""
        written = written_tokens(chunk)
        if written and self._limit is not None and self._written >= self._limit:
            self._cut = True
            return False
        self._written += written
        self._send(str(chunk.text), "sampled")
        whole = self._whole
        if isinstance(whole, AIMessageChunk) and isinstance(chunk, AIMessageChunk):
            chunk = whole + chunk
        self._whole = chunk
        return True

    def message(self) -> AIMessage:
        """The whole message."""
        whole = self._whole
        assert whole is not None, "a stream has at least one chunk"
        message = message_chunk_to_message(whole) if isinstance(whole, AIMessageChunk) else whole
        assert isinstance(message, AIMessage)
        if self._cut:
            message.response_metadata = {**message.response_metadata, "finish_reason": "length"}
        return message


def _reasoned(state: ListeningState, message: AIMessage) -> Update:
    """What the model's message changes: the tokens that were spent. Out of them or in a loop, it is asked to answer."""
    forced = is_forced(state["messages"])
    spent = state["spent"]
    if not forced:
        tokens = spent["tokens"] + sampled_tokens(message)
        spent = Spent(relistens=spent["relistens"], seconds=spent["seconds"], tokens=tokens)
    answer: list[AnyMessage] = [message]
    finish = finish_of(message)
    lost = finish == "length" or (finish == "loop" and ANSWER not in message.text)
    if forced or not lost or calls_of(message):
        return {"messages": answer, "spent": spent}
    asked = request_answer("loop" if finish == "loop" else "tokens")
    return {"messages": [*answer, asked], "spent": spent, "budget_exhausted": True}
