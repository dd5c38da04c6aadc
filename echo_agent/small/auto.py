"""echo-small by transformers' own doors: ``AutoConfig``, ``AutoModel...``, ``AutoTokenizer`` and ``AutoProcessor``.

Importing this module opens them. ``import echo_agent`` alone does not, since it loads no transformers; nor do the
modules of :mod:`echo_agent.small` that data is made with.
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

from echo_agent.small.configuration import SmallConfig
from echo_agent.small.modeling import SmallForConditionalGeneration, SmallModel
from echo_agent.small.processor import SmallProcessor

AutoConfig.register(SmallConfig.model_type, SmallConfig, exist_ok=True)
AutoModel.register(SmallConfig, SmallModel, exist_ok=True)
for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
    auto.register(SmallConfig, SmallForConditionalGeneration, exist_ok=True)
AutoTokenizer.register(SmallConfig, PreTrainedTokenizerFast, exist_ok=True)
AutoProcessor.register(SmallConfig, SmallProcessor, exist_ok=True)
