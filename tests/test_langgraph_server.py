"""What a server of LangGraph loads: the factory that ``langgraph.json`` names, its schemas, and its folder.

Where ``langgraph-cli[inmem]`` is installed, ``langgraph dev`` is run as the docs say, and asked by the example. It does
not go together with schemathesis (which wants another jsonschema-rs): ``LANGGRAPH_PYTHON`` may name the interpreter of
an environment that has it, and this package.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
from langchain_core.messages import HumanMessage
from langgraph_sdk import get_sync_client

from echo_agent import Recording, audio_block
from echo_agent.errors import RecordingError
from echo_agent.folder import Folder
from tests.tiny import sounds

ROOT = Path(__file__).parents[1]
PATIENCE = 600
"""Seconds that a server may take to start on a machine that does other things."""
SLOW_STOP = 60
PYTHON = os.environ.get("LANGGRAPH_PYTHON", sys.executable)


def has_cli() -> bool:
    """Whether the interpreter has the command and its server."""
    look = "import importlib.util as u; assert u.find_spec('langgraph_cli') and u.find_spec('langgraph_api')"
    return not subprocess.run([PYTHON, "-c", look], capture_output=True).returncode


@pytest.fixture
async def graph(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ECHO_AGENT_RECORDINGS", str(ROOT / "examples"))
    monkeypatch.setenv("ECHO_AGENT_MODEL", "echo-nano")
    named = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))["graphs"]["listening"]
    module, _, factory = named.partition(":")
    make = getattr(import_module(module), factory)
    first, second = await asyncio.gather(make(), make())
    assert first is second, "the model is loaded once"
    return first


async def test_no_file_is_looked_for_in_the_event_loop(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server refuses what would keep its loop waiting, be it a name or a reference of an earlier process."""
    find, places = Folder.find, list[int]()

    def noted(self: Folder, name: str) -> Path:
        places.append(threading.get_ident())
        return find(self, name)

    monkeypatch.setattr(Folder, "find", noted)
    ref = Recording.open(ROOT / "examples" / "05.flac").ref()
    for recording in ("04.flac", ref.model_dump(mode="json")):
        await graph.ainvoke({"question": "Is a telephone heard?", "recordings": [recording]})
    assert len(places) == 2 and threading.get_ident() not in places


async def test_it_answers_about_files_that_are_named(graph: Any) -> None:
    given = {"question": "Is a telephone heard?", "recordings": ["04.flac"]}
    assert (await graph.ainvoke(given))["answer"] in ("yes", "no")
    said = {"messages": [{"role": "user", "content": "Is a telephone heard?"}], "recordings": ["04.flac"]}
    assert graph.invoke(said)["answer"] in ("yes", "no")
    for name in ("../README.md", "/etc/passwd", "none.flac"):
        with pytest.raises(RecordingError, match="in the folder"):
            await graph.ainvoke({**given, "recordings": [name]})


async def test_a_reference_that_a_client_wrote_opens_nothing_else(graph: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", sounds(3.0), 16000)
    ref = Recording.open(tmp_path / "talk.wav").ref()
    said = HumanMessage([audio_block(ref), {"type": "text", "text": "Is a telephone heard?"}])
    for given in (
        {"question": "Is a telephone heard?", "recordings": [ref.model_dump(mode="json")]},
        {"messages": [said]},
    ):
        with pytest.raises(RecordingError, match="there is no recording .*talk.wav' in the folder"):
            await graph.ainvoke(given)


async def test_its_schemas_can_be_shown(graph: Any) -> None:
    assert set(graph.get_input_jsonschema()["properties"]) >= {
        "messages",
        "question",
        "recordings",
        "choices",
    }
    assert "answer" in graph.get_output_jsonschema()["properties"] and graph.get_context_jsonschema() is None


async def test_a_folder_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ECHO_AGENT_RECORDINGS", str(tmp_path / "none"))
    with pytest.raises(RecordingError, match="there is no folder"):
        await import_module("echo_agent.langgraph_server").graph()


# --- langgraph dev ------------------------------------------------------------------------------------------------


@contextmanager
def developing(folder: Path) -> Iterator[str]:
    """``langgraph dev`` with this repository's configuration; its address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload"]
    command += ["--config", str(ROOT / "langgraph.json"), "--port", str(port)]
    environment = {
        **os.environ,
        "ECHO_AGENT_RECORDINGS": str(ROOT / "examples"),
        "ECHO_AGENT_MODEL": "echo-nano",
    }
    environment |= {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
    log = folder / "log.txt"
    with log.open("a") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while not answers(address):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(SLOW_STOP)
    assert "BlockingError" not in log.read_text()


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/ok").is_success
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_it_is_served_and_asked(tmp_path: Path) -> None:
    if not has_cli():
        pytest.skip("needs `pip install 'langgraph-cli[inmem]'`, which is licensed for development alone")
    with developing(tmp_path) as address, get_sync_client(url=address, timeout=PATIENCE) as client:
        example = [sys.executable, str(ROOT / "examples" / "langgraph_client.py"), address]
        example += ["01.flac", "Which digits are spoken after the drum?"]
        done = subprocess.run(example, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        assert lines[0] == "input_schema: choices, messages, question, recordings, run", done.stderr
        assert "answer" in lines[1] and "choice_index" in lines[1]
        assert lines[2].startswith("listens again to") and lines[-3].startswith("answer: ")
        assert lines[-2] in ("answer: yes", "answer: no") and lines[-1] == "messages: 7"
        thread = client.threads.create()["thread_id"]
        given = {"question": "Is a telephone heard?", "recordings": ["04.flac"]}
        done = client.runs.wait(thread, "listening", input=given)
        assert isinstance(done, dict) and done["answer"] in ("yes", "no")
        steps = client.threads.get_history(thread)
        assert [step["next"] for step in steps[:2]] == [[], ["answer"]] and len(steps) >= 4
        outside = client.runs.wait(
            None, "listening", input={**given, "recordings": ["../README.md"]}, raise_error=False
        )
        assert "there is no recording '../README.md'" in str(outside)
    with developing(tmp_path) as address, get_sync_client(url=address, timeout=PATIENCE) as client:
        # started again, it has its threads, and no recording in its store
        said = {"messages": [{"role": "user", "content": "Is a beep heard?"}]}
        again = client.runs.wait(thread, "listening", input=said)
        assert isinstance(again, dict) and again["answer"] in ("yes", "no")
        assert len(again["messages"]) > len(done["messages"])
