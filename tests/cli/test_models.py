"""``models``: what can be named, and under which licence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_agent.cli.models import licence_of
from tests.cli.commands import Run


def test_models(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("models", "--json")
    listed = {model["name"]: model for model in json.loads(out)["models"]}
    assert code == 0 and listed["echo-nano"]["here"] is True
    assert listed["Qwen/Qwen2.5-Omni-7B"]["memory_gb"] > listed["Qwen/Qwen2.5-Omni-3B"]["memory_gb"] > 1
    assert {"bell", "voice", "wolf"} < set(listed["echo-nano"]["sounds"])
    assert {"zero", "nine", "market"} < set(listed["echo-nano"]["words"])
    assert all(model["licence"] and "here" in model["runs"] for model in listed.values())
    assert listed["Qwen/Qwen2.5-Omni-7B"]["runs"] == [*json.loads(out)["runs"]] == ["here", "vLLM", "API"]
    code, out, _ = run("models")
    assert code == 0 and all(name in out for name in listed)
    words = out.replace("\n", " ")
    assert "echo-nano knows the sounds: airplane, beep, bell" in words and "zero, one, two" in words
    assert "vLLM: --model NAME --server URL" in words and "API: --model openai:NAME@URL" in words


def test_the_licence_on_a_card_that_is_here_is_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "README.md"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: str(card))
    for head, licence in {
        "license: mit": "mit",
        "license: other\nlicense_name: qwen-research": "qwen-research",
        "license: other": None,
        "tags: [audio]": None,
        "license: [": None,
    }.items():
        card.write_text(f"---\n{head}\n---\nA model.\n")
        assert licence_of("some/model") == licence, head
    assert licence_of("echo-nano") is None
