"""The listening graph: ``listen -> search* -> reason -> (relisten -> reason)* -> answer``.

- *listen* puts the recordings and the question into the messages; in a thread, a newer message of a user is the
  question (:mod:`echo_agent.graphs.question`).
- *search* finds out what to ask about where a recording is longer than the model can be asked about
  (:mod:`echo_agent.graphs.search`); others go past it.
- *reason* lets the model go on until it asks to listen again, answers, or has used up its tokens.
- *relisten* answers every call, also those that cannot be read or mended, and keeps the budget.
- *answer* reads the answer. What is not written as one is ``unparsed``; nothing is guessed.

Where there are choices, a ``ChatLALM`` that has opened its answer is limited to them, unless the context
says ``guided=False``. An answer that is not opened, or not finished within the budget, stays unparsed.

A model that goes round in a loop before it answers is asked for its answer, as at the end of the budget; a loop inside
the answer ends the run, and is no answer. (Only where ``options`` holds ``max_repeats``, as ``EchoAgent`` has it.)

At the end of the budget the model is asked for its answer once, by a message that ``ChatLALM`` renders as the opening
of the answer (``</think><answer>``) and other models read as a request. What it then writes is final.

The graph runs sync and async, streams, checkpoints after every node when it has a saver, and can stop for a person
before a call is answered. It is a function of its state, its context and nothing else, so a resumed run equals one that
was never stopped. With a context bound to it, it is a node of any other graph, with ``messages`` alone in
common. With ``stream_mode="custom"`` it sends

- ``{"type": "token", "text", "origin"}``: a piece of the assistant's turn, ``sampled`` or given by a ``tool``;
- ``{"type": "relisten", "index", "outcome", "start", "end", "seconds", "observation", "speed", ...}``: call number
  ``index`` was answered (with the times and the transform that are heard; None and none where nothing is; and with the
  ``recording``, counted from 1, where there are several);
- ``{"type": "search", "start", "end", "tokens", ...}``: a listen of a search;
- ``{"type": "answer", "answer", "status", "choice_index"}``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import get_runtime

from echo_agent.answers import check_question, extract_answer, match_choice, question_text
from echo_agent.chat import ChatLALM
from echo_agent.graphs.calls import answer_calls, calls_of, is_forced
from echo_agent.graphs.question import next_question, reads_files
from echo_agent.graphs.reason import Update, areason, reason
from echo_agent.graphs.search import asearch, begin_search, search, takes_notes
from echo_agent.graphs.search_record import SearchRecord, choices_of, is_on_own_clock, on_recording
from echo_agent.graphs.state import (
    ListeningContext,
    ListeningInput,
    ListeningOutput,
    ListeningState,
    Spent,
    current,
)
from echo_agent.graphs.usage import finish_of
from echo_agent.messages import QUESTION_KEY, audio_block, message_id, transcript

Step = Callable[[ListeningState], Any]
AsyncStep = Callable[[ListeningState], Awaitable[Any]]


def build_listening_graph(
    context: ListeningContext | None = None,
    checkpointer: BaseCheckpointSaver[Any] | bool | None = None,
    *,
    interrupt_before_tool: bool = False,
) -> CompiledStateGraph[ListeningState, ListeningContext, ListeningInput, ListeningOutput]:
    """Compile the listening graph; call it with :func:`initial_state`, or with a user's message that holds audio.

    Args:
        context: What every run gets that is not given a :class:`ListeningContext` of its own. With it, the graph is a
            node of any other graph, whatever context and state that one has. Without it, each call needs
            ``context=ListeningContext(...)``, or stands in a graph that was called with one.
        checkpointer: A saver of its own: the state is saved after each node, and calls need a ``thread_id``. None saves
            with the saver of the graph that this one is a node of, for the length of one run; True does so for the
            length of the thread; False saves nothing, whatever the graph around it does.
        interrupt_before_tool: Stop before each call is answered, for a person to decide
            (:mod:`echo_agent.graphs.review`); needs a checkpointer, here or around.
    """
    nodes = _Nodes(context, interrupt_before_tool)
    graph = StateGraph(
        ListeningState,
        ListeningContext if context is None else None,
        input_schema=ListeningInput,
        output_schema=ListeningOutput,
    )
    graph.add_node("listen", _Step("listen", nodes.listen, nodes.alisten))
    graph.add_node("search", _Step("search", nodes.search, nodes.asearch))
    graph.add_node("reason", _Step("reason", nodes.reason, nodes.areason))
    graph.add_node("relisten", _Step("relisten", nodes.relisten, nodes.arelisten))
    graph.add_node("answer", _Step("answer", nodes.answer))
    graph.add_edge(START, "listen")
    for node in ("listen", "search"):
        graph.add_conditional_edges(node, _Step("found", _found), ["search", "reason"])
    graph.add_conditional_edges("reason", _Step("next", _next), ["reason", "relisten", "answer"])
    graph.add_edge("relisten", "reason")
    graph.add_edge("answer", END)
    compiled: Any = graph.compile(checkpointer=checkpointer, name="listening")
    return compiled


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


@dataclass(frozen=True)
class _Nodes:
    """The nodes that need a context."""

    bound: ListeningContext | None
    ask: bool
    """Stop before a call is answered."""

    def context(self) -> ListeningContext:
        """The context of this run: the one that it was called with, else the one that is bound."""
        given = get_runtime(ListeningContext).context
        context = given if isinstance(given, ListeningContext) else self.bound
        if context is None:
            raise TypeError(
                "the listening graph needs context=ListeningContext(model=..., recordings=...), in the call or in "
                "build_listening_graph"
            )
        return context

    def listen(self, state: ListeningState) -> Update:
        """Put the question into the messages, and everything else back to the start."""
        return listen(state, self.context())

    async def alisten(self, state: ListeningState) -> Update:
        """The same; files and audio in messages are read in a thread."""
        context = self.context()
        if reads_files(state, context):
            return await asyncio.to_thread(listen, state, context)
        return listen(state, context)

    def search(self, state: ListeningState) -> Update:
        """One step of the search of a long recording."""
        return search(state, self.context())

    async def asearch(self, state: ListeningState) -> Update:
        """The same; listening to hours takes a thread of its own."""
        context = self.context()
        if takes_notes(context):
            return await asyncio.to_thread(search, state, context)
        return await asearch(state, context)

    def reason(self, state: ListeningState) -> Update:
        """Let the model go on."""
        return reason(state, self.context())

    async def areason(self, state: ListeningState) -> Update:
        """Let the model go on."""
        return await areason(state, self.context())

    def relisten(self, state: ListeningState) -> Update:
        """Answer the calls of the last message."""
        return answer_calls(state, self.context(), ask=self.ask)

    async def arelisten(self, state: ListeningState) -> Update:
        """The same; a place that is not silent is looked for in a thread, since that reads files."""
        context = self.context()
        if context.control == "wrong-crop":
            return await asyncio.to_thread(answer_calls, state, context, ask=self.ask)
        return answer_calls(state, context, ask=self.ask)

    def answer(self, state: ListeningState) -> Update:
        """Read the answer."""
        return answer(state, self.context())


# --- listen -----------------------------------------------------------------------------------------------------


def listen(state: ListeningState, context: ListeningContext) -> Update:
    """The question as a message, and everything else back to the start."""
    asked = next_question(state, context)
    if context.folder is not None:  # a reference names a file too, and whoever calls may have written it
        for ref in asked.recordings:
            if not ref.in_memory and ref not in context.recordings:
                context.folder.find(ref.source)
    question, choices = asked.text, asked.choices
    check_question(question, choices)
    if choices is None and context.implied and isinstance(context.model, ChatLALM):
        choices = context.model.family.implied_choices(question, asked.recordings)
    heard = [audio_block(ref) for ref in asked.recordings]
    message = HumanMessage(
        [*heard, {"type": "text", "text": question_text(question, choices)}],
        additional_kwargs={QUESTION_KEY: {"question": question, "choices": choices}},
        id=message_id(),
    )
    return {
        "messages": [message],
        "question": question,
        "choices": choices,
        "recordings": [block["extras"]["echo"] for block in heard],
        "run": state.get("run", 0),
        "settings": context.settings(),
        "spent": Spent(relistens=0, seconds=0.0, tokens=0),
        "budget_exhausted": False,
        "answer": None,
        "status": None,
        "choice_index": None,
        "search": begin_search(asked.recordings, context),
    }


# --- next -------------------------------------------------------------------------------------------------------


def _found(state: ListeningState) -> str:
    """Where to go before the model has the word."""
    record = SearchRecord.of(state)
    return "reason" if record is None or record.done else "search"


def _next(state: ListeningState) -> str:
    """Where to go after the model had the word."""
    last = state["messages"][-1]
    if not isinstance(last, AIMessage):
        return "reason"
    return "relisten" if calls_of(last) and not is_forced(state["messages"]) else "answer"


# --- answer -----------------------------------------------------------------------------------------------------


def answer(state: ListeningState, context: ListeningContext) -> Update:
    """Read the answer, or say that there is none."""
    messages = current(state["messages"])
    found, index = extract_answer(transcript(messages), ended=finish_of(messages[-1]) == "eos"), None
    own, choices = choices_of(state), state.get("choices")
    if own is not None:
        index = match_choice(found, own)
        found = None if index is None else own[index]
    if found is not None and choices is not None and is_on_own_clock(state):
        found = on_recording(found, state, context)
        index = match_choice(found, choices)
    update = {"answer": found, "status": "unparsed" if found is None else "answered", "choice_index": index}
    get_stream_writer()({"type": "answer", **update})
    return update
