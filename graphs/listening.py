"""The listening graph: ``listen -> reason -> (relisten -> reason)* -> answer``.

- *listen* puts the recordings and the question into the messages.
- *reason* lets the model go on until it asks to listen again, answers, or has used up its tokens.
- *relisten* answers every call, also those that cannot be read or mended, and keeps the budget.
- *answer* reads the answer. What is not written as one is ``unparsed``; nothing is guessed.

Where there are choices, a ``ChatLALM`` that has opened its answer may write nothing but one of them, unless the context
says ``guided=False``. An answer that is not opened, or not finished within the budget, stays unparsed.

At the end of the budget the model is asked for its answer once, by a message that ``ChatLALM`` renders as the opening
of the answer (``</think><answer>``) and other models read as a request. What it then writes is final.

The graph runs sync and async, streams, checkpoints after every node when it has a saver, and can stop for a person
before a call is answered. It is a function of its state, its context and nothing else, so a resumed run equals one that
was never stopped. With ``stream_mode="custom"`` it sends

- ``{"type": "token", "text", "origin"}``: a piece of the assistant's turn, ``sampled`` or given by a ``tool``;
- ``{"type": "relisten", "index", "outcome", "start", "end", "seconds", "observation", "speed", ...}``: call number
  ``index`` was answered (with the times and the transform that are heard; None and none where nothing is);
- ``{"type": "answer", "answer", "status", "choice_index"}``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    message_chunk_to_message,
)
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import get_runtime

from echo_agent.answers import check_question, extract_answer, match_choice, question_text
from echo_agent.chat import FINISH_KEY, TOKENS_KEY, ChatLALM
from echo_agent.graphs.calls import MARGIN, answer_calls, calls_of, hearable, is_forced, request_answer
from echo_agent.graphs.state import ListeningContext, ListeningState, Spent, current, recordings_of
from echo_agent.messages import QUESTION_KEY, audio_block, transcript
from echo_agent.tools.relisten import make_relisten

Update = dict[str, Any]
Step = Callable[[ListeningState], Any]
AsyncStep = Callable[[ListeningState], Awaitable[Any]]


def build_listening_graph(
    *,
    checkpointer: BaseCheckpointSaver[Any] | Literal[True] | None = None,
    interrupt_before_tool: bool = False,
) -> CompiledStateGraph[ListeningState, ListeningContext, ListeningState, ListeningState]:
    """Compile the listening graph; call it with :func:`initial_state` and ``context=ListeningContext(...)``.

    Args:
        checkpointer: Saves the state after each node; then calls need a ``thread_id``. True and None have LangGraph's
            meaning for graphs that are nodes of another.
        interrupt_before_tool: Stop before each call is answered (needs a checkpointer). The interrupt's value is the
            call; resume with ``Command(resume=True)``, or with a dict of other arguments; anything else forbids it.
    """

    def relisten(state: ListeningState) -> Update:
        return answer_calls(state, _context(), ask=interrupt_before_tool)

    async def arelisten(state: ListeningState) -> Update:
        context = _context()
        if context.control == "wrong-crop":  # looks for a place that is not silent, which reads files
            return await asyncio.to_thread(answer_calls, state, context, ask=interrupt_before_tool)
        return answer_calls(state, context, ask=interrupt_before_tool)

    graph = StateGraph(ListeningState, context_schema=ListeningContext)
    graph.add_node("listen", _Step("listen", _listen))
    graph.add_node("reason", _Step("reason", _reason, _areason))
    graph.add_node("relisten", _Step("relisten", relisten, arelisten))
    graph.add_node("answer", _Step("answer", _answer))
    graph.add_edge(START, "listen")
    graph.add_edge("listen", "reason")
    graph.add_conditional_edges("reason", _Step("next", _next), ["reason", "relisten", "answer"])
    graph.add_edge("relisten", "reason")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=checkpointer, name="listening")


class _Step(Runnable[Any, Any]):
    """A node with a function for either world, called as it is: ``RunnableLambda`` costs most of a millisecond."""

    def __init__(self, name: str, step: Step, astep: AsyncStep | None = None) -> None:
        """Name the step; without an async twin it takes no time, and the event loop runs it itself."""
        self.name = name
        self._step, self._astep = step, astep

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._step(input)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._step(input) if self._astep is None else await self._astep(input)


def _context() -> ListeningContext:
    """The context of this run."""
    context = get_runtime(ListeningContext).context
    if not isinstance(context, ListeningContext):
        raise TypeError("the listening graph needs context=ListeningContext(model=..., recordings=...)")
    return context


# --- listen -----------------------------------------------------------------------------------------------------


def _listen(state: ListeningState) -> Update:
    """Put the question into the messages, and everything else back to the start."""
    question, choices = state["question"], state.get("choices")
    check_question(question, choices)
    content: list[str | dict[str, Any]] = [audio_block(ref) for ref in recordings_of(state)]
    content.append({"type": "text", "text": question_text(question, choices)})
    asked = HumanMessage(
        content, additional_kwargs={QUESTION_KEY: {"question": question, "choices": choices}}
    )
    return {
        "messages": [asked],
        "run": state.get("run", 0),
        "settings": _context().settings(),
        "spent": Spent(relistens=0, seconds=0.0, tokens=0),
        "budget_exhausted": False,
        "answer": None,
        "status": None,
        "choice_index": None,
    }


# --- reason -----------------------------------------------------------------------------------------------------


def _reason(state: ListeningState) -> Update:
    """Let the model go on."""
    context = _context()
    messages, options = _call(state, context)
    if not context.stream_tokens:
        return _reasoned(state, context, _bound(context).invoke(messages, **options))
    whole = _Whole(context, messages)
    for chunk in _bound(context).stream(messages, **options):
        whole.add(chunk)
    return _reasoned(state, context, whole.message())


async def _areason(state: ListeningState) -> Update:
    """Let the model go on."""
    context = _context()
    if context.by_reference:
        messages, options = _call(state, context)
    else:  # reads audio
        messages, options = await asyncio.to_thread(_call, state, context)
    if not context.stream_tokens:
        return _reasoned(state, context, await _bound(context).ainvoke(messages, **options))
    whole = _Whole(context, messages)
    async for chunk in _bound(context).astream(messages, **options):
        whole.add(chunk)
    return _reasoned(state, context, whole.message())


def _call(state: ListeningState, context: ListeningContext) -> tuple[list[BaseMessage], dict[str, Any]]:
    """Messages and options of the next call of the model."""
    messages = current(state["messages"])
    options = dict(context.options)
    options |= {"temperature": context.temperature} if context.temperature is not None else {}
    options |= {"top_p": context.top_p} if context.top_p is not None else {}
    if context.ours:
        budget = context.budget
        left, reserve = budget.max_new_tokens - state["spent"]["tokens"], budget.answer_tokens + MARGIN
        if is_forced(messages):
            left, reserve = budget.answer_tokens, 0
        options |= {"seed": context.seed, "run": state["run"], "max_new_tokens": left, "reserve": reserve}
        options |= {"choices": tuple(state.get("choices") or ())} if context.guided else {}
    return messages if context.by_reference else hearable(messages, context), options


def _bound(context: ListeningContext) -> Runnable[Any, AIMessage]:
    """The model with its tool; ChatLALM knows it anyway."""
    return context.model if context.ours else context.model.bind_tools([_tool_schema()])


@cache
def _tool_schema() -> dict[str, Any]:
    return convert_to_openai_tool(make_relisten([]))


class _Whole:
    """A message that is being streamed."""

    def __init__(self, context: ListeningContext, messages: list[BaseMessage]) -> None:
        self._write = get_stream_writer()
        self._whole: AIMessageChunk | AIMessage | None = None
        if isinstance(context.model, ChatLALM):
            self._send(context.model.context(messages).readable, "tool")

    def _send(self, text: str, origin: str) -> None:
        if text:
            self._write({"type": "token", "text": text, "origin": origin})

    def add(self, chunk: AIMessage) -> None:
        """Take one more chunk (a model that cannot stream gives its whole message as one)."""
        self._send(str(chunk.text), "sampled")
        both = isinstance(self._whole, AIMessageChunk) and isinstance(chunk, AIMessageChunk)
        self._whole = self._whole + chunk if both else chunk  # pyright: ignore[reportOperatorIssue]

    def message(self) -> AIMessage:
        """The whole message."""
        whole = self._whole
        assert whole is not None, "a stream has at least one chunk"
        return message_chunk_to_message(whole) if isinstance(whole, AIMessageChunk) else whole  # pyright: ignore[reportReturnType]


def _reasoned(state: ListeningState, context: ListeningContext, message: AIMessage) -> Update:
    """What the model's message changes: the tokens that were spent; out of tokens, it is asked for its answer."""
    forced = is_forced(state["messages"])
    spent = state["spent"]
    if not forced:
        spent = Spent(**{**spent, "tokens": spent["tokens"] + sampled_tokens(message)})
    if forced or finish_of(message) != "length" or calls_of(message):
        return {"messages": [message], "spent": spent}
    return {"messages": [message, request_answer("tokens")], "spent": spent, "budget_exhausted": True}


