"""The decoder's short way: the same numbers as transformers' own, whatever is padded, cached or put in its place."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers import DynamicCache, LlamaConfig, LlamaModel

from echo_agent.nano.decoder import decode


@pytest.fixture(params=[4, 2], ids=["heads", "grouped"])
def decoder(request: pytest.FixtureRequest) -> LlamaModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaModel(LlamaConfig(vocab_size=20, num_key_value_heads=request.param, **sizes)).eval()
    for weight in model.parameters():
        weight.data.normal_(0.0, 0.3)
    return model


@torch.no_grad()
def theirs(
    decoder: LlamaModel, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    return decoder(inputs_embeds=embeds, attention_mask=mask, position_ids=positions).last_hidden_state


@torch.no_grad()
def test_in_parts_with_holes_it_is_the_whole_of_transformers(decoder: LlamaModel) -> None:
    """Eleven slots of two rows, three of them empty in one, computed as six, four and one."""
    embeds = torch.randn(2, 11, 32)
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1, 3:6] = False
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    whole = theirs(decoder, embeds, mask, positions)
    cache, parts = DynamicCache(), []
    for start, end in ((0, 6), (6, 10), (10, 11)):
        new = slice(start, end)
        parts.append(decode(decoder, embeds[:, new], mask[:, :end], positions[:, new], cache))
    torch.testing.assert_close(torch.cat(parts, 1)[mask], whole[mask], atol=1e-5, rtol=1e-5)
    assert cache.get_seq_length() == 11
    wrong = decode(decoder, embeds, mask, positions + torch.arange(11), DynamicCache())
    assert (wrong - whole)[mask].abs().max() > 1e-2, "positions count"


@torch.no_grad()
def test_adapters_count(decoder: LlamaModel) -> None:
    embeds, mask = torch.randn(1, 5, 32), torch.ones(1, 5)
    positions = torch.arange(5)[None]
    plain = decode(decoder, embeds, mask, positions, DynamicCache())
    inner = inject_adapter_in_model(
        LoraConfig(target_modules=["q_proj", "down_proj"]), copy.deepcopy(decoder)
    )
    assert isinstance(inner, LlamaModel)
    for name, weight in inner.named_parameters():
        if "lora_B" in name:
            weight.normal_(0.0, 0.3)
    new = decode(inner, embeds, mask, positions, DynamicCache())
    torch.testing.assert_close(new, theirs(inner, embeds, mask, positions), atol=1e-5, rtol=1e-5)
    assert (new - plain).abs().max() > 1e-2
