"""Whether there is room for a training is said before it begins, and running out of it says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from echo_agent.errors import ModelError
from echo_agent.finetune import memory, sft
from echo_agent.finetune.memory import bytes_to_train, check_memory
from echo_agent.finetune.policy import mark_trainable
from tests.finetune.small_dataset import saved
from tests.finetune.training import rl_recipe, sft_recipe
from tests.tiny import tiny_family


def test_what_is_counted_is_what_a_trainer_holds() -> None:
    """Gradients and AdamW's moments, as large as the weights each; a copy of all weights for the divergence."""
    family = tiny_family("qwen2-audio")
    mark_trainable(family, False)
    trained = [p for p in family.model.parameters() if p.requires_grad]
    loss = sum((p.square().sum() for p in trained), start=torch.zeros(()))
    optimiser = torch.optim.AdamW(trained)
    loss.backward()
    optimiser.step()
    held = sum(p.grad.nbytes for p in trained if p.grad is not None)
    held += sum(v.nbytes for state in optimiser.state.values() for v in state.values() if v.ndim)
    assert bytes_to_train(family, sft_recipe("m")) == held
    copied = bytes_to_train(family, rl_recipe("m", loss={"kl": 0.1})) - bytes_to_train(family, rl_recipe("m"))
    assert copied == sum(p.nbytes for p in family.model.parameters())
    adapters = bytes_to_train(family, sft_recipe("m", lora={"rank": 2, "train_projector": False}))
    assert 0 < adapters < held / 4


def test_no_room_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    family = tiny_family("echo-nano")
    mark_trainable(family, False)
    check_memory(family, sft_recipe("m"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(
        ModelError, match=r"0.0 GB are free on cpu: use a smaller optimiser.batch.*lora"
    ) as error:
        check_memory(family, rl_recipe("m", loss={"kl": 0.1}))
    assert str(error.value).endswith("set loss.kl to 0")


def test_running_out_of_memory_says_what_to_change(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB\nand more")

    monkeypatch.setattr(sft.Collator, "__call__", full)
    name = saved(tiny_family("echo-nano"), tmp_path / "model")
    with pytest.raises(
        ModelError, match=r"ran out of memory in step 1: use a smaller.*tried to allocate 20 GiB\)$"
    ):
        sft.train_sft(sft_recipe(name), dataset, tmp_path / "run", report=lambda _: None)