def sampled_tokens(message: AIMessage) -> int:
    """How many tokens a message cost."""
    tokens = message.response_metadata.get(TOKENS_KEY)
    if isinstance(tokens, dict) and "sampled" in tokens:
        return tokens["sampled"]
    return (message.usage_metadata or {}).get("output_tokens", 0)


def finish_of(message: BaseMessage) -> str:
    """Why a message ended: ``eos``, ``stop``, ``length``; other models' words for these are translated."""
    metadata = message.response_metadata
    finish = (
        metadata.get(FINISH_KEY) or metadata.get("finish_reason") or metadata.get("stop_reason") or "stop"
    )
    if FINISH_KEY in metadata:
        return finish
    return {"stop": "eos", "end_turn": "eos", "max_tokens": "length"}.get(finish, finish)


def _next(state: ListeningState) -> str:
    """Where to go after the model had the word."""
    last = state["messages"][-1]
    if not isinstance(last, AIMessage):
        return "reason"
    return "relisten" if calls_of(last) and not is_forced(state["messages"]) else "answer"


# --- answer -----------------------------------------------------------------------------------------------------


def _answer(state: ListeningState) -> Update:
    """Read the answer, or say that there is none."""
    messages = current(state["messages"])
    answer, index = extract_answer(transcript(messages), ended=finish_of(messages[-1]) == "eos"), None
    choices = state.get("choices")
    if choices is not None:
        index = match_choice(answer, choices)
        answer = None if index is None else choices[index]
    update = {"answer": answer, "status": "unparsed" if answer is None else "answered", "choice_index": index}
    get_stream_writer()({"type": "answer", **update})
    return update
