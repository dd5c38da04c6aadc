"""The model as a LangChain chat model: messages in, one AI message out, token by token underneath.

A call renders the messages to token ids (:mod:`echo_agent.rendering`), asks the engine to go on, and puts what was
given and what was sampled into the AI message as a token delta. So the model can stand in any LangChain or LangGraph
agent, while the trajectory stays exact: nothing that was sampled is ever tokenised again.

Greedy by default. ``temperature``, ``top_p``, ``seed``, ``run``, ``max_new_tokens`` (or ``max_tokens``, as other chat
models call it), ``max_repeats``, ``stop`` and ``choices`` are fields that a call may override: ``model.bind(run=3)`` or
``model.invoke(messages, temperature=0.7)``. Noise is a function of (seed, run, position), so the runs of one seed need
numbers of their own, and batching changes nothing.

Calls to listen again become ``tool_calls``; what was meant as one and cannot be read becomes ``invalid_tool_calls``,
which the caller must answer too.
"""

from __future__ import annotations

import asyncio
import queue
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, field_validator, model_validator

from echo_agent.answers import TOOL_NAME
from echo_agent.chat_options import IGNORED, OPTIONS, renamed, unknown_names
from echo_agent.dialects import Dialect, dialect_named
from echo_agent.engine.generation import Generation, SamplingParams
from echo_agent.errors import ContextError, ModelError
from echo_agent.families.base import Family
from echo_agent.messages import DELTA_KEY, GIVEN_KEY, holds_audio_data, read_contents
from echo_agent.rendering import Context, Renderer, visible_text
from echo_agent.tools.relisten import Reply
from echo_agent.trajectory import Segment, TokenDelta

if TYPE_CHECKING:
    from echo_agent.audio.recording import AudioRef
    from echo_agent.engine import TorchEngine, VLLMEngine

FINISH_KEY, TOKENS_KEY, TIMINGS_KEY, ERRORS_KEY = "finish", "tokens", "timings", "call_errors"
WEIGHTS_KEY = "weights"
"""Further keys of ``response_metadata``."""


