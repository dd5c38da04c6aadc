"""Training on text: a run that was stopped ends as one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from echo_agent.errors import DataError
from echo_agent.finetune.small import text_first
from echo_agent.finetune.small.text_first import (
    TextConfig,
    lessons,
    rate_at,
    take_layers,
    talk_lesson,
    train,
)
from tests.small.tiny_small import tiny_small

CONFIG = TextConfig(steps=4, tokens=400, questions=2, warmup=1, save_every=2, frozen=1)


class Stopped(Exception):
    """Stands for a kill."""


def test_a_stopped_run_ends_with_the_same_weights(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(source, tmp_path / "whole", CONFIG)

    def stop_at_3(tokenizer: Any, step: int, *rest: Any) -> Any:
        if step == 3:
            raise Stopped
        return lessons(tokenizer, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(text_first, "lessons", stop_at_3)
        train(source, tmp_path / "stopped", CONFIG)
    train(source, tmp_path / "stopped", CONFIG)
    whole, stopped = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert all(bool((whole[name] == stopped[name]).all()) for name in whole)
    before = load_file(source / "model.safetensors")
    moved = {name for name in whole if not bool((whole[name] == before[name]).all())}
    assert moved and not any("embed_tokens" in name or "layers.0." in name for name in moved)
    assert [json.loads(line)["step"] for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()] == [
        4
    ]


def test_the_trained_layers_of_another_model_are_gone_on_with(tmp_path: Path) -> None:
    family = tiny_small()
    family.save(tmp_path / "other")
    theirs = family.model.model.language_model
    own: Any = LlamaForCausalLM(theirs.config)
    lowest = own.model.layers[0].mlp.up_proj.weight.clone()
    take_layers(own, str(tmp_path / "other"), 1)
    assert torch.equal(own.model.layers[0].mlp.up_proj.weight, lowest)
    assert torch.equal(own.model.layers[1].mlp.up_proj.weight, theirs.layers[1].mlp.up_proj.weight)


def test_another_run_is_not_continued(source: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="other settings"):
        train(source, tmp_path, CONFIG)


def test_lessons_are_a_function_of_the_step(tokenizer: Any) -> None:
    first, again, other = (lessons(tokenizer, step, CONFIG).ids.tolist() for step in (7, 7, 8))
    assert first == again and first != other


def test_a_talk_is_a_lesson(tokenizer: Any) -> None:
    text = tokenizer.decode(talk_lesson(tokenizer, np.random.default_rng(1), 3).ids)
    assert text.count("<answer>") == 3 and ' a: "' in text


def test_the_rate_warms_up_and_falls() -> None:
    config = TextConfig(steps=100, warmup=10, learning_rate=1.0)
    rates = [rate_at(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates[-1] < 0.06
