"""Qwen2.5-Omni, thinker only: a crop is encoded at its own length, in chunks of two seconds that do not see each other.

So a crop costs what it lasts, and the length of a recording is bounded by the context (25 tokens per second) and by
what the model was trained on, not by its encoder. Of a full checkpoint only the thinker is read into memory.

*Positions*: the model has three position axes for pictures and video. With audio alone all three are the plain running
count, so that count is widened to ``[3, batch, n]`` here and always passed. The model object's own bookkeeping
(``rope_deltas``, one per model, overwritten by every call) is then never read or written.

*Projection*: it is the last layer inside the audio tower. What is kept as frozen is its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from echo_agent.audio.recording import AudioRef
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST, ChatMLFamily

if TYPE_CHECKING:
    import numpy as np

LONGEST_CROP = 60.0
"""Seconds: 1500 tokens. A longer stretch is better heard in two steps."""

LONGEST_RECORDING = 600.0
"""Seconds: 15 000 tokens, half of the context, and what the model was trained on (according to its authors)."""

BATCH_SECONDS = 300.0
"""Most seconds of audio that are encoded at once, for the sake of memory."""


class Qwen25OmniFamily(ChatMLFamily):
    """The thinker of Qwen2.5-Omni with its loaded weights."""

    kind = "qwen2.5-omni"
    model_class: Any = Qwen2_5OmniThinkerForConditionalGeneration
    limits = Limits(shortest=SHORTEST, longest_crop=LONGEST_CROP, longest_recording=LONGEST_RECORDING)
    frozen_modules = tuple(f"model.audio_tower.{part}" for part in ("conv1", "conv2", "layers", "ln_post"))
    projector_module = "model.audio_tower.proj"

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """The running count on all three axes: ``[3, batch, n]``."""
        return positions[None].expand(3, -1, -1)

    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Mel features padded to the longest crop, and the mask over their frames."""
        mel, frames = self._mel(crops, window=None)
        mel = mel[..., : int(frames.max())]
        mask = (torch.arange(mel.shape[-1])[None] < frames[:, None]).long()
        return {"input_features": mel, "feature_attention_mask": mask}

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, torch.Tensor]]:
        """States ``[tokens, width]`` of the audio tower that its projection is about to read."""
        for ref, _ in crops:
            self.check_length(ref)
        encoded: list[dict[str, torch.Tensor]] = []
        batch: list[np.ndarray] = []
        for _, samples in crops:
            longest = max([len(samples), *map(len, batch)])
            if (
                batch and (len(batch) + 1) * longest > BATCH_SECONDS * self.sample_rate
            ):  # they are padded alike
                encoded += self._encode(batch)
                batch = []
            batch.append(samples)
        return encoded + self._encode(batch) if batch else encoded

    def _encode(self, crops: Sequence[np.ndarray]) -> list[dict[str, torch.Tensor]]:
        """One pass of the tower over crops laid end to end."""
        inputs = self._model_features(crops)
        mask = inputs["feature_attention_mask"].bool()
        frames = mask.sum(-1)
        flat = inputs["input_features"].permute(0, 2, 1)[mask].T.to(self.device, self.model.dtype)
        tower: Any = self.model.get_submodule("model.audio_tower")
        projector = self.model.get_submodule(self.projector_module)
        caught: list[torch.Tensor] = []
        hook = projector.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            self._run_tower(tower, flat, frames)
        finally:
            hook.remove()
        rows = caught[0].split([self._token_count(n) for n in frames.tolist()])
        return [{"tower": row.clone()} for row in rows]

    def _run_tower(self, tower: Any, flat: torch.Tensor, frames: torch.Tensor) -> None:
        """Run the tower over mel features ``[bins, frames]`` of listens laid end to end."""
        steps, _ = tower._get_feat_extract_output_lengths(frames)
        tower(flat, feature_lens=frames.to(self.device), aftercnn_lens=steps.to(self.device))

    def _projector(self, features: torch.Tensor) -> torch.Tensor:
        """The projection at the end of the tower."""
        return self.model.get_submodule(self.projector_module)(features)