class ChatLALM(BaseChatModel):
    """An audio language model of ours as a LangChain chat model; see the module."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    engine: Any = Field(exclude=True, repr=False)
    """The engine; it holds the family and the store of recordings."""
    dialect: Dialect = Field(default=None, exclude=True)  # pyright: ignore[reportAssignmentType]
    """How calls are written; the family's own by default. A name is accepted."""
    temperature: float = 0.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    """Share of the probability that is sampled from."""
    seed: int = 0
    """Seed of the sampling noise."""
    run: int = 0
    """Which run of this seed."""
    max_new_tokens: int = 1024
    """Most tokens to sample in one call; ``max_tokens`` is another name for it."""
    max_repeats: int = 0
    """A call ends once its text repeats itself so many times in a row; 0 lets it go on."""
    stop: tuple[str, ...] = ()
    """Strings that end a call, besides those of the dialect; the text ends with the one that was written. A call that
    names its own has those in their place."""
    streaming: bool = False
    """``invoke`` takes the message in pieces too, for whoever handles tokens."""
    reserve: int = 0
    """Tokens of the context that a call leaves free, for an answer that is asked for later."""
    choices: tuple[str, ...] = ()
    """What alone may be written as the answer; empty leaves the policy free."""

    def __init__(self, engine: TorchEngine | VLLMEngine, **settings: Any) -> None:
        """Wrap an engine; ``settings`` are the fields.

        Raises:
            TypeError: There is no such setting; the nearest name is said.
        """
        fields: dict[str, Any] = {"engine": engine, **renamed(settings)}
        if unknown := [name for name in fields if name not in type(self).model_fields]:
            raise TypeError(unknown_names("setting", unknown, (*type(self).model_fields, "max_tokens")))
        super().__init__(**fields)

    @field_validator("stop", mode="before")
    @classmethod
    def _several_stops(cls, value: Any) -> Any:
        """One string is a list of one."""
        return () if value is None else (value,) if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _choose_dialect(cls, values: Any) -> Any:
        """Fill in the family's dialect, or look one up by its name."""
        dialect = values.get("dialect") or values["engine"].family.default_dialect
        return values | {"dialect": dialect_named(dialect) if isinstance(dialect, str) else dialect}

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self.family, self.dialect, self.engine.recordings)

    # --- what LangChain asks ------------------------------------------------------------------------------------

    @property
    def family(self) -> Family:
        """The family of the engine."""
        return self.engine.family

    @property
    def max_tokens(self) -> int:
        """Most tokens to sample in one call, under the name that other chat models have for it."""
        return self.max_new_tokens

    @property
    def _llm_type(self) -> str:
        return "echo-agent"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.family.name, "dialect": self.dialect.name} | {
            key: getattr(self, key) for key in (*OPTIONS, "stop")
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return super()._get_ls_params(stop=stop, **kwargs) | {
            "ls_provider": "echo-agent",
            "ls_model_name": kwargs.get("model", self.family.name),
        }

    def _resolve_model_profile(self) -> Any:
        return {
            "max_input_tokens": self.family.context_length,
            "audio_inputs": True,
            "text_inputs": True,
            "text_outputs": True,
            "image_inputs": False,
            "video_inputs": False,
            "pdf_inputs": False,
            "tool_calling": False,
            "tool_choice": False,
            "structured_output": False,
        }

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind the tool ``relisten``: the policy knows how to call it and no other.

        The profile says so (``tool_calling``, ``tool_choice``). Another tool, or a call that is demanded, is no error,
        for agents bind what they have to any model: there is a warning, and the tool is never called.

        Args:
            tools: Tools, of which the one named ``relisten`` is called.
            tool_choice: ``auto`` or None: the policy decides for itself.
            **kwargs: Options of the calls, as for ``bind``.
        """
        known = [convert_to_openai_tool(entry) for entry in tools]
        others = [name for entry in known if (name := entry["function"]["name"]) != TOOL_NAME]
        if others:
            warnings.warn(
                f"{self.family.name} can call {TOOL_NAME!r} and nothing else; it will never call {', '.join(others)}",
                stacklevel=2,
            )
        if tool_choice not in (None, "auto"):
            warnings.warn(
                f"tool_choice {tool_choice!r} has no effect: {self.family.name} decides when to listen again",
                stacklevel=2,
            )
        return self.bind(tools=known, **kwargs)

    # --- counting -----------------------------------------------------------------------------------------------

    def get_token_ids(self, text: str) -> list[int]:
        """Ids of a text in the model's own vocabulary; what looks like a control token is text."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self.family.tokenize(self.family.escape(text))

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Tokens of what messages say and bring to hear, message by message, as ``trim_messages`` wants to know it.

        The model's own prompt and the marks between turns are not among them, and ``tools`` add nothing:
        ``len(model.context(messages).ids)`` is the whole context, exactly.
        """
        return sum(self._count(message) for message in messages)

    def _count(self, message: BaseMessage) -> int:
        """Tokens of the text and the audio of one message."""
        text, audio = read_contents([message], self.engine.recordings)
        reply = Reply.of(message)
        heard = [*audio, reply.ref] if reply is not None and reply.ref is not None else audio
        return len(self.get_token_ids(text)) + sum(len(self.family.audio_ids(ref)) for ref in heard)

    # --- one call -----------------------------------------------------------------------------------------------

    def head(self, audio: Sequence[AudioRef], question: str, choices: Sequence[str] | None = None) -> Segment:
        """What a question and its recordings come to in tokens, up to where the model has the word."""
        self.engine.check_process()
        return self._renderer.head(audio, question, choices)

    def context(self, messages: Sequence[BaseMessage]) -> Context:
        """What the messages come to in tokens: the trajectory so far, and what is given next.

        Raises:
            ContextError: They hold what the model cannot be given, or nothing to answer.
            EchoAgentError: This process was forked after the model was loaded.
        """
        self.engine.check_process()
        return self._renderer.context(messages)

    def _request(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, options: dict[str, Any]
    ) -> tuple[Context, SamplingParams]:
        """The context of a call and how to sample after it; raises ContextError where it does not fit the model."""
        options = renamed(options)
        if (wanted := options.pop("model", None)) not in (None, self.family.name):
            raise ModelError(
                f"this call asks for the model {wanted!r}; {self.family.name} is the one that is loaded here"
            )
        if unknown := sorted(options.keys() - IGNORED - set(OPTIONS)):
            raise TypeError(unknown_names("option", unknown, (*OPTIONS, "max_tokens", "stop")))
        chosen = {key: getattr(self, key) for key in OPTIONS} | {
            k: v for k, v in options.items() if k in OPTIONS
        }
        context = self.context(messages)
        used, limit, reserve = len(context.ids), self.family.context_length, chosen.pop("reserve")
        room = limit - used - reserve
        if room < 1:
            raise ContextError(
                f"the context has {used} tokens; {self.family.name} holds {limit}, of which {reserve} are kept for the "
                "answer: shorten the question, listen again less often, or to less"
            )
        chosen["max_new_tokens"] = min(chosen["max_new_tokens"], room)
        own = self.stop if stop is None else (stop,) if isinstance(stop, str) else stop
        return context, SamplingParams(**chosen, stop=(*self.dialect.stop_strings, *own))

    async def _arequest(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, options: dict[str, Any]
    ) -> tuple[Context, SamplingParams]:
        """The same in an event loop, which is not kept waiting while audio is read."""
        if holds_audio_data(messages):
            return await asyncio.to_thread(self._request, messages, stop, options)
        return self._request(messages, stop, options)

    def _message(self, context: Context, generation: Generation) -> AIMessage:
        """The AI message of a generation."""
        text = visible_text(self.family, generation.ids)
        sampled = Segment(origin="sampled", ids=generation.ids, logprobs=generation.logprobs)
        segments = (*context.given, sampled) if generation.ids else context.given
        delta = TokenDelta(prefix=context.trajectory.hash, segments=segments, rerendered=context.rerendered)
        parsed = self.dialect.parse(text)
        name = f"call_{context.trajectory.append(*segments).hash[:12]}"
        calls: list[ToolCall] = [
            tool_call(name=TOOL_NAME, args=call.arguments, id=f"{name}_{i}")
            for i, call in enumerate(parsed.calls)
        ]
        bad = [
            invalid_tool_call(name=TOOL_NAME, args=call.text, id=f"{name}_x{i}", error=call.error)
            for i, call in enumerate(parsed.invalid)
        ]
        metadata: dict[str, Any] = {
            DELTA_KEY: delta.to_json(),
            GIVEN_KEY: context.readable,
            FINISH_KEY: generation.finish,
            TOKENS_KEY: {
                "prompt": generation.prompt_tokens,
                "cached": generation.cached_tokens,
                "audio": generation.audio_tokens,
                "sampled": len(generation.ids),
                "room": self.family.context_length - len(context.ids) - len(generation.ids),
                "steered": generation.steered,
                "near_ties": generation.near_ties,
            },
            TIMINGS_KEY: asdict(generation.timings),
            "model_name": self.family.name,
        }
        if generation.weights:
            metadata[WEIGHTS_KEY] = {
                "models": list(generation.weights),
                "versions": list(generation.versions),
            }
        if bad:
            metadata[ERRORS_KEY] = {call["id"]: call["error"] for call in bad}
        fresh = context.ids[generation.cached_tokens :]
        usage = UsageMetadata(
            input_tokens=generation.prompt_tokens,
            output_tokens=len(generation.ids),
            total_tokens=generation.prompt_tokens + len(generation.ids),
            input_token_details={  # each token counts once: audio that was cached is cached
                "audio": fresh.count(self.family.audio_id),
                "cache_read": generation.cached_tokens,
            },
        )
        return AIMessage(
            content=text,
            tool_calls=calls,
            invalid_tool_calls=bad,
            response_metadata=metadata,
            usage_metadata=usage,
        )

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        context, params = self._request(messages, stop, kwargs)
        generation = self.engine.generate(context.ids, context.audio, params)
        return ChatResult(generations=[ChatGeneration(message=self._message(context, generation))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        context, params = await self._arequest(messages, stop, kwargs)
        generation = await self.engine.agenerate(context.ids, context.audio, params)
        return ChatResult(generations=[ChatGeneration(message=self._message(context, generation))])

    # --- streaming ----------------------------------------------------------------------------------------------

    def _last_chunk(self, context: Context, generation: Generation, sent: str) -> ChatGenerationChunk:
        """The end of a stream: what is left of the text, and everything that belongs to the whole message."""
        message = self._message(context, generation)
        if not message.text.startswith(sent):
            raise ContextError(f"streamed text {sent!r} is not the beginning of {message.text!r}")
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=message.text[len(sent) :],
                tool_calls=message.tool_calls,
                invalid_tool_calls=message.invalid_tool_calls,
                response_metadata=message.response_metadata,
                usage_metadata=message.usage_metadata,
                chunk_position="last",
            )
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        context, params = self._request(messages, stop, kwargs)
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        future = self.engine.submit(
            context.ids, context.audio, params, on_token=lambda _, text: pieces.put(text)
        )
        future.add_done_callback(lambda _: pieces.put(None))
        sent = ""
        try:
            while (piece := pieces.get()) is not None:
                if piece:
                    sent += piece
                    yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
            yield self._last_chunk(context, future.result(), sent)
        finally:
            future.cancel()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        context, params = await self._arequest(messages, stop, kwargs)
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def put(piece: str | None) -> None:
            if not loop.is_closed():  # the caller may be gone while the engine still decodes
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        future = self.engine.submit(context.ids, context.audio, params, on_token=lambda _, text: put(text))
        future.add_done_callback(lambda _: put(None))
        sent = ""
        try:
            while (piece := await pieces.get()) is not None:
                if piece:
                    sent += piece
                    yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
            yield self._last_chunk(context, future.result(), sent)
        finally:
            future.cancel()
