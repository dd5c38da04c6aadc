"""echo-nano's processor as transformers knows processors: text and samples in, the arguments of ``forward`` out.

The engine needs none of it (:mod:`echo_agent.families.nano`); it is for those who use the model with transformers
alone. What it needs to know stands in the model's configuration, so a folder that holds a model holds its processor.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

from echo_agent.errors import RecordingError
from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.encoder import SAMPLE_RATE
from echo_agent.nano.processing import (
    ASSISTANT,
    AUDIO,
    END,
    PAD,
    USER,
    fill_places,
    listen_inputs,
    listen_times,
    prompt_text,
)


class NanoProcessor(ProcessorMixin):
    """Tokenizer and sizes of an echo-nano model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: NanoConfig) -> None:
        """Put together the tokenizer and the configuration of a model."""
        super().__init__(tokenizer)
        self.tokenizer = tokenizer
        self.config = config

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> NanoProcessor:
        """Read the processor of a model: a folder, or a hub id."""
        name = os.fspath(pretrained_model_name_or_path)
        config: Any = NanoConfig.from_pretrained(name, **kwargs)
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(name, pad_token=PAD, eos_token=END, **kwargs)
        return cls(tokenizer, config)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Write tokenizer and configuration, from which it is read again."""
        self.config.save_pretrained(save_directory)
        return self.tokenizer.save_pretrained(os.fspath(save_directory))

    def prompt(self, question: str, seconds: float, choices: Sequence[str] | None = None) -> str:
        """The prompt that the model was taught, for a question about one recording of so many seconds."""
        return f"{USER}{AUDIO}{prompt_text(question, choices, seconds)}{END}{ASSISTANT}"

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, text: str, audio: np.ndarray | Sequence[np.ndarray] = (), sampling_rate: int = SAMPLE_RATE
    ) -> BatchFeature:
        """Arguments of ``forward`` and ``generate`` for one text, as a batch of one.

        Args:
            text: With one ``<|audio|>`` for each piece of audio; see :meth:`prompt`.
            audio: Samples (float32 mono ``[n]``), one array or several, each heard from its own beginning.
            sampling_rate: Their rate in Hz, which must be 16000.

        Raises:
            PlaceholderError: The text has more or fewer ``<|audio|>`` than there are pieces of audio.
            RecordingError: The audio has another rate.
        """
        if sampling_rate != SAMPLE_RATE:
            raise RecordingError(
                f"echo-nano hears {SAMPLE_RATE} samples per second, not {sampling_rate}: resample"
            )
        pieces = [audio] if isinstance(audio, np.ndarray) else list(audio)
        seconds = [len(samples) / SAMPLE_RATE for samples in pieces]
        sizes = [self.config.listen_size(length) for length in seconds]
        ids = torch.tensor([self.tokenizer.encode(fill_places(text, sizes), add_special_tokens=False)])
        data: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if pieces:
            inputs = listen_inputs([torch.as_tensor(samples).float() for samples in pieces], self.config)
            times = [listen_times(0.0, length, size) for length, size in zip(seconds, sizes, strict=True)]
            data |= {
                "mels": inputs.mels,
                "mel_lengths": inputs.mel_lengths,
                "listen_windows": inputs.listen_windows,
                "listen_tokens": torch.tensor(sizes),
                "audio_times": torch.tensor([second for listen in times for second in listen]),
            }
        return BatchFeature(data)
