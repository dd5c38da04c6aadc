"""What the Gemma 4 models have in common: their turns, and a decoder whose layers are of two kinds.

Most layers look back over a window of some hundred tokens, every fifth or sixth over everything, with wider heads; the
last ones may keep no keys and values of their own. The cache here holds the whole context for each layer that keeps
any, and what lies before a window is masked. A window is so many *positions*: rows of a padded batch have holes, and
the library counts slots, so the masks are made here.

A listen is 30 s at most, the first as well as crops, at 25 audio tokens a second. The model's card has the audio stand
after the question; here it stands before it, as for every family, so that all questions about a recording share its
keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from transformers import AutoConfig

from echo_agent.errors import ModelError
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST, ChatMLFamily
from echo_agent.families.checkpoint import reading

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import Cache

LONGEST = 30.0
"""Seconds of the longest listen: 750 tokens."""

BEGIN, TURN_BEGIN, TURN_END, END = "<bos>", "<|turn>", "<turn|>", "<eos>"


class Gemma4DecoderFamily(ChatMLFamily):
    """What Gemma 4 models that hear have in common; how they hear is left to each."""

    limits = Limits(shortest=SHORTEST, longest_crop=LONGEST, longest_recording=LONGEST)
    projector_module = "model.embed_audio"
    audio_token = "<|audio|>"
    audio_marks = ("<|audio>", "<audio|>")
    turn_marks = (BEGIN, TURN_BEGIN, TURN_END)
    end_marks = (TURN_END, END)
    masks_windows: ClassVar[bool] = True

    @classmethod
    def load(cls, source: str, *, name: str, **options: Any) -> Self:
        """Load from a hub id or a folder; see :meth:`ChatMLFamily.load`.

        Raises:
            ModelError: Also where the checkpoint cannot hear, before its weights are read.
        """
        with reading(name, "config.json"):
            config: Any = AutoConfig.from_pretrained(source, trust_remote_code=False)
        if config.audio_config is None:
            raise ModelError(
                f"{name} is a Gemma 4 that does not hear (its config.json has no audio_config): take one that does, "
                "such as google/gemma-4-E2B-it"
            )
        return super().load(source, name=name, **options)

    def turn_open(self, role: str) -> str:
        """Text that opens a turn."""
        return f"{TURN_BEGIN}{'model' if role == 'assistant' else role}\n"

    def turn_close(self, role: str = "assistant") -> str:
        """Text that closes a turn."""
        return f"{TURN_END}\n"

    def _prompt(self) -> str:
        """Every context begins with the mark of a beginning."""
        return BEGIN + super()._prompt()

    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Features ``[crops, frames, width]`` padded to the longest crop, and the mask over their frames."""
        # Also in training, features are those of full precision.
        with torch.autocast("cpu", enabled=False):
            heard = self.feature_extractor([self._heard(samples) for samples in crops], return_tensors="pt")
        return {key: heard[key] for key in ("input_features", "input_features_mask")}

    def _projector(self, features: Tensor) -> Tensor:
        """The linear layer before the decoder."""
        return self.model.get_submodule(self.projector_module)(features)

    @property
    def _text(self) -> Any:
        """The configuration of the decoder."""
        config: Any = self.model.config
        return config.get_text_config()

    def forward_embeds(
        self, embeds: Tensor, mask: Tensor, positions: Tensor, cache: Cache | None
    ) -> tuple[Tensor, Cache]:
        """One step of the decoder, each kind of layer with its own mask."""
        masks = self._masks(mask.bool(), positions, embeds.dtype)
        return self._step(self.model.get_submodule(self.decoder_module), embeds, masks, positions, cache)

    def _masks(self, real: Tensor, positions: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        """Masks ``[batch, 1, new, cached + new]`` to add to the scores of attention, by the kind of layer.

        Real slots of a row hold its positions in order: the number of those up to a slot says where it stands.
        """
        distance = positions.int()[..., None] - (real.cumsum(-1, dtype=torch.int32) - 1)[:, None]
        seen = real[:, None] & (distance >= 0)
        near = seen & (distance < self._text.sliding_window)
        del distance  # it is as large as both masks
        hidden = torch.finfo(dtype).min
        return {
            kind: torch.full(kept.shape, hidden, dtype=dtype, device=kept.device).masked_fill_(kept, 0)[
                :, None
            ]
            for kind, kept in (("full_attention", seen), ("sliding_attention", near))
        }

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores ``[..., vocabulary]`` in float32, held below a limit."""
        scores, limit = super().logits(hidden), self._text.final_logit_softcapping
        return scores if limit is None else limit * torch.tanh(scores / limit)
