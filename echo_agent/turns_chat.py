"""Chat models of other makers in the ``turns`` dialect: calls are written as text, so that any server can be used.

A server is asked for nothing but chat messages with audio: no token ids, no tool calling, no templates of its own. What
the tool is and how it is called stands in the system message, with a protocol for models that were never taught to
listen again. A call ends the assistant's turn; the tool's response and the audio come in the next user message.

Audio is a reference in the messages that come in. It is read, and written as a wav file, for one call, and kept
nowhere. Given the tool (:meth:`TurnsChat.bind_tools`) the model may call it; without it, it is told to answer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field

from echo_agent.answers import ANSWER_END, TOOL_NAME
from echo_agent.audio.recording import AudioRef, wav_bytes
from echo_agent.chat import ERRORS_KEY, FINISH_KEY, TIMINGS_KEY, TOKENS_KEY
from echo_agent.dialects import TurnsDialect, prompt
from echo_agent.messages import GIVEN_KEY, QUESTION_KEY, read_contents
from echo_agent.stores import RecordingStore
from echo_agent.tools.relisten import Reply

Block = str | dict[str, Any]


class TurnsChat(BaseChatModel):
    """Another maker's chat model, spoken to in the ``turns`` dialect; see the module."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseChatModel = Field(exclude=True)
    """The model; it takes audio blocks (base64 wav) in user messages."""
    recordings: RecordingStore = Field(exclude=True)
    """Where the samples of references come from."""
    name_of_model: str
    """What results call it."""
    rate: int = 16000
    """Samples per second of the audio it is given, in Hz."""

    @property
    def _llm_type(self) -> str:
        return f"turns:{self.name_of_model}"

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call ``relisten``, the tool that its prompt tells it of."""
        return self.bind(tools=list(tools), **kwargs)

    # --- one call -------------------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        may_call = bool(kwargs.pop("tools", None))
        turns = self.turns(messages, may_call=may_call)
        said = self.inner.invoke(turns, stop=[*_STOPS, *(stop or ())], **kwargs)
        return _result(self._message(messages, said, may_call))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        may_call = bool(kwargs.pop("tools", None))
        turns = await asyncio.to_thread(self.turns, messages, may_call=may_call)
        said = await self.inner.ainvoke(turns, stop=[*_STOPS, *(stop or ())], **kwargs)
        return _result(self._message(messages, said, may_call))

    # --- what it is told ------------------------------------------------------------------------------------------

    def turns(self, messages: Sequence[BaseMessage], *, may_call: bool) -> list[BaseMessage]:
        """The conversation as the server gets it: system, user and assistant in turn, audio in user messages alone.

        Raises:
            RecordingError: A recording cannot be read.
        """
        out: list[BaseMessage] = [SystemMessage(system_prompt() if may_call else prompt("turns"))]
        waiting: list[Block] = []
        for message in messages:
            if isinstance(message, AIMessage):
                if waiting:
                    out.append(HumanMessage(content=waiting))
                    waiting = []
                out.append(AIMessage(message.text or " "))
            elif isinstance(message, ToolMessage):
                waiting += self._reply(message)
            else:
                waiting += self._said(message)
        if waiting:
            out.append(HumanMessage(content=waiting))
        return out

    def _said(self, message: BaseMessage) -> list[Block]:
        """What a user says, with the length of each recording: spans are counted on it."""
        text, audio = read_contents([message], self.recordings)
        blocks: list[Block] = []
        for number, ref in enumerate(audio, start=1):
            label = (
                f"Recording {number} ({ref.seconds:.1f} seconds):"
                if QUESTION_KEY in message.additional_kwargs
                else ""
            )
            blocks += [_text(label)] * bool(label) + [self._audio(ref)]
        return [*blocks, _text(text)] if text else blocks

    def _reply(self, message: ToolMessage) -> list[Block]:
        """What the tool says, and what is heard."""
        reply = Reply.of(message)
        blocks: list[Block] = [_text(f"<tool_response>\n{message.text}\n</tool_response>")]
        return blocks if reply is None or reply.ref is None else [*blocks, self._audio(reply.ref)]

    def _audio(self, ref: AudioRef) -> dict[str, Any]:
        data = wav_bytes(self.recordings.crop(ref, self.rate), self.rate)
        return {"type": "audio", "base64": base64.b64encode(data).decode(), "mime_type": "audio/wav"}

    # --- what it says ---------------------------------------------------------------------------------------------

    def _message(self, before: Sequence[BaseMessage], said: AIMessage, may_call: bool) -> AIMessage:
        """Its message, up to the end of its first call, with the call read."""
        finish = said.response_metadata.get("finish_reason") or "stop"
        text = str(said.text)
        _, opened, body = text.partition(_DIALECT.call_open)
        if opened and _DIALECT.call_close in body:  # what comes after it, the server made up
            text = text[: text.index(_DIALECT.call_close, text.index(opened)) + len(_DIALECT.call_close)]
        elif opened and finish == "stop":  # the string that stopped it is not part of what it gives
            text += _DIALECT.call_close
        parsed = _DIALECT.parse(text)
        name = hashlib.sha256(f"{len(before)} {text}".encode()).hexdigest()[:12]
        calls: list[ToolCall] = []
        bad = []
        if may_call:
            calls = [
                tool_call(name=TOOL_NAME, args=call.arguments, id=f"call_{name}_{i}")
                for i, call in enumerate(parsed.calls)
            ]
            bad = [
                invalid_tool_call(name=TOOL_NAME, args=call.text, id=f"call_{name}_x{i}", error=call.error)
                for i, call in enumerate(parsed.invalid)
            ]
        usage = said.usage_metadata
        details: Any = (usage or {}).get("input_token_details") or {}
        metadata: dict[str, Any] = {
            FINISH_KEY: {"stop": "eos", "tool_calls": "eos"}.get(finish, finish),
            TOKENS_KEY: {
                "prompt": usage["input_tokens"] if usage else 0,
                "cached": details.get("cache_read", 0),
                "audio": details.get("audio", 0),
            },
            TIMINGS_KEY: {"encode": 0.0, "prefill": 0.0, "decode": 0.0},
            GIVEN_KEY: _DIALECT.readable_reply("") if isinstance(before[-1], ToolMessage) else "",
            "model_name": self.name_of_model,
        }
        if bad:
            metadata[ERRORS_KEY] = {call["id"]: call["error"] for call in bad}
        return AIMessage(
            content=text,
            tool_calls=calls,
            invalid_tool_calls=bad,
            response_metadata=metadata,
            usage_metadata=usage,
        )


_DIALECT = TurnsDialect()
_STOPS = (_DIALECT.call_close, ANSWER_END)


@cache
def system_prompt() -> str:
    """The tool, how it is called, and what to do: for models that were never taught to listen again."""
    protocol = (files("echo_agent") / "prompts" / "untrained.txt").read_text(encoding="utf-8").rstrip("\n")
    return "\n\n".join((prompt("turns"), protocol))


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])
