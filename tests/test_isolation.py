"""A question that is asked inside somebody else's graph is no part of that graph."""

import asyncio
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph

from echo_agent import EchoAgent
from tests.scripted import ASK_FOREVER, scripted_family
from tests.tiny import sounds

AUDIO = (sounds(10.0), 16000)
CONFIG: Any = {"configurable": {"thread_id": "theirs"}, "recursion_limit": 3}


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    path = tmp_path_factory.mktemp("agent") / "threads.sqlite"
    with EchoAgent(scripted_family(ASK_FOREVER), checkpoints=path) as agent:
        yield agent


def around(node):
    """Somebody's graph, with a checkpointer."""
    return StateGraph(MessagesState).add_node("node", node).add_edge(START, "node").compile(InMemorySaver())


@pytest.mark.parametrize("thread", [None, "ours"])
@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("use_async", [False, True])
def test_neither_its_checkpointer_nor_its_limit_nor_its_streams_are_ours(agent, thread, events, use_async):
    seen: list[Any] = []

    def forward(event: dict[str, Any]) -> None:
        get_stream_writer()(event)  # the caller's own code still stands in the caller's graph

    options: dict[str, Any] = {"thread": thread and f"{thread}-{events}-{use_async}", "max_relistens": 9}
    options |= {"on_event": forward} if events else {}

    def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", str(agent.ask(AUDIO, "What barks?", **options).answer))]}

    async def anode(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", str((await agent.aask(AUDIO, "What barks?", **options)).answer))]}

    graph = around(anode if use_async else node)
    given = {"messages": [("user", "Ask.")]}
    if use_async:

        async def run() -> None:
            async for piece in graph.astream(
                given, CONFIG, stream_mode=["custom", "messages"], subgraphs=True
            ):
                seen.append(piece)

        asyncio.run(run())
    else:
        seen.extend(graph.stream(given, CONFIG, stream_mode=["custom", "messages"], subgraphs=True))
    history = list(graph.get_state_history(CONFIG))
    assert [len(step.values.get("messages", ())) for step in history] == [2, 1, 0]
    assert not any(step.tasks and step.tasks[0].state for step in history), "no graph of ours in their thread"
    namespaces, modes = {space for space, _, _ in seen}, [mode for _, mode, _ in seen]
    assert namespaces <= {()} and modes.count("messages") <= 1, "only the node's own message is streamed"
    assert ("custom" in modes) == events


def test_a_long_run_of_ours_is_not_ended_by_a_limit_of_steps(agent):
    result = agent.ask(AUDIO, "What barks?", max_relistens=30)
    assert len(result.relistens) == 30 and result.answer == "a dog"
