"""The MCP server, asked by the official client: in this process, over standard streams, and over HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
from mcp import MCPError
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import ResourceLink, TextContent

from echo_agent import EchoAgent
from echo_agent.errors import ModelError
from echo_agent.folder import Folder
from echo_agent.mcp_server import RecordingServer
from tests.scripted import ASK_FOREVER, scripted_family
from tests.tiny import sounds

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("owner")
    (root / "inside" / "more").mkdir(parents=True)
    for name in ("inside/kitchen.wav", "inside/more/yard é.wav", "outside.wav"):
        soundfile.write(root / name, sounds(10.0), 16000)
    (root / "inside" / "notes.txt").write_text("no sound")
    return root / "inside"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RecordingServer]:
    def load() -> EchoAgent:
        return EchoAgent(scripted_family(ASK_FOREVER))

    with RecordingServer(Folder(folder), load, max_relistens=3) as server:
        yield server


@asynccontextmanager
async def talking(server: RecordingServer) -> AsyncIterator[Client]:
    async with Client(server.mcp) as client:
        yield client


def told(result: Any) -> str:
    return "".join(block.text for block in result.content if isinstance(block, TextContent))


def links(result: Any) -> list[str]:
    assert {type(block) for block in result.content} <= {TextContent, ResourceLink}, "never audio"
    return [block.uri for block in result.content if isinstance(block, ResourceLink)]


async def test_its_tools_are_those_that_are_documented(server: RecordingServer) -> None:
    async with talking(server) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"ask_recording", "relisten"}
    ask = tools["ask_recording"]
    assert list(ask.input_schema["properties"]) == ["path", "question", "choices", "max_relistens"]
    assert ask.input_schema["required"] == ["path", "question"]
    assert ask.output_schema is not None and "relistens" in ask.output_schema["properties"]
    assert ask.annotations is not None and ask.annotations.read_only_hint


async def test_a_question_is_answered_with_spans_and_a_link(server: RecordingServer) -> None:
    seen: list[Any] = []

    async def progress(*step: Any) -> None:
        seen.append(step)

    asked = {"path": "kitchen.wav", "question": "What barks?", "choices": ["a dog", "a cat"]}
    async with talking(server) as client:
        result = await client.call_tool("ask_recording", asked, progress_callback=progress)
        fewer = await client.call_tool("ask_recording", {**asked, "max_relistens": 1})
    assert not result.is_error and links(result) == ["recording:///kitchen.wav"]
    assert told(result) == "Answer: a dog\nListened again to 2 to 4 s, 2 to 4 s, 2 to 4 s."
    heard = result.structured_content
    assert heard is not None and heard["answer"] == "a dog" and heard["choice_index"] == 0
    assert [(span["start"], span["end"]) for span in heard["relistens"]] == [(2.0, 4.0)] * 3
    assert seen == [(i, 3, "listened again to 2 to 4 s") for i in (1, 2, 3)]
    assert fewer.structured_content is not None and len(fewer.structured_content["relistens"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "../outside.wav"}, "no recording '../outside.wav'"),
        ({"path": "/etc/passwd"}, "no recording '/etc/passwd'"),
        ({"path": "none.wav"}, "there is kitchen.wav"),
        ({"path": "notes.txt"}, "notes.txt"),
        ({"question": " "}, "question"),
        ({"choices": ["a dog"]}, "1 choice given"),
        ({"max_relistens": -1}, "max_relistens"),
        ({"max_relistens": "many"}, "max_relistens"),
        ({"question": "x" * 100_000}, "shorten the question"),
    ],
)
async def test_what_cannot_be_asked_is_an_error_of_the_tool(
    server: RecordingServer, folder: Path, arguments: dict[str, Any], words: str
) -> None:
    async with talking(server) as client:
        asked = {"path": "kitchen.wav", "question": "What?", **arguments}
        result = await client.call_tool("ask_recording", asked)
    assert result.is_error and words in told(result) and str(folder) not in told(result)


async def test_what_the_model_does_not_know_is_named_and_silence_is_called_silence(folder: Path) -> None:
    soundfile.write(folder / "room.wav", sounds(2.0) * 0, 16000)
    try:
        with RecordingServer(
            Folder(folder), lambda: EchoAgent.from_pretrained("echo-nano", device="cpu")
        ) as server:
            async with talking(server) as client:
                asked = [
                    {"path": "room.wav", "question": f"Is a {sound} heard?"} for sound in ("sheep", "bell")
                ]
                sheep, bell = [await client.call_tool("ask_recording", one) for one in asked]
    finally:
        (folder / "room.wav").unlink()
    silent = "Note: it is silent: nothing can be heard in it."
    why = "Note: echo-nano does not know the word sheep, and was not asked."
    assert told(sheep) == f"The question was not understood.\n{why}\n{silent}" and not sheep.is_error
    assert (
        sheep.structured_content["status"] == "not_understood" and sheep.structured_content["answer"] is None
    )
    assert told(bell).startswith("Answer: ") and told(bell).endswith(silent)


async def test_a_loop_is_no_answer(folder: Path) -> None:
    script = {"\n": "<answer>", "<answer>": "a violin", "a violin": ",", ",": "a violin"}
    with RecordingServer(Folder(folder), lambda: EchoAgent(scripted_family(script, sure=6.0))) as server:
        async with talking(server) as client:
            result = await client.call_tool(
                "ask_recording", {"path": "kitchen.wav", "question": "What plays?"}
            )
    assert told(result) == "No answer could be read.\nHeard once."
    assert result.structured_content["status"] == "unparsed"


async def test_a_stretch_is_a_link_that_can_be_heard(server: RecordingServer) -> None:
    async with talking(server) as client:
        asked = {"path": "more/yard é.wav", "start": 8.0, "end": 15.0, "speed": 0.5, "gain_db": 6.0}
        result = await client.call_tool("relisten", asked)
        (link,) = links(result)
        (sound,) = (await client.read_resource(link)).contents
        (whole,) = (await client.read_resource("recording:///kitchen.wav")).contents
    assert link == "recording:///more/yard%20%C3%A9.wav?start=8&end=10&speed=0.5&gain_db=6"
    assert told(result) == "Heard 8 to 10 s. (heard 8-10: clamped)"
    assert result.structured_content is not None and result.structured_content["seconds"] == 4.0
    for part, seconds in ((sound, 4.0), (whole, 10.0)):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(part.blob)))
        assert len(samples) / rate == pytest.approx(seconds, abs=1e-3) and part.mime_type == "audio/wav"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"start": 30.0, "end": 33.0}, "outside of 0-10"), ({"path": "../outside.wav"}, "no recording")],
)
async def test_a_stretch_that_is_not_there_is_an_error_of_the_tool(
    server: RecordingServer, arguments: dict[str, Any], words: str
) -> None:
    async with talking(server) as client:
        result = await client.call_tool(
            "relisten", {"path": "kitchen.wav", "start": 1, "end": 2, **arguments}
        )
    assert result.is_error and words in told(result)


@pytest.mark.parametrize(
    "link", ["recording:///../outside.wav", "recording:///%2e%2e/outside.wav", "recording:////etc/passwd",
             "recording:///none.wav", "recording:///notes.txt", "recording:///kitchen.wav?start=30&end=31"]
)  # fmt: skip
async def test_links_lead_nowhere_else(server: RecordingServer, link: str) -> None:
    async with talking(server) as client:
        with pytest.raises(MCPError):
            await client.read_resource(link)


async def test_a_model_that_cannot_be_loaded_is_told_to_whoever_asks(folder: Path) -> None:
    def load() -> EchoAgent:
        raise ModelError("there is no model none")

    with RecordingServer(Folder(folder), load) as server:
        async with talking(server) as client:
            asked = {"path": "kitchen.wav", "question": "What?"}
            result = await client.call_tool("ask_recording", asked)
            heard = await client.call_tool("relisten", {"path": "kitchen.wav", "start": 1, "end": 2})
    assert result.is_error and told(result).endswith("there is no model none") and not heard.is_error


async def test_a_call_that_nobody_waits_for_ends_its_run(server: RecordingServer) -> None:
    agent = server._agent.result()
    async with talking(server) as client:
        asked = {"path": "kitchen.wav", "question": "What barks?", "max_relistens": 100_000}
        begun = asyncio.Event()

        async def progress(*step: Any) -> None:
            begun.set()

        call = asyncio.create_task(client.call_tool("ask_recording", asked, progress_callback=progress))
        await begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        async with asyncio.timeout(60):
            while agent.engine.stats()["live_runs"] or agent.engine.stats()["waiting_runs"]:
                await asyncio.sleep(0.01)


# --- over real transports ---------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.getcwd()}


QUESTION = {"path": "04.flac", "question": "Is a telephone heard?"}


async def ask_all(client: Client) -> None:
    result = await client.call_tool("ask_recording", QUESTION)
    assert not result.is_error and result.structured_content is not None
    assert result.structured_content["answer"] in ("yes", "no")
    assert links(result) == ["recording:///04.flac"]
    assert (await client.call_tool("ask_recording", {**QUESTION, "path": "../README.md"})).is_error


@pytest.mark.slow
async def test_over_standard_streams() -> None:
    command = ["-m", "echo_agent.cli", "mcp", str(EXAMPLES), "--model", "echo-nano"]
    started = StdioServerParameters(command=sys.executable, args=command, env=environment())
    async with Client(stdio_client(started)) as client:
        await ask_all(client)


@pytest.mark.slow
async def test_over_http_for_several_clients() -> None:
    command = [
        sys.executable,
        "-m",
        "echo_agent.cli",
        "mcp",
        str(EXAMPLES),
        "--model",
        "echo-nano",
        "--http",
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, env=environment(), text=True, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        where = process.stderr.readline().split()[-1]
        assert where.startswith("http://127.0.0.1:")

        async def one() -> None:
            async with Client(where) as client:
                await ask_all(client)

        await asyncio.gather(*(one() for _ in range(3)))
        await one()
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode != 0
