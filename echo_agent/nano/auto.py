"""echo-nano by transformers' own doors: ``AutoConfig``, ``AutoModel...``, ``AutoTokenizer`` and ``AutoProcessor``.

Importing any module of :mod:`echo_agent.nano` opens them. ``import echo_agent`` alone does not, since it loads no
transformers.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.modeling import NanoForConditionalGeneration, NanoModel
from echo_agent.nano.processor import NanoProcessor


def register() -> None:
    """Make echo-nano known; doing it twice changes nothing."""
    make_known(NanoConfig, NanoModel, NanoForConditionalGeneration, NanoProcessor)


def make_known(config: Any, base: Any, whole: Any, processor: Any) -> None:
    """Register a model's configuration, its base, itself with its head, and its processor, with a fast tokenizer."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(config, base, exist_ok=True)
    for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
        auto.register(config, whole, exist_ok=True)
    AutoTokenizer.register(config, PreTrainedTokenizerFast, exist_ok=True)
    AutoProcessor.register(config, processor, exist_ok=True)
