"""The examples of embedding run as their first lines say; text models are played by a server with a script."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.graphs.chat_server import saying, serving

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *arguments: str
) -> list[str]:
    """The lines that an example prints."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def delegating(*calls: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """A message that calls tools."""
    made = [
        {"id": f"c{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for i, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": "", "tool_calls": made}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return monkeypatch


def test_a_folder_is_mapped_over(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(monkeypatch, capsys, "map_folder.py", str(EXAMPLES), "Is a telephone heard?", "--limit", "3")
    assert [line.split(":")[0] for line in lines[:3]] == ["01.flac", "02.flac", "03.flac"]
    assert {line.split(": ")[1] for line in lines[:3]} <= {"yes", "no"}
    assert sum(int(part.split(": ")[1]) for part in lines[3].split(", ")) == 3


def test_a_text_agent_delegates(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asks = delegating(
        ("ask_recording", {"path": "04.flac", "question": "Is a beep heard?"}),
        ("ask_recording", {"path": "/etc/passwd", "question": "Is a beep heard?"}),
    )
    with serving(lambda body, number: saying("Yes, it is.") if number else asks) as server:
        environment.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.http.server_port}/v1")
        heard, refused, said = run(
            environment, capsys, "text_agent.py", "openai:gpt-5-mini", str(EXAMPLES), "Is a beep heard?"
        )
    assert heard.startswith(("[ask_recording] Answer: yes", "[ask_recording] Answer: no"))
    assert "there is no recording '/etc/passwd'" in refused and said == "Yes, it is."
    assert "cannot hear" in server.requests[0]["messages"][0]["content"]


def test_a_supervisor_has_two_specialists(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = {"path": "01.flac", "question": "Which digits are spoken after the drum?"}
    asks = delegating(("glance", question), ("study", question))
    with serving(lambda body, number: saying("Three digits.") if number else asks) as server:
        environment.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.http.server_port}/v1")
        glance, study, said = run(
            environment, capsys, "supervisor.py", "openai:gpt-5-mini", str(EXAMPLES), "Which digits?"
        )
    names = [tool["function"]["name"] for tool in server.requests[0]["tools"]]
    assert names == ["glance", "study"] and said == "Three digits."
    assert "Heard once." in glance and "Listened again to" in study


@pytest.mark.slow
def test_the_official_client_of_mcp_asks(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setattr(sys, "argv", ["mcp_client.py", str(EXAMPLES), "04.flac", "Is a telephone heard?"])
    runpy.run_path(str(EXAMPLES / "mcp_client.py"), run_name="__main__")
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "tools: ask_recording, relisten" and lines[-1] == "link: recording:///04.flac"
    assert any(line in ("Answer: yes", "Answer: no") for line in lines)
