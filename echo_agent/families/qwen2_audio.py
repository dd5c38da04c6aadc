"""Qwen2-Audio: every crop is encoded in a window of 30 s, whatever its length; the projector stands after the tower.

A crop of one second costs a full window in the encoder but only its own 25 tokens in the context. What is longer than
the window cannot be heard at all: longer recordings are refused.

The model's ``forward`` has a merge from the days of unexpanded prompts that switches on when no two audio placeholders
of a batch stand side by side, and then changes the length of the sequence. The shortest crop here has five tokens, so
that it never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import Qwen2AudioForConditionalGeneration
from transformers.masking_utils import create_bidirectional_mask

from echo_agent.audio.recording import AudioRef
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST, ChatMLFamily, audio_token_count

if TYPE_CHECKING:
    import numpy as np

WINDOW = 30.0
"""Seconds that the encoder hears at once."""

BATCH = 8
"""Most windows that are encoded at once, for the sake of memory: 32 layers over 1500 frames each."""


class Qwen2AudioFamily(ChatMLFamily):
    """Qwen2-Audio with its loaded weights."""

    kind = "qwen2-audio"
    model_class = Qwen2AudioForConditionalGeneration
    limits = Limits(shortest=SHORTEST, longest_crop=WINDOW, longest_recording=WINDOW)
    frozen_modules = ("model.audio_tower",)
    projector_module = "model.multi_modal_projector"
    _labels = True  # as this model was taught: "Audio 1: ..."

    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Mel features padded to the window, and the mask over their frames."""
        mel, frames = self._mel(crops, window=round(WINDOW * self.sample_rate))
        mask = (torch.arange(mel.shape[-1])[None] < frames[:, None]).long()
        return {"input_features": mel, "feature_attention_mask": mask}

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, torch.Tensor]]:
        """Outputs ``[tokens, width]`` of the audio tower, before the projector."""
        for ref, _ in crops:
            self.check_length(ref)
        tower: Any = self.model.get_submodule("model.audio_tower")
        encoded: list[dict[str, torch.Tensor]] = []
        for first in range(0, len(crops), BATCH):
            inputs = self._model_features([samples for _, samples in crops[first : first + BATCH]])
            mask = inputs["feature_attention_mask"]
            steps, _ = tower._get_feat_extract_output_lengths(mask.sum(-1))
            # The tower hears the padding unless it is told not to: the mask is over frames after the convolutions.
            heard = torch.arange((mask.shape[-1] - 2) // 2 + 1)[None] < steps[:, None]
            features = inputs["input_features"].to(self.device, self.model.dtype)
            attention = create_bidirectional_mask(
                config=tower.config,
                inputs_embeds=features.new_zeros(*heard.shape, 1),
                attention_mask=heard.long().to(self.device),
            )
            states = tower(features, attention_mask=attention).last_hidden_state
            for row, frames in zip(states, mask.sum(-1).tolist(), strict=True):
                encoded.append({"tower": row[: audio_token_count(frames)].clone()})
        return encoded

    def _projector(self, features: torch.Tensor) -> torch.Tensor:
        """The linear layer between tower and decoder."""
        return self.model.get_submodule(self.projector_module)(features)
