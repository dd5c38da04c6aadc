"""LAT-Audio (arXiv 2604.22245): weights of Qwen3-Omni that were taught to crop a recording and listen again.

It differs from its base in two things. Its first listen is averaged by two in time, so that half an hour fits; what it
listens to again comes at the full rate. And it calls ``crop_audio`` in the dialect of that name.

The averaging stands between the audio tower and the decoder. Where the number of tokens is not even it is a linear
interpolation to the number that half of the frames would give. Both are means whose weights add up to one, so it makes
no difference whether they are taken before the last linear layer or after it: they are taken before, and half as much
is kept.

A call for the whole recording is answered with the first listen again: the two are one and the same reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from echo_agent.audio.recording import AudioRef
from echo_agent.families.base import MARK
from echo_agent.families.qwen3_omni import Qwen3OmniFamily

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor

POOLED = 2
"""Tokens of a first listen that become one."""


class LatAudioFamily(Qwen3OmniFamily):
    """LAT-Audio with its loaded weights."""

    kind = "lat-audio"
    default_dialect = "crop-audio"

    @property
    def feature_settings(self) -> str:
        """First listens are averaged."""
        return f"first listen / {POOLED}"

    def save(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """As for every family; the configuration says whose weights these are, whatever the folder is called."""
        setattr(self.model.config, MARK, self.kind)
        super().save(folder, weights)

    def audio_tokens(self, ref: AudioRef) -> int:
        """Number of placeholders: 13 per second heard, of a first listen half of that."""
        frames = self._frames(ref.samples(self.sample_rate))
        return self._token_count(max(1, frames // POOLED)) if ref.is_whole else self._token_count(frames)

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, Tensor]]:
        """States of the audio tower, those of first listens averaged."""
        encoded = super().encode(crops)
        return [
            {"tower": self._pooled(ref, features["tower"])}
            for (ref, _), features in zip(crops, encoded, strict=True)
        ]

    def _pooled(self, ref: AudioRef, states: Tensor) -> Tensor:
        """States ``[tokens, width]`` of a listen at the rate at which it is heard."""
        if not ref.is_whole:
            return states
        return torch.nn.functional.interpolate(
            states.T[None], size=self.audio_tokens(ref), mode="linear", align_corners=False
        )[0].T

    def forward_inputs(
        self, ids: Sequence[int], crops: Sequence[tuple[AudioRef, np.ndarray]]
    ) -> dict[str, Any]:
        """Keyword arguments of the model's own ``forward``, which knows no averaging: what is heard is merged here."""
        self.check_placeholders(ids, [ref for ref, _ in crops])
        heard = [self._pooled(ref, self._own_embeds(samples)) for ref, samples in crops]
        return self._merged_inputs(ids, heard)
