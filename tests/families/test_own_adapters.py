"""Adapters that a checkpoint brings along are on, and are weights like any others once it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from echo_agent.conformance.story import apart, native, tell
from echo_agent.families.base import Family
from echo_agent.families.loading import load_family
from tests.tiny import tiny_family

LAYERS = {
    "granite-speech": r".*language_model.*\.(q|v)_proj",
    "phi4-multimodal": r"model\.layers\..*qkv_proj",
}


def adapted(family: Family) -> PeftModel:
    """The model with adapters on its decoder, whose weights are drawn."""
    model = get_peft_model(family.model, LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS[family.kind]))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    assert isinstance(model, PeftModel)
    return model.eval()


@pytest.mark.parametrize(("kind", "folder"), [("granite-speech", ""), ("phi4-multimodal", "speech-lora")])
def test_they_are_worked_into_the_weights(kind: str, folder: str, tmp_path: Path) -> None:
    bare = tiny_family(kind)
    bare.save(tmp_path)
    whole = tiny_family(kind)
    model = adapted(whole)
    model.save_pretrained(str(tmp_path / folder))
    told = tell(bare)
    wanted = native(whole, told)  # the adapters are on: they are layers of the same model
    assert apart(wanted, native(bare, told)) > 0.01
    loaded = load_family(str(tmp_path), "cpu")
    assert apart(native(loaded, told), wanted) < 1e-5
    assert not any("lora" in name for name in loaded.model.state_dict())
    loaded.save(tmp_path / "again")
    assert apart(native(load_family(str(tmp_path / "again"), "cpu"), told), wanted) < 1e-5
