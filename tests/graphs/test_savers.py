"""Conversations in savers: in memory, in SQLite, in a real PostgreSQL, read strictly; what they hold, and how much."""

from __future__ import annotations

import base64
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import soundfile
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import SecretStr

from echo_agent import EchoAgent, ListeningContext, Recording, RecordingStore, audio_block
from echo_agent.graphs import build_listening_graph, checkpoint_serializer, initial_state
from echo_agent.graphs.calls import replies_of
from echo_agent.messages import trajectory_of
from tests.graphs.chat_server import calling, saying, serving
from tests.postgres import postgres, programs
from tests.scripted import ASK_ONCE, scripted_family
from tests.tiny import sounds

CONFIG: Any = {"configurable": {"thread_id": "t"}}
needs_postgres = pytest.mark.skipif(programs() is None, reason="initdb is not installed")
MINUTE = sounds(60.0)


class Spoken(MessagesState):
    answer: str | None


@pytest.fixture(scope="module")
def agent() -> Iterator[EchoAgent]:
    with EchoAgent(scripted_family(ASK_ONCE)) as agent:
        yield agent


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as words:
        yield words


@pytest.fixture
def saver(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[BaseCheckpointSaver[Any]]:
    if request.param == "memory":
        yield InMemorySaver(serde=checkpoint_serializer())
    elif request.param == "sqlite":
        with SqliteSaver.from_conn_string(str(tmp_path / "t.sqlite")) as saver:
            saver.serde = checkpoint_serializer()
            yield saver
    else:
        with PostgresSaver.from_conn_string(request.getfixturevalue("server")) as saver:
            saver.serde = checkpoint_serializer()
            saver.setup()
            yield saver
            saver.delete_thread("t")


SAVERS = ["memory", "sqlite", pytest.param("postgres", marks=needs_postgres)]


def question(agent: EchoAgent, audio: Any, text: str) -> HumanMessage:
    return HumanMessage([audio_block(agent.ref(audio)), {"type": "text", "text": text}])


@pytest.mark.parametrize("saver", SAVERS, indirect=True)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "as a node"])
def test_a_conversation_is_read_back_as_it_was(agent: EchoAgent, saver: Any, inside: bool) -> None:
    def graph() -> Any:
        if not inside:
            return agent.graph(saver)
        larger = StateGraph(Spoken).add_node("ear", agent.graph()).add_edge(START, "ear")
        return larger.compile(checkpointer=saver)

    given: Any = {"messages": [question(agent, (sounds(10.0), 16000), "What barks?")]}
    first = graph().invoke(given, CONFIG)
    second = graph().invoke({"messages": [HumanMessage("And what else?")]}, CONFIG)
    values = graph().get_state(CONFIG).values
    assert first["answer"] == second["answer"] == values["answer"] == "a dog"
    assert (
        values["messages"] == second["messages"]
        and values["messages"][: len(first["messages"])] == first["messages"]
    )
    runs = [message for message in values["messages"] if message.type == "ai"]
    for run in (runs[:2], runs[2:]):
        assert len(trajectory_of(run).audio) == 2 and not trajectory_of(run).rerendered
    assert [reply.outcome for reply in replies_of(values["messages"])] == ["heard"] * 2


