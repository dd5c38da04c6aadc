"""The command in a record says what was asked for, and not where."""

from __future__ import annotations

import pytest

from echo_agent.provenance import given_command


def test_paths_are_shortened_and_keys_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        "x",
        "finetune",
        "rl",
        "nano-rl",
        "/a/b/data",
        "--set",
        "model.name=/a/base/model",
        "--set",
        "seed=1",
        "a b",
    ]
    monkeypatch.setattr("sys.argv", given)
    assert given_command() == "echo-agent finetune rl nano-rl data --set model.name=model --set seed=1 'a b'"
