"""Recordings for an agent of LangChain whose model hears: the first listen, the tool to listen again, and the audio.

    from langchain.agents import create_agent
    from echo_agent import HearingMiddleware

    agent = create_agent("openai:gpt-4o-audio-preview", middleware=[HearingMiddleware(["talk.flac"])])

The agent's messages hold references only. Audio is put into a copy of them for each call of the model and is kept
nowhere: no checkpoint of the agent and none of its streams hold any. (What watches the calls of the model, such as
LangSmith, sees what the model is sent.) Calls may be made side by side, with those of other tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage

from echo_agent.audio.recording import AudioRef
from echo_agent.chat import ChatLALM
from echo_agent.errors import MissingExtraError
from echo_agent.families.base import Limits
from echo_agent.messages import audio_block, is_audio
from echo_agent.stores import RecordingStore
from echo_agent.tools.audible import hearable
from echo_agent.tools.bound import Recordings, make_relisten, references
from echo_agent.tools.relisten import DEFAULT_LIMITS

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as error:
    raise MissingExtraError(
        'HearingMiddleware stands in an agent of LangChain: pip install "echo-agent[langchain]"'
    ) from error


class HearingMiddleware(AgentMiddleware[Any, Any, Any]):
    """Lets a model that hears listen to recordings, and listen again; see the module."""

    def __init__(
        self,
        recordings: Recordings,
        *,
        limits: Limits = DEFAULT_LIMITS,
        rate: int = 16000,
        store: RecordingStore | None = None,
    ) -> None:
        """Bind recordings.

        Args:
            recordings: Paths, open recordings, or references into ``store``; calls count them from 1. They are heard
                whole at the head of the conversation, unless a message brings them already.
            limits: Shortest and longest stretch that is heard again.
            rate: Samples per second of the audio that the model gets, in Hz.
            store: Where references are looked up; a new one by default.

        Raises:
            RecordingError: A recording cannot be opened.
        """
        super().__init__()
        self._store, self._rate = store or RecordingStore(), rate
        self._refs = references(recordings, self._store)
        self.tools = [make_relisten(self._refs, limits=limits, store=self._store)]

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call the model with messages that can be heard."""
        return handler(request.override(messages=self._heard(request)))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Call the model with messages that can be heard; audio is read in a thread."""
        return await handler(request.override(messages=await asyncio.to_thread(self._heard, request)))

    def _heard(self, request: ModelRequest[Any]) -> list[Any]:
        """The messages of a call; a model of ours takes references as they are."""
        if isinstance(request.model, ChatLALM):
            for ref in self._refs:
                request.model.engine.recordings.add(self._store.get(ref))
            return _begun(request.messages, [(ref, []) for ref in self._refs])
        labels = [f"Recording {i} ({ref.duration:.1f} s):" for i, ref in enumerate(self._refs, start=1)]
        heads = [
            (ref, [{"type": "text", "text": text}]) for ref, text in zip(self._refs, labels, strict=True)
        ]
        return hearable(_begun(request.messages, heads), self._store, self._rate)


def _begun(
    messages: Sequence[AnyMessage], recordings: Sequence[tuple[AudioRef, list[dict[str, Any]]]]
) -> list[BaseMessage]:
    """Messages with recordings, each under its heading, at the head of the first question that is left of them.

    A recording that a message brings itself is not heard twice.
    """
    begun: list[BaseMessage] = [*messages]
    parts = [block for message in begun if isinstance(message.content, list) for block in message.content]
    brought = {block.get("file_id") for block in parts if is_audio(block)}
    missing: list[str | dict[str, Any]] = []
    for ref, heading in recordings:
        if ref.key() not in brought:
            missing += [*heading, audio_block(ref)]
    for i, message in enumerate(begun):
        if missing and isinstance(message, HumanMessage):
            said = message.content
            own = [{"type": "text", "text": said}] if isinstance(said, str) else said
            begun[i] = message.model_copy(update={"content": [*missing, *own]})
            break
    return begun
