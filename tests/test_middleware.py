"""Recordings in an agent of LangChain whose model hears: what it is sent, and what is kept of it."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
import soundfile
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from echo_agent import ChatLALM, HearingMiddleware, RecordingStore, TorchEngine, audio_block
from echo_agent.audio.recording import Recording
from echo_agent.errors import RecordingError
from echo_agent.messages import trajectory_of, transcript
from tests.graphs.chat_server import calling, saying, serving
from tests.scripted import ASK_ONCE, scripted_family
from tests.tiny import sounds

CONFIG: Any = {"configurable": {"thread_id": "t"}}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "talk.wav"
    soundfile.write(path, sounds(10.0), 16000)
    return path


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word} is a word"


def other_call(id="call_other"):
    return {"id": id, "type": "function", "function": {"name": "look_up", "arguments": '{"word": "dog"}'}}


def heard_in(body):
    """Who says what in a request: roles, and the kinds of parts of each message that has parts."""
    kinds = [message["role"] for message in body["messages"]]
    parts = [
        [part["type"] for part in message["content"]]
        for message in body["messages"]
        if isinstance(message["content"], list)
    ]
    return kinds, parts


def agent_run(path, message, *tools, **options):
    with serving(lambda body, number: saying("A dog.") if number else message) as server:
        hearing = HearingMiddleware([path])
        agent = create_agent(server.model(), list(tools), middleware=[hearing], **options)
        messages = agent.invoke({"messages": [HumanMessage("What barks?")]}, CONFIG)["messages"]
    assert messages[-1].text == "A dog."
    return server.requests, messages


FIRST = ["text", "input_audio", "text"]


def test_the_model_hears_the_recording_and_every_call_that_was_made_together(path):
    (first, last), messages = agent_run(path, calling((2, 4), (5, 6), (7, 9)))
    assert heard_in(first) == (["user"], [FIRST])
    assert first["messages"][0]["content"][0]["text"] == "Recording 1 (10.0 s):"
    kinds = ["user", "assistant", "tool", "tool", "tool", "user"]
    assert heard_in(last) == (kinds, [FIRST, ["text", "input_audio"] * 3])
    assert [message.type for message in messages] == ["human", "ai", "tool", "tool", "tool", "ai"]
    assert messages[0].content == "What barks?", "the agent's messages stay as they were"


@pytest.mark.parametrize("place", [0, 1])
def test_calls_may_stand_beside_those_of_other_tools(path, place):
    message = calling((2, 4))
    message["tool_calls"].insert(place, other_call())
    (_, last), _ = agent_run(path, message, look_up)
    assert heard_in(last) == (
        ["user", "assistant", "tool", "tool", "user"],
        [FIRST, ["text", "input_audio"]],
    )


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_call_that_is_wrong_does_not_keep_the_others_from_being_heard(path, bad):
    message = calling((2, 4), (5, 6), (7, 9))
    message["tool_calls"][bad]["function"]["arguments"] = json.dumps({"start": "soon", "volume": 3})
    (_, last), _ = agent_run(path, message)
    assert heard_in(last)[1] == [FIRST, ["text", "input_audio"] * 2]
    assert last["messages"][2 + bad]["content"].startswith("not heard: ")


def test_calls_that_are_all_wrong_bring_no_audio(path):
    (_, last), _ = agent_run(path, calling((30, 31), (40, 41)))
    assert heard_in(last) == (["user", "assistant", "tool", "tool"], [FIRST])


def test_a_recording_that_a_message_brings_is_not_heard_twice(path):
    store = RecordingStore()
    ref = store.add(Recording.open(path))
    other = store.add(Recording.from_array(sounds(3.0, seed=4), 16000))
    with serving(lambda body, number: saying("A dog.")) as server:
        agent = create_agent(server.model(), middleware=[HearingMiddleware([ref, other], store=store)])
        agent.invoke({"messages": [HumanMessage([audio_block(ref), {"type": "text", "text": "And?"}])]})
    (body,) = server.requests
    assert heard_in(body) == (["user"], [["text", "input_audio", "input_audio", "text"]])
    assert body["messages"][0]["content"][0]["text"] == "Recording 2 (3.0 s):"


def rows(path):
    with closing(sqlite3.connect(path)) as database:
        return [
            data
            for table, column in (("checkpoints", "checkpoint"), ("writes", "value"))
            for (data,) in database.execute(f"select {column} from {table}")
        ]


async def test_no_audio_stands_in_checkpoints_or_streams(path, tmp_path):
    script = [calling((2, 4), (5, 6)), saying("A dog.")]
    file = tmp_path / "t.sqlite"
    with serving(lambda body, number: script[number % 2]) as server:
        with SqliteSaver.from_conn_string(str(file)) as saver:
            agent = create_agent(server.model(), middleware=[HearingMiddleware([path])], checkpointer=saver)
            given: Any = {"messages": [HumanMessage("What barks?")]}
            pieces = [*agent.stream(given, CONFIG, stream_mode=["values", "updates", "messages", "debug"])]
        async with AsyncSqliteSaver.from_conn_string(str(file)) as asaver:
            agent = create_agent(server.model(), middleware=[HearingMiddleware([path])], checkpointer=asaver)
            again = await agent.ainvoke({"messages": [HumanMessage("And who?")]}, CONFIG)
    assert len(again["messages"]) == 10 and len(server.requests) == 4
    sent = server.requests[-1]["messages"][0]["content"][1]["input_audio"]["data"]
    assert len(sent) > 400_000, "the model got all of it"
    written = rows(file)
    assert len(written) > 10 and sum(map(len, written)) < 200_000
    for data in (*written, repr(pieces).encode()):
        assert sent[1000:1100].encode() not in data


def test_a_model_of_ours_takes_references_as_they_are(path):
    with TorchEngine(scripted_family(ASK_ONCE), RecordingStore()) as engine:
        recording = Recording.from_array(sounds(10.0), 16000)
        agent = create_agent(
            ChatLALM(engine), middleware=[HearingMiddleware([recording])], checkpointer=InMemorySaver()
        )
        messages = agent.invoke({"messages": [HumanMessage("What barks?")]}, CONFIG)["messages"]
    assert transcript(messages) == "<think><seg>2.0, 4.0</seg>a dog barks</think><answer>a dog</answer>"
    ref = recording.ref()
    assert trajectory_of(messages).audio == (ref, ref.span(2.0, 4.0))
    assert not trajectory_of(messages).rerendered


def test_a_recording_that_cannot_be_opened_is_refused_at_once(tmp_path):
    with pytest.raises(RecordingError):
        HearingMiddleware([tmp_path / "none.wav"])
