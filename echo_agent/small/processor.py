"""echo-small's processor as transformers knows processors: text and samples in, the arguments of ``forward`` out.

What stands in the places of audio is what the ears hear, written in the decoder's words. The ears are in the model and
the words in the tokenizer, so the processor is handed the model with the samples. The engine needs none of it
(:mod:`echo_agent.families.small`); it is for those who use the model with transformers alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import BatchFeature, PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin
from transformers.utils.hub import cached_file

from echo_agent.errors import ModelError, RecordingError
from echo_agent.nano.encoder import SAMPLE_RATE
from echo_agent.nano.processing import fill_places
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.listening import listen
from echo_agent.small.modeling import SmallForConditionalGeneration, SmallModel
from echo_agent.small.processing import AUDIO, PAD, TURN_END, USER, WHISPER_WORDS, escape, prompt_text


class SmallProcessor(ProcessorMixin):
    """Tokenizer, Whisper's vocabulary and sizes of an echo-small model."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, whisper_words: Tokenizer, config: SmallConfig
    ) -> None:
        """Put together the tokenizer, Whisper's vocabulary and the configuration of a model."""
        super().__init__(tokenizer)
        self.tokenizer = tokenizer
        self.whisper_words = whisper_words
        self.config = config

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> SmallProcessor:
        """Read the processor of a model: a folder, or a hub id."""
        name = os.fspath(pretrained_model_name_or_path)
        config: Any = SmallConfig.from_pretrained(name, **kwargs)
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(
            name, pad_token=PAD, eos_token=TURN_END, **kwargs
        )
        words = Tokenizer.from_file(str(cached_file(name, WHISPER_WORDS, **kwargs)))
        return cls(tokenizer, words, config)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Write tokenizer, Whisper's vocabulary and configuration, from which it is read again."""
        self.config.save_pretrained(save_directory)
        self.whisper_words.save(str(Path(save_directory) / WHISPER_WORDS))
        return self.tokenizer.save_pretrained(os.fspath(save_directory))

    def prompt(self, question: str, seconds: float, choices: Sequence[str] | None = None) -> str:
        """The prompt that the model was taught, for a question about one recording of so many seconds."""
        shown = [escape(choice) for choice in choices or ()]
        return f"{USER}{AUDIO}{prompt_text(escape(question), shown, seconds)}"

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        text: str,
        audio: np.ndarray | Sequence[np.ndarray] = (),
        model: SmallForConditionalGeneration | SmallModel | None = None,
        sampling_rate: int = SAMPLE_RATE,
    ) -> BatchFeature:
        """Arguments of ``forward`` and ``generate`` for one text, as a batch of one on the CPU.

        Args:
            text: With one ``<|audio|>`` for each piece of audio; see :meth:`prompt`.
            audio: Samples (float32 mono ``[n]``), one array or several, each heard from its own beginning.
            model: Whose ears hear the audio, without gradient; in evaluation mode, as ``from_pretrained`` gives it.
            sampling_rate: Their rate in Hz, which must be 16000.

        Raises:
            PlaceholderError: The text has more or fewer ``<|audio|>`` than there are pieces of audio.
            RecordingError: The audio has another rate.
            ModelError: There is audio, and no model to hear it.
        """
        if sampling_rate != SAMPLE_RATE:
            raise RecordingError(
                f"echo-small hears {SAMPLE_RATE} samples per second, not {sampling_rate}: resample"
            )
        pieces = [audio] if isinstance(audio, np.ndarray) else list(audio)
        sizes = [self.config.listen_size(len(samples) / SAMPLE_RATE) for samples in pieces]
        encoded = self.tokenizer.encode(fill_places(text, sizes), add_special_tokens=False)
        ids = torch.tensor([encoded])
        data: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if pieces:
            if model is None:
                raise ModelError("echo-small's ears are in its model: processor(text, audio, model)")
            ears: Any = model.base_model
            with torch.no_grad():
                heard = [listen(ears, samples, self.tokenizer, self.whisper_words) for samples in pieces]
            data["audio_ids"] = torch.cat([one["ids"] for one in heard])
            data["audio_features"] = torch.cat([one["features"] for one in heard]).cpu()
        return BatchFeature(data)
