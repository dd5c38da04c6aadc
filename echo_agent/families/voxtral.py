"""Voxtral: every listen is padded to a multiple of 30 s, and the padding is heard as silence.

So the price of a listen goes by windows: 375 tokens for any crop up to 30 s, 750 beyond that. A policy that listens
again with this model should ask for one long stretch where it would ask others for three short ones.

Its turns are Mistral's: ``[INST]`` to ``[/INST]`` for the user, ``</s>`` at the end of the assistant's. There is no
system turn; what would stand there opens the user's. The tokenizer is read from ``tekken.json`` without mistral_common.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import VoxtralForConditionalGeneration

from echo_agent.audio.recording import AudioRef
from echo_agent.errors import ContextError
from echo_agent.families.base import Limits
from echo_agent.families.chatml import SHORTEST, ChatMLFamily, prompt_text

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 30.0
"""Seconds that the encoder hears at once, padding included."""

WINDOW_TOKENS = 375
"""Audio tokens of a window."""

BATCH = 8
"""Most windows that are encoded at once, for the sake of memory."""

BEGIN, INST, INST_END, END = "<s>", "[INST]", "[/INST]", "</s>"


class VoxtralFamily(ChatMLFamily):
    """Voxtral with its loaded weights."""

    kind = "voxtral"
    model_class = VoxtralForConditionalGeneration
    limits = Limits(shortest=SHORTEST, longest_crop=WINDOW, longest_recording=1800.0)
    frozen_modules = ("model.audio_tower",)
    projector_module = "model.multi_modal_projector"
    audio_token = "[AUDIO]"
    audio_marks = ("[BEGIN_AUDIO]", "\n")
    turn_marks = (BEGIN, INST, INST_END, END)
    end_marks = (END,)

    def turn_open(self, role: str) -> str:
        """Text that opens a turn of the user or the assistant."""
        if role == "system":
            raise ContextError(f"{self.kind} has no system turn: use the inline dialect")
        return INST_END if role == "assistant" else INST

    def turn_close(self, role: str = "assistant") -> str:
        """Text that closes a turn; a user's ends where the assistant's begins."""
        return END if role == "assistant" else ""

    def _prompt(self) -> str:
        """The head of the context: the first user turn begins with what the model is to be."""
        text = f"{prompt_text('listener')}\n{prompt_text('question')}"
        return BEGIN + self.turn_open("user") + text + self.turn_close("user") + self.turn_open("assistant")

    def _model_tokens(self, samples: int) -> int:
        """375 for each window that the crop reaches into."""
        return WINDOW_TOKENS * ceil(self._heard_samples(samples) / round(WINDOW * self.sample_rate))

    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Mel features ``[windows, bins, 3000]``: of each crop as a whole, then cut into windows."""
        return {"input_features": torch.cat([self._window_features(samples) for samples in crops])}

    def _window_features(self, samples: np.ndarray) -> Tensor:
        """Mel features of one crop ``[windows, bins, 3000]``."""
        samples = samples[: self._longest_samples]
        size = round(WINDOW * self.sample_rate)
        windows = ceil(self._heard_samples(len(samples)) / size)
        (mel,) = self._log_mel([samples], windows * size)
        return mel.reshape(mel.shape[0], windows, -1).transpose(0, 1)

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, Tensor]]:
        """Outputs ``[tokens, 4 x width]`` of the audio tower, four frames side by side, before the projector."""
        for ref, _ in crops:
            self.check_length(ref)
        cut = [self._window_features(samples) for _, samples in crops]
        tower: Any = self.model.get_submodule("model.audio_tower")
        states: list[Tensor] = []
        for mel in torch.cat(cut).split(BATCH):
            states += tower(mel.to(self.device, self.model.dtype)).last_hidden_state.unbind()
        rest = iter(states)
        listens = [torch.cat([next(rest) for _ in windows]) for windows in cut]
        return [{"tower": listen.reshape(-1, tower.config.intermediate_size)} for listen in listens]

    def _projector(self, features: Tensor) -> Tensor:
        """The two linear layers between tower and decoder."""
        return self.model.get_submodule(self.projector_module)(features)
