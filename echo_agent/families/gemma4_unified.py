"""Gemma 4 without towers (12B): a listen is its samples, 640 of them (40 ms) to a token, projected into the decoder.

There is no encoder, so nothing is frozen and the features that are kept are the samples. The decoder is that of
:mod:`echo_agent.families.gemma4_decoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import Gemma4UnifiedAudioFeatureExtractor, Gemma4UnifiedForConditionalGeneration

from echo_agent.audio.recording import AudioRef
from echo_agent.families.gemma4_decoder import Gemma4DecoderFamily

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Gemma4UnifiedFamily(Gemma4DecoderFamily):
    """Gemma 4 without towers, with its loaded weights."""

    kind = "gemma4-unified"
    model_class: Any = Gemma4UnifiedForConditionalGeneration
    extractor_class: Any = Gemma4UnifiedAudioFeatureExtractor
    frozen_modules = ()

    @classmethod
    def _mel_bins(cls, config: Any) -> int:
        """Samples of a token: what its extractor calls features."""
        return config.audio_config.audio_samples_per_token

    def _model_tokens(self, samples: int) -> int:
        """One for every frame of samples begun."""
        return -(-self._heard_samples(samples) // self.feature_extractor.audio_samples_per_token)

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, Tensor]]:
        """Frames of samples ``[tokens, samples per token]``."""
        for ref, _ in crops:
            self.check_length(ref)
        return [
            {"tower": self._model_features([samples])["input_features"][0].to(self.device)}
            for _, samples in crops
        ]
