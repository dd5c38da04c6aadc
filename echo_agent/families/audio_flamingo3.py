"""Audio Flamingo 3: a listen is cut into windows of 30 s, each encoded by itself, and laid end to end.

A short crop costs a full window in the encoder but only its own 25 tokens a second in the context; a long recording is
as many windows as it needs, to the ten minutes that the model was trained on. The windows of many listens are encoded
together: each is masked to what is real in it.

The model has no mark for the end of a listen, so a line break stands there.

A last window of less than three frames (30 ms) gives no token. It is left out, since it would be encoded for nothing,
and since Music Flamingo's own code, which counts windows by their tokens, fails over one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AudioFlamingo3ForConditionalGeneration

from echo_agent.audio.recording import AudioRef
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST, ChatMLFamily

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 30.0
"""Seconds that the encoder hears at once."""

BATCH = 8
"""Most windows that are encoded at once, for the sake of memory."""


class AudioFlamingo3Family(ChatMLFamily):
    """Audio Flamingo 3 with its loaded weights."""

    kind = "audio-flamingo-3"
    model_class: Any = AudioFlamingo3ForConditionalGeneration
    limits = Limits(shortest=SHORTEST, longest_crop=60.0, longest_recording=600.0)
    frozen_modules = ("model.audio_tower",)
    projector_module = "model.multi_modal_projector"
    audio_token = "<sound>"
    audio_marks = ("", "\n")

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, Tensor]]:
        """Outputs ``[tokens, width]`` of the audio tower, before the projector."""
        for ref, _ in crops:
            self.check_length(ref)
        cut = [self._windows(samples) for _, samples in crops]
        windows = [window for windows in cut for window in windows]
        states: list[Tensor] = []
        for first in range(0, len(windows), BATCH):
            mel, mask = self._window_features(windows[first : first + BATCH])
            tower: Any = self.model.get_submodule("model.audio_tower")
            features = mel.to(self.device, self.model.dtype)
            states += tower(features, input_features_mask=mask.to(self.device)).last_hidden_state.unbind()
        encoded: list[dict[str, Tensor]] = []
        rest = iter(states)
        for windows in cut:
            rows = [self._placed(next(rest), number) for number in range(len(windows))]
            sizes = [self._token_count(self._real_frames(window)) for window in windows]
            encoded.append({"tower": torch.cat([row[:n] for row, n in zip(rows, sizes, strict=True)])})
        return encoded

    def _placed(self, states: Tensor, number: int) -> Tensor:
        """States ``[tokens, width]`` of window ``number`` of a listen; here the same wherever it stands."""
        return states

    def _windows(self, samples: np.ndarray) -> list[np.ndarray]:
        """A crop cut into windows, without a last one that gives no token."""
        samples = self._heard(samples)
        size = round(WINDOW * self.sample_rate)
        windows = [samples[first : first + size] for first in range(0, len(samples), size)]
        return [window for window in windows if self._token_count(self._real_frames(window)) > 0]

    def _real_frames(self, window: np.ndarray) -> int:
        """Mel frames of a window that are not padding."""
        return ceil(len(window) / self.feature_extractor.hop_length)

    def _window_features(self, windows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Mel features ``[windows, bins, frames]`` and the mask over their frames."""
        mel = self._log_mel(windows, round(WINDOW * self.sample_rate))
        frames = torch.tensor([self._real_frames(window) for window in windows])
        return mel, (torch.arange(mel.shape[-1])[None] < frames[:, None]).long()

    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """The windows of all crops, one after the other."""
        cut = [self._windows(samples) for samples in crops]
        mel, mask = self._window_features([window for windows in cut for window in windows])
        return {"input_features": mel, "input_features_mask": mask}

    def _projector(self, features: Tensor) -> Tensor:
        """The two linear layers between tower and decoder."""
        return self.model.get_submodule(self.projector_module)(features)
