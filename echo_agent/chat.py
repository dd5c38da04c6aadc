"""The model as a LangChain chat model: messages in, one AI message out, token by token underneath.

A call renders the messages to token ids (:mod:`echo_agent.rendering`), asks the engine to go on, and puts what was
given and what was sampled into the AI message as a token delta. So the model can stand in any LangChain or LangGraph
agent, while the trajectory stays exact: nothing that was sampled is ever tokenised again.

Greedy by default. ``temperature``, ``top_p``, ``seed``, ``run``, ``max_new_tokens`` and ``choices`` are fields that a
call may override: ``model.bind(run=3)``, ``model.invoke(messages, temperature=0.7)``, or ``configurable_fields``. Noise
is a function of (seed, run, position), so the runs of one seed need numbers of their own, and batching changes nothing.

Calls to listen again become ``tool_calls``; what was meant as one and cannot be read becomes ``invalid_tool_calls``,
which the caller must answer too.
"""

from __future__ import annotations

import asyncio
import queue
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
from pydantic import ConfigDict, Field, model_validator

from echo_agent.answers import TOOL_NAME
from echo_agent.dialects import Dialect, dialect_named
from echo_agent.engine.generation import Generation, SamplingParams
from echo_agent.errors import ContextError
from echo_agent.families.base import Family
from echo_agent.messages import DELTA_KEY, GIVEN_KEY
from echo_agent.rendering import Context, Renderer, visible_text
from echo_agent.trajectory import Segment, TokenDelta

if TYPE_CHECKING:
    from echo_agent.engine.torch_engine import TorchEngine

FINISH_KEY, TOKENS_KEY, TIMINGS_KEY, ERRORS_KEY = "finish", "tokens", "timings", "call_errors"
"""Further keys of ``response_metadata``."""

_OPTIONS = ("temperature", "top_p", "seed", "run", "max_new_tokens", "reserve", "choices")
_IGNORED = {"tools", "tool_choice", "stream", "strict", "parallel_tool_calls", "ls_structured_output_format"}


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
    """Most tokens to sample in one call."""
    reserve: int = 0
    """Tokens of the context that a call leaves free, for an answer that is asked for later."""
    choices: tuple[str, ...] = ()
    """What alone may be written as the answer; empty leaves the policy free."""

    def __init__(self, engine: TorchEngine, **settings: Any) -> None:
        """Wrap an engine; ``settings`` are the fields."""
        fields: dict[str, Any] = {"engine": engine, **settings}
        super().__init__(**fields)

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
    def _llm_type(self) -> str:
        return "echo-agent"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.family.name, "dialect": self.dialect.name} | {
            key: getattr(self, key) for key in _OPTIONS
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return super()._get_ls_params(stop=stop, **kwargs) | {
            "ls_provider": "echo-agent",
            "ls_model_name": self.family.name,
        }

    def _resolve_model_profile(self) -> Any:
        return {
            "max_input_tokens": self.family.context_length,
            "audio_inputs": True,
            "text_inputs": True,
            "text_outputs": True,
            "tool_calling": True,
        }

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind the tool ``relisten``: the policy knows how to call it and no other.

        Args:
            tools: One tool named ``relisten`` (or none).
            tool_choice: ``auto`` or None: the policy decides for itself.
            **kwargs: Options of the calls, as for ``bind``.

        Raises:
            ValueError: Another tool, or a choice that cannot be kept.
        """
        known = [convert_to_openai_tool(entry) for entry in tools]
        names = [entry["function"]["name"] for entry in known]
        if set(names) - {TOOL_NAME}:
            raise ValueError(
                f"{self.family.name} can call {TOOL_NAME!r} and nothing else, not {', '.join(names)}"
            )
        if tool_choice not in (None, "auto"):
            raise ValueError(
                f"tool_choice {tool_choice!r} is not possible: the policy decides when to listen again"
            )
        return self.bind(tools=known, **kwargs)

    # --- one call -----------------------------------------------------------------------------------------------

    def context(self, messages: Sequence[BaseMessage]) -> Context:
        """What the messages come to in tokens: the trajectory so far, and what is given next."""
        return self._renderer.context(messages)

    def _request(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, options: dict[str, Any]
    ) -> tuple[Context, SamplingParams]:
        """The context of a call and how to sample after it; raises ContextError where it does not fit the model."""
        unknown = options.keys() - _IGNORED - set(_OPTIONS)
        if unknown:
            raise TypeError(
                f"ChatLALM has no option {', '.join(sorted(unknown))}; there are {', '.join(_OPTIONS)}"
            )
        chosen = {key: getattr(self, key) for key in _OPTIONS} | {
            k: v for k, v in options.items() if k in _OPTIONS
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
        return context, SamplingParams(**chosen, stop=(*self.dialect.stop_strings, *(stop or ())))

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
                "near_ties": generation.near_ties,
            },
            TIMINGS_KEY: asdict(generation.timings),
            "model_name": self.family.name,
        }
        if bad:
            metadata[ERRORS_KEY] = {call["id"]: call["error"] for call in bad}
        usage = UsageMetadata(
            input_tokens=generation.prompt_tokens,
            output_tokens=len(generation.ids),
            total_tokens=generation.prompt_tokens + len(generation.ids),
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
        context, params = self._request(messages, stop, kwargs)
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
        context, params = self._request(messages, stop, kwargs)
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
