"""echo-nano by transformers' own doors: ``AutoConfig``, ``AutoModel...``, ``AutoTokenizer`` and ``AutoProcessor``.

Importing any module of :mod:`echo_agent.nano` opens them. ``import echo_agent`` alone does not, since it loads no
transformers.
"""

from __future__ import annotations

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
    AutoConfig.register(NanoConfig.model_type, NanoConfig, exist_ok=True)
    AutoModel.register(NanoConfig, NanoModel, exist_ok=True)
    for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
        auto.register(NanoConfig, NanoForConditionalGeneration, exist_ok=True)
    AutoTokenizer.register(NanoConfig, PreTrainedTokenizerFast, exist_ok=True)
    AutoProcessor.register(NanoConfig, NanoProcessor, exist_ok=True)
