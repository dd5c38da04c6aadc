"""Phi-4-multimodal: a conformer whose frames become 12.5 audio tokens a second.

*One by one*: where the model's processor pads clips to the longest, the padding is heard through the convolutions at
the end of the shorter ones, by more than one crop differs from another. So each listen is encoded by itself, here and
in the pass through the model's own ``forward`` that training is compared with.

*Context*: the model has two sets of rotary frequencies, one up to 4096 tokens and one for contexts beyond them; where
a context crosses that line, all its keys would have to be computed anew, and a batch with one long row would change the
short ones. So the context ends at 4096 tokens: four minutes of audio and room to think.

*Adapters*: the published checkpoint keeps low-rank adapters for speech in a folder of their own (``speech-lora``), to
be on whenever there is audio. They are worked into the weights when the model is loaded.

*Projection*: two linear layers stand between encoder and decoder. The second is trained, the first belongs to what is
kept as frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import Phi4MultimodalFeatureExtractor, Phi4MultimodalForCausalLM

from echo_agent.audio.recording import AudioRef
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST, ChatMLFamily

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache

USER, END, TEXT_END = "<|user|>", "<|end|>", "<|endoftext|>"
AUDIO_PART = "model.embed_tokens_extend.audio_embed"


class Phi4MultimodalFamily(ChatMLFamily):
    """Phi-4-multimodal with its loaded weights."""

    kind = "phi4-multimodal"
    model_class: Any = Phi4MultimodalForCausalLM
    extractor_class = Phi4MultimodalFeatureExtractor
    limits = Limits(shortest=SHORTEST, longest_crop=60.0, longest_recording=240.0)
    frozen_modules = (f"{AUDIO_PART}.encoder", f"{AUDIO_PART}.up_proj_for_speech")
    projector_module = f"{AUDIO_PART}.down_proj_for_speech"
    decoder_module = "model.layers"
    adapters = "speech-lora"
    audio_token = "<|audio|>"
    audio_marks = ("", "\n")
    turn_marks = ("<|system|>", USER, "<|assistant|>", END)
    end_marks = (END, TEXT_END)

    def __init__(self, *parts: Any) -> None:
        """Take loaded parts; the context ends where the rotary frequencies would change."""
        super().__init__(*parts)
        config: Any = self.model.config
        if config.rope_parameters.get("rope_type") == "longrope":
            self.context_length = min(self.context_length, config.original_max_position_embeddings)

    def turn_open(self, role: str) -> str:
        """Text that opens a turn."""
        return f"<|{role}|>"

    def turn_close(self, role: str = "assistant") -> str:
        """Text that closes a turn."""
        return END

    @classmethod
    def _mel_bins(cls, config: Any) -> int:
        """Mel bins that the encoder hears."""
        return config.audio_config.input_size

    def _audio_token_id(self, config: Any) -> int:
        """Id of the placeholder."""
        return config.audio_config.audio_token_id

    def _token_count(self, frames: int) -> int:
        """One for every eight frames begun."""
        return -(-frames // self.feature_extractor.audio_compression_rate)

    def _frames(self, samples: int) -> int:
        """Mel frames of a crop: whole windows of 25 ms only."""
        extractor = self.feature_extractor
        return (self._heard_samples(samples) - extractor.win_length) // extractor.hop_length + 1

    def _banned(self, vocabulary: dict[str, int], config: Any) -> tuple[int, ...]:
        """As for every family, and the placeholder of pictures."""
        return (*super()._banned(vocabulary, config), config.vision_config.image_token_id)

    def _mel_of(self, samples: np.ndarray) -> Tensor:
        """Mel features ``[1, frames, bins]`` of one crop."""
        # Also in training, mel features are those of full precision.
        with torch.autocast("cpu", enabled=False):
            mel = self.feature_extractor([self._heard(samples)], sampling_rate=self.sample_rate)
        return mel["audio_input_features"]

    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Features of one crop, and its number of tokens; several would be padded to one another."""
        (samples,) = crops
        size = self._model_tokens(len(samples))
        return {"audio_input_features": self._mel_of(samples), "audio_embed_sizes": torch.tensor([size])}

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, Tensor]]:
        """What the second linear layer after the encoder is about to read, ``[tokens, hidden]``."""
        for ref, _ in crops:
            self.check_length(ref)
        part: Any = self.model.get_submodule(AUDIO_PART)
        encoded: list[dict[str, Tensor]] = []
        for _, samples in crops:
            states = part.encoder(self._mel_of(samples).to(self.device, self.model.dtype), None)
            (states,) = torch.nn.functional.gelu(part.up_proj_for_speech(states))
            encoded.append({"tower": states})
        return encoded

    def _projector(self, features: Tensor) -> Tensor:
        """The last linear layer before the decoder."""
        return self.model.get_submodule(self.projector_module)(features)

    def forward_embeds(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: Cache | None
    ) -> tuple[Tensor, Cache]:
        """One step of the decoder, which is the model itself here."""
        return self._step(self.model.get_submodule("model"), embeds, mask, positions, cache)

    def _heard_alone(self, crops: Sequence[np.ndarray]) -> list[Tensor]:
        """Each crop by itself, always."""
        return [self._own_embeds(samples) for samples in crops]

    def _own_embeds(self, samples: np.ndarray) -> Tensor:
        """Embeddings ``[tokens, hidden]`` of one crop by the model's own way from features to placeholders."""
        features = {key: value.to(self.device) for key, value in self._model_features([samples]).items()}
        ids = torch.full((1, self._model_tokens(len(samples))), self.audio_id, device=self.device)
        merge: Any = self.model.get_submodule("model.embed_tokens_extend")
        (embeds,) = merge(ids, self.token_embeds(ids), **features)
        return embeds