@needs_postgres
async def test_the_async_saver_of_postgres_does_the_same(agent: EchoAgent, server: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(server) as saver:
        saver.serde = checkpoint_serializer()
        await saver.setup()
        graph = agent.graph(saver)
        given: Any = {"messages": [question(agent, (sounds(10.0), 16000), "What barks?")]}
        done = await graph.ainvoke(given, CONFIG)
        again = await graph.ainvoke({"messages": [HumanMessage("And what else?")]}, CONFIG)
        assert done["answer"] == again["answer"] == "a dog"
        steps = [step async for step in graph.aget_state_history(CONFIG)]
        forked = await graph.ainvoke(None, next(s for s in steps if s.next == ("reason",)).config)
        assert forked["answer"] == "a dog"
        await saver.adelete_thread("t")


def test_neither_keys_nor_sound_of_a_served_model_are_saved_streamed_or_logged(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wav, file, key = tmp_path / "talk.wav", tmp_path / "t.sqlite", "sk-not-to-be-told"
    soundfile.write(wav, sounds(10.0), 16000)
    store = RecordingStore()
    ref = store.add(Recording.open(wav))
    script = [calling((2, 4)), saying("<answer>a dog</answer>")]
    caplog.set_level("INFO")
    with (
        serving(lambda body, number: script[number]) as server,
        SqliteSaver.from_conn_string(str(file)) as saver,
    ):
        url = f"http://127.0.0.1:{server.http.server_port}/v1"
        model = ChatOpenAI(model="tests", base_url=url, api_key=SecretStr(key), max_retries=0)
        graph = build_listening_graph(ListeningContext(model, store), saver)
        pieces = [*graph.stream(initial_state("What barks?", [ref]), CONFIG, stream_mode=["debug", "custom"])]
        assert graph.get_state(CONFIG).values["answer"] == "a dog"
    sent = server.requests[-1]["messages"][0]["content"][0]["input_audio"]["data"]
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute(
            "select checkpoint from checkpoints union all select value from writes"
        ).fetchall()
    assert len(rows) > 8
    for data in (*(row[0] for row in rows), repr(pieces).encode(), caplog.text.encode()):
        assert key.encode() not in data and sent[1000:1100].encode() not in data


class Before(JsonPlusSerializer):
    """Writes as the first versions did."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return (
            ("msgpack.zlib", zlib.compress(data)) if kind == "msgpack" and len(data) > 256 else (kind, data)
        )


def test_threads_of_earlier_versions_go_on(agent: EchoAgent, tmp_path: Any) -> None:
    file = str(tmp_path / "t.sqlite")
    with SqliteSaver.from_conn_string(file) as saver:
        saver.serde = Before()
        graph = agent.graph(saver, interrupt_before_tool=True)
        stopped = graph.invoke({"messages": [question(agent, (sounds(10.0), 16000), "What barks?")]}, CONFIG)
        assert "__interrupt__" in stopped
    with SqliteSaver.from_conn_string(file) as saver:
        saver.serde = checkpoint_serializer()
        graph = agent.graph(saver, interrupt_before_tool=True)
        done = graph.invoke(Command(resume=True), CONFIG)
        assert (
            done["answer"] == "a dog" and done["messages"][: len(stopped["messages"])] == stopped["messages"]
        )
        graph = agent.graph(saver)
        again = graph.invoke({"messages": [HumanMessage("And what else?")]}, CONFIG)
        assert again["messages"][: len(done["messages"])] == done["messages"] and again["answer"] == "a dog"
        first = [step for step in graph.get_state_history(CONFIG) if step.next == ("reason",)][-1]
        assert graph.invoke(None, first.config)["answer"] == "a dog", "from a step of the earlier version"
    with closing(sqlite3.connect(file)) as database:
        kinds = {kind for (kind,) in database.execute("select distinct type from checkpoints")}
    assert kinds == {"msgpack.zlib", "msgpack.words"}


def test_five_questions_about_a_minute_take_less_than_150_kilobytes(agent: EchoAgent, tmp_path: Any) -> None:
    wav, file = tmp_path / "talk.wav", tmp_path / "t.sqlite"
    soundfile.write(wav, MINUTE, 16000)
    with SqliteSaver.from_conn_string(str(file)) as saver:
        saver.setup()
    empty = file.stat().st_size
    with SqliteSaver.from_conn_string(str(file)) as saver:
        saver.serde = checkpoint_serializer()
        graph = agent.graph(saver)
        graph.invoke({"messages": [question(agent, wav, "What barks?")]}, CONFIG)
        for number in range(4):
            graph.invoke({"messages": [HumanMessage(f"And what is number {number}?")]}, CONFIG)
        assert len(replies_of(graph.get_state(CONFIG).values["messages"])) == 5
    assert sum(part.stat().st_size for part in tmp_path.glob("t.sqlite*")) - empty < 150_000
    bytes_in(file, wav)


def bytes_in(file: Any, wav: Any) -> None:
    """Raises AssertionError where bytes of the sound stand in a database, plain or as base64."""
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute(
            "select checkpoint from checkpoints union all select value from writes"
        ).fetchall()
    sound = wav.read_bytes()
    for (data,) in rows:
        assert sound[5000:5100] not in data
        assert all(base64.b64encode(sound[5000 + i : 5300 + i])[4:-4] not in data for i in range(3))
