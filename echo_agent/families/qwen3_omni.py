"""Qwen3-Omni, thinker only: a mixture of experts whose audio costs 13 tokens a second.

Like Qwen2.5-Omni it encodes a crop at its own length, has three position axes that are the plain count for audio, and
ends its audio tower with the projection; of a full checkpoint only the thinker is read.

*Short crops*: the tower cuts listens into chunks of a second and pads all chunks of a call to the longest. What padding
does to the last frames of a chunk is small, and a listen shorter than a second is the only one that can be padded
differently in company than alone. Such listens are encoded one by one, the others together; then what is heard never
depends on what else is encoded at the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import Qwen3OmniMoeThinkerForConditionalGeneration

from echo_agent.audio.recording import AudioRef
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST
from echo_agent.families.qwen25_omni import Qwen25OmniFamily

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CHUNK = 100
"""Mel frames that the tower encodes as one."""
CHUNK_TOKENS = 13
"""Audio tokens of a chunk."""


class Qwen3OmniFamily(Qwen25OmniFamily):
    """The thinker of Qwen3-Omni with its loaded weights."""

    kind = "qwen3-omni"
    model_class: Any = Qwen3OmniMoeThinkerForConditionalGeneration
    limits = Limits(shortest=SHORTEST, longest_crop=60.0, longest_recording=1800.0)
    frozen_modules = tuple(
        f"model.audio_tower.{part}"
        for part in ("conv2d1", "conv2d2", "conv2d3", "conv_out", "layers", "ln_post", "proj1")
    )
    projector_module = "model.audio_tower.proj2"
    audio_token = "<|audio_pad|>"
    audio_marks = ("<|audio_start|>", "<|audio_end|>")

    def _token_count(self, frames: int) -> int:
        """13 for each whole chunk; what is left goes through three convolutions of stride 2."""
        whole, rest = divmod(frames, CHUNK)
        for _ in range(3):
            rest = (rest + 1) // 2
        return whole * CHUNK_TOKENS + rest

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, Tensor]]:
        """States ``[tokens, width]`` of the audio tower that its projection is about to read."""
        short = [i for i, (_, samples) in enumerate(crops) if self._frames(len(samples)) < CHUNK]
        together = [crop for i, crop in enumerate(crops) if i not in short]
        encoded = iter(super().encode(together) if together else [])
        alone = {i: super(Qwen3OmniFamily, self).encode([crops[i]])[0] for i in short}
        return [alone[i] if i in alone else next(encoded) for i in range(len(crops))]

    def _run_tower(self, tower: Any, flat: Tensor, frames: Tensor) -> None:
        """Run the tower over mel features ``[bins, frames]`` of listens laid end to end."""
        tower(flat, feature_lens=frames.to(self.device))

    def _heard_alone(self, crops: Sequence[np.ndarray]) -> list[Tensor]:
        """Each crop by itself, where one is shorter than a chunk."""
        if all(self._frames(len(samples)) >= CHUNK for samples in crops):
            return []
        return [self._own_embeds(samples) for samples in crops]

    def _own_embeds(self, samples: np.ndarray) -> Tensor:
        """Embeddings ``[tokens, hidden]`` of one crop by the model's own encoder."""
        features = {key: value.to(self.device) for key, value in self._model_features([samples]).items()}
        model: Any = self.model
        return model.get_audio_features(**features).last_hidden_state
