"""A tiny decoder of SmolLM2's architecture, with a tokenizer of single bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from echo_agent.finetune.small.tree_attention import TREES
from echo_agent.small.processing import CONTROL, MARKUP
from tests.small.tiny_small import byte_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte by byte, with the tokens of the context's frame."""
    return byte_tokenizer((*CONTROL, *MARKUP))


@pytest.fixture
def model() -> Any:
    """Two layers with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM._from_config(config, attn_implementation=TREES).eval()


@pytest.fixture
def source(tmp_path: Path, model: Any, tokenizer: Any) -> Path:
    """Both in a folder, as the converter writes them."""
    folder = tmp_path / "smollm2"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
