"""Gemma 4 with a tower for audio (E2B and E4B): a conformer before the decoder.

Each layer of the decoder also reads the id of a token, by a table of its own. What the layers read is carried behind
the hidden numbers of a token's embedding, through the engine and the trainers alike. Where audio stands they read what
they read of padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import Gemma4AudioFeatureExtractor, Gemma4ForConditionalGeneration

from echo_agent.audio.recording import AudioRef
from echo_agent.families.gemma4_decoder import Gemma4DecoderFamily

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

BATCH = 8
"""Most listens that are encoded at once, for the sake of memory."""


class Gemma4Family(Gemma4DecoderFamily):
    """Gemma 4 with a tower for audio, with its loaded weights."""

    kind = "gemma4"
    model_class: Any = Gemma4ForConditionalGeneration
    extractor_class: Any = Gemma4AudioFeatureExtractor
    frozen_modules = ("model.audio_tower",)

    @classmethod
    def _mel_bins(cls, config: Any) -> int:
        """The model has no setting for them: it takes them to be as many as the channels of its first convolution."""
        return config.audio_config.subsampling_conv_channels[0]

    def _frames(self, samples: int) -> int:
        """Mel frames of a crop: those whose window is heard whole, with the sample after it."""
        extractor = self.feature_extractor
        heard = self._heard_samples(samples) + extractor.frame_length // 2
        return (heard - extractor.frame_length - 1) // extractor.hop_length + 1

    def _token_count(self, frames: int) -> int:
        """One for every four frames begun."""
        return -(-frames // 4)

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, Tensor]]:
        """Outputs ``[tokens, width]`` of the audio tower; what is padded is masked in it."""
        for ref, _ in crops:
            self.check_length(ref)
        tower: Any = self.model.get_submodule("model.audio_tower")
        encoded: list[dict[str, Tensor]] = []
        for first in range(0, len(crops), BATCH):
            batch = [samples for _, samples in crops[first : first + BATCH]]
            inputs = self._model_features(batch)
            mel = inputs["input_features"].to(self.device, self.model.dtype)
            states = tower(mel, inputs["input_features_mask"].to(self.device)).last_hidden_state
            for row, samples in zip(states, batch, strict=True):
                encoded.append({"tower": row[: self._model_tokens(len(samples))].clone()})
        return encoded

    def token_embeds(self, ids: Tensor) -> Tensor:
        """Embeddings ``[..., hidden]``, and behind them what the layers read of the ids ``[..., layers x width]``."""
        decoder: Any = self.model.get_submodule(self.decoder_module)
        read = decoder.get_per_layer_inputs(ids.masked_fill(ids == self.audio_id, self._text.pad_token_id))
        return torch.cat([super().token_embeds(ids), read.flatten(-2)], dim=-1)

    def embeds_inputs(self, embeds: Tensor) -> dict[str, Tensor]:
        """The two parts of embeddings by the names that the model's ``forward`` has for them."""
        hidden, read = embeds.tensor_split([self._text.hidden_size], dim=-1)
        return {
            "inputs_embeds": hidden,
            "per_layer_inputs": read.unflatten(-1, (self._text.num_hidden_layers, -1)),
        }
