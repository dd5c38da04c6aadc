"""One run of the listening graph: a question that was checked, and its events, handed to the caller as they happen.

Runs that differ in nothing but their control are the same until the policy first calls: :class:`Branches` makes that
part once, and goes on from there for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from langgraph.checkpoint.memory import InMemorySaver

from echo_agent.graphs import ListeningContext, ListeningInput, build_listening_graph, checkpoint_serializer
from echo_agent.isolation import Isolation

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

Graph: TypeAlias = "CompiledStateGraph[Any, Any, Any, Any]"
OnEvent = Callable[[dict[str, Any]], None]
"""Takes the events of a run as they happen: see :mod:`echo_agent.graphs.listening`."""


@dataclass(frozen=True)
class Ask:
    """One question, checked."""

    state: ListeningInput
    context: ListeningContext
    thread: str | None
    on_event: OnEvent | None
    implied: bool
    """The choices follow from the question; the caller gave none."""

    @property
    def config(self) -> RunnableConfig:
        """The run's own configuration; every step but the last few answers a call."""
        config: RunnableConfig = {"recursion_limit": 2 * self.context.budget.max_relistens + 16}
        return config if self.thread is None else {**config, "configurable": {"thread_id": self.thread}}

    @property
    def arguments(self) -> dict[str, Any]:
        """What a call of the graph takes besides; in a thread, every step is on disk before the next begins."""
        durable = {} if self.thread is None else {"durability": "sync"}
        return {"config": self.config, "context": self.context, **durable}


def run(graph: Graph, given: Mapping[str, Any] | None, ask: Ask, isolation: Isolation) -> Any:
    """The state that a run ends with; ``given`` is None to go on from what was saved."""
    if ask.on_event is None:
        return graph.invoke(given, **ask.arguments)
    done: Any = None
    stream: Any = graph.stream(given, **ask.arguments, stream_mode=["custom", "values"])
    with closing(stream) as events:  # an error of the caller's ends the run, and not some time later
        for mode, data in events:
            if mode == "custom":
                with isolation.caller():
                    ask.on_event(data)
            else:
                done = data
    return done


async def arun(graph: Graph, given: Mapping[str, Any] | None, ask: Ask, isolation: Isolation) -> Any:
    """The async twin of :func:`run`."""
    if ask.on_event is None:
        return await graph.ainvoke(given, **ask.arguments)
    done: Any = None
    stream: Any = graph.astream(given, **ask.arguments, stream_mode=["custom", "values"])
    async with aclosing(stream) as events:
        async for mode, data in events:
            if mode == "custom":
                with isolation.caller():
                    ask.on_event(data)
            else:
                done = data
    return done


class Branches:
    """Runs of one question under several controls; any number of questions may be asked at once."""

    def __init__(self) -> None:
        """Compile a graph that saves its states in memory, for as long as a question takes."""
        self._saver = InMemorySaver(serde=checkpoint_serializer())
        self._graph: Graph = build_listening_graph(checkpointer=self._saver)

    async def arun(self, asks: Sequence[Ask]) -> list[Any]:
        """The states that runs end with, in order; they differ in their control alone."""
        first, *others = asks
        thread = uuid4().hex
        config: Any = {**first.config, "configurable": {"thread_id": thread}}
        try:
            done = [await self._graph.ainvoke(first.state, config, context=first.context)]
            called: Any = None
            async for saved in self._graph.aget_state_history(config):  # the newest comes first
                if saved.next == ("relisten",):
                    called = saved.config
            for ask in others:
                if called is None:
                    done.append(done[0])
                else:
                    config_of: Any = {**ask.config, **called}
                    done.append(await self._graph.ainvoke(None, config_of, context=ask.context))
            return done
        finally:
            await self._saver.adelete_thread(thread)
