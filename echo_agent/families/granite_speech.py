"""Granite Speech: a conformer, and a projector that asks three questions of every 0.3 s; 10 audio tokens a second.

*One by one*: the encoder has no mask for padding. Where the model's processor pads clips to the longest, what is heard
of a short one depends on how long the others are, by more than one crop differs from another. So each listen is encoded
by itself, here and in the pass through the model's own ``forward`` that training is compared with.

*Adapters*: the published checkpoints keep low-rank adapters beside the weights that are to be on whenever there is
audio. There always is audio here: they are worked into the weights when the model is loaded.

*Tokens*: the rate is 10 a second, but they come in threes: a crop of 0.2 s costs three, as one of 0.3 s does. The model
has no mark for the end of a listen, so a line break stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import GraniteSpeechFeatureExtractor, GraniteSpeechForConditionalGeneration

from echo_agent.audio.recording import AudioRef
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST, ChatMLFamily

if TYPE_CHECKING:
    from torch import Tensor

ROLE, ROLE_END, END = "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"


class GraniteSpeechFamily(ChatMLFamily):
    """Granite Speech with its loaded weights."""

    kind = "granite-speech"
    model_class: Any = GraniteSpeechForConditionalGeneration
    extractor_class = GraniteSpeechFeatureExtractor
    limits = Limits(shortest=SHORTEST, longest_crop=60.0, longest_recording=600.0)
    frozen_modules = ("model.encoder",)
    projector_module = "model.projector"
    audio_token = "<|audio|>"
    audio_marks = ("", "\n")
    turn_marks = (ROLE, ROLE_END, END)
    end_marks = (END,)

    def turn_open(self, role: str) -> str:
        """Text that opens a turn."""
        return f"{ROLE}{role}{ROLE_END}"

    def turn_close(self, role: str = "assistant") -> str:
        """Text that closes a turn."""
        return f"{END}\n"

    @classmethod
    def _mel_bins(cls, config: Any) -> int:
        """Two mel frames side by side go into the encoder."""
        return config.encoder_config.input_dim // 2

    @property
    def _questions(self) -> int:
        """Tokens that the projector makes of each of its windows."""
        config: Any = self.model.config
        return config.window_size // config.downsample_rate

    def _model_tokens(self, samples: int) -> int:
        """Tokens of all windows that the crop reaches into."""
        config: Any = self.model.config
        mel = self._heard_samples(samples) // self.feature_extractor.melspec_kwargs["hop_length"] + 1
        return ceil((mel // 2) / config.window_size) * self._questions

    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Mel features ``[1, frames, 2 x bins]`` of one crop; several would be padded to one another."""
        (samples,) = crops
        # Also in training, mel features are those of full precision.
        with torch.autocast("cpu", enabled=False):
            mel = self.feature_extractor([torch.from_numpy(self._heard(samples))])["input_features"]
        return {"input_features": mel}

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, Tensor]]:
        """Outputs ``[windows x window, width]`` of the encoder, filled up with zeros to whole windows."""
        for ref, _ in crops:
            self.check_length(ref)
        encoder: Any = self.model.get_submodule("model.encoder")
        config: Any = self.model.config
        encoded: list[dict[str, Tensor]] = []
        for _, samples in crops:
            mel = self._model_features([samples])["input_features"].to(self.device, self.model.dtype)
            (states,) = encoder(mel).last_hidden_state
            missing = -len(states) % config.window_size
            encoded.append({"tower": torch.nn.functional.pad(states, (0, 0, 0, missing))})
        return encoded

    def audio_embeds(self, refs: Sequence[AudioRef], features: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        """The projector's answers about each window; it looks at windows one by one, so they go through together."""
        if not refs:
            return []
        config: Any = self.model.config
        towers = [feature["tower"] for feature in features]
        sizes = [len(tower) // config.window_size * self._questions for tower in towers]
        for ref, size in zip(refs, sizes, strict=True):
            self._check_features(ref, size)
        projected = self._projector(torch.cat([tower.to(self.device) for tower in towers]))
        return list(projected.to(self.model.dtype).split(sizes))

    def _projector(self, features: Tensor) -> Tensor:
        """States of whole windows ``[windows x window, width]`` to embeddings ``[tokens, hidden]``."""
        (projected,) = self.model.get_submodule(self.projector_module)(features[None])
        return projected

    def _heard_alone(self, crops: Sequence[np.ndarray]) -> list[Tensor]:
        """Each crop by itself, always."""
        return [self._own_embeds(samples) for samples in crops]

    def _own_embeds(self, samples: np.ndarray) -> Tensor:
        """Embeddings ``[tokens, hidden]`` of one crop by the model's own encoder and projector."""
        mel = self._model_features([samples])["input_features"].to(self.device, self.model.dtype)
        model: Any = self.model
        (embeds,) = model.get_audio_features(mel).pooler_output
        return embeds
