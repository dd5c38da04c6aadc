"""Music Flamingo, and Audio Flamingo Next, which is of the same architecture: Audio Flamingo 3 with a sense of time.

Between tower and projector, the states of each window are turned by an angle that says which second of the listen they
are of (a rotary embedding of time). It has no weights, so it belongs to what is kept as frozen. The time begins anew
with each listen, as in the model's own code: a crop does not know where in the recording it stands, the prompt says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import MusicFlamingoForConditionalGeneration
from transformers.models.musicflamingo.modeling_musicflamingo import apply_rotary_time_emb

from echo_agent.families.audio_flamingo3 import AudioFlamingo3Family
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST

if TYPE_CHECKING:
    from torch import Tensor

DOWNSAMPLING = 4
"""Mel frames to one audio token."""


class MusicFlamingoFamily(AudioFlamingo3Family):
    """Music Flamingo or Audio Flamingo Next with its loaded weights."""

    kind = "music-flamingo"
    model_class: Any = MusicFlamingoForConditionalGeneration
    limits = Limits(shortest=SHORTEST, longest_crop=60.0, longest_recording=1200.0)
    audio_marks = ("<|sound_bos|>", "<|sound_eos|>")

    @property
    def feature_settings(self) -> str:
        """How fast time turns."""
        config: Any = self.model.config
        return f"{config.rope_parameters} {config.audio_frame_step}"

    def _placed(self, states: Tensor, number: int) -> Tensor:
        """States ``[tokens, width]`` turned by their seconds: window ``number`` begins where those before it end."""
        rotary: Any = self.model.get_submodule("model.pos_emb")
        config: Any = self.model.config
        step = config.audio_frame_step * DOWNSAMPLING
        size = len(states)
        seconds = torch.arange(size, dtype=torch.float32) * step + number * size * step
        cos, sin = rotary(seconds[None].to(states.device), seq_len=size)
        return apply_rotary_time_emb(states[None], cos, sin)[0]
