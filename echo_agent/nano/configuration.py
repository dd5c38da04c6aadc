"""Configuration of echo-nano: sizes of the encoder, the adapter and the decoder, and the budget of one listen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import LlamaConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

MAX_SECONDS = 600
"""Whole seconds that have a token of their own: spans are written with them, audio tokens carry them."""


class NanoConfig(PreTrainedConfig):
    """Sizes and budgets of an echo-nano model.

    Every listen, first or again, is given at most ``listen_tokens`` audio tokens and at most ``tokens_per_second``,
    whatever its span: perception has a constant price, and narrowing the span is how detail is bought.
    """

    model_type = "echo_nano"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {"text_config": SubConfigSpec(LlamaConfig)}

    def __init__(
        self,
        text_config: dict[str, Any] | LlamaConfig | None = None,
        encoder_dim: int = 384,
        encoder_heads: int = 6,
        encoder_layers: int = 4,
        encoder_ffn: int = 1536,
        middle_layer: int = 2,
        mel_bins: int = 80,
        window_seconds: float = 5.0,
        branch_dim: int = 192,
        branch_blocks: int = 3,
        branch_labels: int = 34,
        listen_tokens: int = 48,
        tokens_per_second: float = 6.0,
        audio_token_id: int = 0,
        time_token_ids: Sequence[int] = (),
        label_token_ids: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        """Build from plain values; ``text_config`` may be a dict, as it is in ``config.json``."""
        for name, value, least in (
            ("encoder_heads", encoder_heads, 1), ("middle_layer", middle_layer, 0), ("listen_tokens", listen_tokens, 1),
            ("window_seconds", window_seconds, 0.1), ("tokens_per_second", tokens_per_second, 0.01),
        ):  # fmt: skip
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not least <= value < math.inf
            ):
                raise ValueError(f"{name} is {value!r}: a number of at least {least} is expected")
        if middle_layer > encoder_layers:
            raise ValueError(f"middle_layer is {middle_layer}, but there are {encoder_layers} encoder_layers")
        self.encoder_dim = encoder_dim
        self.encoder_heads = encoder_heads
        self.encoder_layers = encoder_layers
        self.encoder_ffn = encoder_ffn
        self.middle_layer = middle_layer
        self.mel_bins = mel_bins
        self.window_seconds = window_seconds
        self.branch_dim = branch_dim
        self.branch_blocks = branch_blocks
        self.branch_labels = branch_labels
        self.listen_tokens = listen_tokens
        self.tokens_per_second = tokens_per_second
        self.audio_token_id = audio_token_id
        self.time_token_ids = list(time_token_ids) or [0] * (MAX_SECONDS + 1)
        self.label_token_ids = list(label_token_ids) or [0] * branch_labels
        text = text_config.to_dict() if isinstance(text_config, LlamaConfig) else dict(text_config or {})
        defaults: dict[str, Any] = dict(
            vocab_size=2048, hidden_size=192, intermediate_size=512, num_hidden_layers=5, num_attention_heads=6,
            num_key_value_heads=6, max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=True,
        )  # fmt: skip
        self.text_config = LlamaConfig(**(defaults | text))
        kwargs.setdefault("tie_word_embeddings", True)
        super().__init__(**kwargs)

    @property
    def feature_dim(self) -> int:
        """Width of a pooled audio feature: mean and max of two encoder layers and the sound branch."""
        return 2 * (2 * self.encoder_dim + self.branch_dim + self.branch_labels)

    def listen_size(self, seconds: float) -> int:
        """Audio tokens that a listen to ``seconds`` of sound costs."""
        return max(1, min(self.listen_tokens, int(seconds * self.tokens_per_second + 1e-6)))
