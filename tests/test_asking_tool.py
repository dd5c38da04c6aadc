"""Listening as a tool of agents that cannot hear: one folder, errors as answers, and runs apart from the caller's."""

import asyncio
import json
import os
from typing import Any

import pytest
import soundfile
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver

from echo_agent import EchoAgent
from echo_agent.errors import QuestionError, RecordingError
from echo_agent.folder import Folder
from tests.graphs.chat_server import saying, serving
from tests.scripted import ASK_FOREVER, ASK_ONCE, scripted_family
from tests.tiny import sounds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("owner")
    (root / "inside" / "more").mkdir(parents=True)
    for name in ("inside/kitchen.wav", "inside/more/yard.wav", "outside.wav"):
        soundfile.write(root / name, sounds(10.0), 16000)
    (root / "inside" / "notes.txt").write_text("no sound")
    (root / "inside" / ".hidden.wav").write_text("")
    (root / "inside" / "link.wav").symlink_to(root / "outside.wav")
    (root / "inside" / "yard.wav").symlink_to(root / "inside" / "more" / "yard.wav")
    (root / "inside" / "loop").symlink_to(root / "inside" / "loop")
    return root / "inside"


@pytest.fixture(scope="module")
def agent():
    with EchoAgent(scripted_family(ASK_ONCE)) as agent:
        yield agent


@pytest.fixture(scope="module")
def tool(agent, folder):
    return agent.as_tool(folder=folder)


def call(id="c1", **arguments) -> Any:
    return {"name": "ask_recording", "args": arguments, "id": id, "type": "tool_call"}


# --- the folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kitchen.wav", "more/yard.wav", "./more/../kitchen.wav", "yard.wav"])
def test_what_is_in_the_folder_is_found(folder, name):
    found = Folder(folder).find(name)
    assert found.is_file() and found.is_relative_to(folder.resolve())


@pytest.mark.parametrize(
    "name",
    ["../outside.wav", "/etc/hostname", "link.wav", "more", "", ".", "none.wav", "loop", "a\0b", "x" * 5000],
)
def test_what_is_outside_or_not_there_is_refused_alike(folder, name):
    with pytest.raises(RecordingError, match="there is no recording .* in the folder") as caught:
        Folder(folder).find(name)
    assert str(folder) not in str(caught.value)


def test_a_pipe_is_no_recording(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(RecordingError, match="there is no recording"):
        Folder(tmp_path).find("pipe.wav")


def test_its_files_are_named_and_near_ones_are_offered(folder, tmp_path):
    inside = Folder(folder)
    assert inside.names() == ["kitchen.wav", "more/yard.wav", "notes.txt", "yard.wav"]
    assert inside.name(inside.find("yard.wav")) == "more/yard.wav"
    with pytest.raises(RecordingError, match="there is kitchen.wav"):
        inside.find("kitchen.mp3")
    with pytest.raises(RecordingError, match="no files"):
        Folder(tmp_path).find("a.wav")
    for nothing in (folder / "none", folder / "kitchen.wav"):
        with pytest.raises(RecordingError, match="folder"):
            Folder(nothing)


# --- the tool ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_async", [False, True])
def test_it_answers_with_the_answer_and_its_spans(agent, tool, folder, use_async):
    asked = call(path="kitchen.wav", question="What barks?", choices=["a dog", "a cat"])
    message = asyncio.run(tool.ainvoke(asked)) if use_async else tool.invoke(asked)
    assert message.content == "Answer: a dog\nListened again to 2 to 4 s." and message.status == "success"
    alone = agent.ask(folder / "kitchen.wav", "What barks?", ["a dog", "a cat"]).model_dump(mode="json")
    assert message.artifact | {"timings": None} == alone | {"timings": None}
    json.dumps(message.artifact)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "../outside.wav", "question": "What?"}, "no recording '../outside.wav'"),
        ({"path": "notes.txt", "question": "What?"}, "notes.txt"),
        ({"path": "kitchen.wav", "question": " "}, "question"),
        ({"path": "kitchen.wav", "question": "What?", "choices": ["a dog"]}, "1 choice given"),
        ({"path": "kitchen.wav", "question": "What?", "max_relistens": -1}, "max_relistens"),
        ({"path": "kitchen.wav"}, "question"),
    ],
)
@pytest.mark.parametrize("use_async", [False, True])
def test_what_cannot_be_asked_is_told_to_the_model(tool, folder, arguments, words, use_async):
    message = asyncio.run(tool.ainvoke(call(**arguments))) if use_async else tool.invoke(call(**arguments))
    assert message.status == "error" and words in message.content
    assert str(folder) not in message.content, "where the folder is concerns no model"


def test_its_schema_says_what_it_takes(tool):
    shown = convert_to_openai_tool(tool)["function"]
    assert shown["name"] == "ask_recording"
    assert set(shown["parameters"]["properties"]) == {"path", "question", "choices", "max_relistens"}
    assert shown["parameters"]["required"] == ["path", "question"]


def test_options_hold_unless_a_call_says_otherwise(folder):
    with EchoAgent(scripted_family(ASK_FOREVER)) as forever:
        tool = forever.as_tool(folder, max_relistens=3)
        asked = {"path": "kitchen.wav", "question": "What barks?"}
        assert len(tool.invoke(call(**asked)).artifact["relistens"]) == 3
        assert len(tool.invoke(call(**asked, max_relistens=1)).artifact["relistens"]) == 1
        assert len(tool.invoke(call(**asked, max_relistens=20)).artifact["relistens"]) == 20
        with pytest.raises(QuestionError, match="max_relisten"):
            forever.as_tool(folder, max_relisten=3)


def test_a_text_agent_delegates_and_keeps_its_checkpoints_and_limits_to_itself(folder):
    arguments = json.dumps({"path": "kitchen.wav", "question": "What barks?", "max_relistens": 20})
    asks = {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": f"c{i}", "type": "function", "function": {"name": "ask_recording", "arguments": arguments}}
            for i in range(2)
        ],
    }
    saver = InMemorySaver()
    config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 6}
    with (
        EchoAgent(scripted_family(ASK_FOREVER)) as forever,
        serving(lambda body, number: saying("A dog.") if number else asks) as server,
    ):
        graph = create_agent(server.model(), [forever.as_tool(folder)], checkpointer=saver)
        done = graph.invoke({"messages": [HumanMessage("What barks in kitchen.wav?")]}, config)
    replies = [message for message in done["messages"] if isinstance(message, ToolMessage)]
    assert done["messages"][-1].text == "A dog." and len(replies) == 2
    assert all(len(reply.artifact["relistens"]) == 20 for reply in replies)
    assert {saved.config["configurable"]["checkpoint_ns"] for saved in saver.list(None)} == {""}
    told = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert told == [reply.content for reply in replies]
