"""What a server of LangGraph loads: the factory that ``langgraph.json`` names, its schemas, and its folder."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import soundfile
from langchain_core.messages import HumanMessage

from echo_agent import Recording, audio_block
from echo_agent.errors import RecordingError
from tests.tiny import sounds

ROOT = Path(__file__).parents[1]


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ECHO_AGENT_RECORDINGS", str(ROOT / "examples"))
    monkeypatch.delenv("ECHO_AGENT_MODEL", raising=False)
    named = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))["graphs"]["listening"]
    module, _, factory = named.partition(":")
    make = getattr(import_module(module), factory)
    assert make() is make(), "the model is loaded once"
    return make()


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


def test_its_schemas_can_be_shown(graph: Any) -> None:
    assert set(graph.get_input_jsonschema()["properties"]) >= {
        "messages",
        "question",
        "recordings",
        "choices",
    }
    assert "answer" in graph.get_output_jsonschema()["properties"] and graph.get_context_jsonschema() is None


def test_a_folder_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ECHO_AGENT_RECORDINGS", str(tmp_path / "none"))
    with pytest.raises(RecordingError, match="there is no folder"):
        import_module("echo_agent.langgraph_server").graph()
