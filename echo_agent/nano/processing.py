"""From text and samples to what echo-nano's ``forward`` takes.

The vocabulary is echo-nano's own: control tokens, one *time token* for every whole second up to ten minutes (spans are
copied, not computed), and a small byte-level BPE, so that any text can be written. Text is lower-cased. A time token is
a number with the space before it, as the BPE's words are: so nothing stands between a sound and its second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from echo_agent.errors import PlaceholderError
from echo_agent.nano.configuration import MAX_SECONDS, NanoConfig
from echo_agent.nano.encoder import window_mels

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
AUDIO, AUDIO_START, AUDIO_END = "<|audio|>", "<|audio_start|>", "<|audio_end|>"
THINK, THINK_END, SEG, SEG_END, ANSWER, ANSWER_END = (
    "<think>",
    "</think>",
    "<seg>",
    "</seg>",
    "<answer>",
    "</answer>",
)
CONTROL = (PAD, USER, ASSISTANT, END, AUDIO, AUDIO_START, AUDIO_END)
"""Tokens that only the context's frame may hold."""
MARKUP = (THINK, THINK_END, SEG, SEG_END, ANSWER, ANSWER_END)
"""Tokens that the policy writes."""
SHOWN_SECONDS = 4


def train_tokenizer(texts: Iterable[str], size: int = 1024) -> PreTrainedTokenizerFast:
    """Learn the vocabulary from texts; ``size`` counts the byte-level BPE without control and time tokens."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    core.add_tokens([AddedToken(token, normalized=False, special=True) for token in (*CONTROL, *MARKUP)])
    numbers = (f" {second}" for second in range(MAX_SECONDS + 1))
    core.add_tokens([AddedToken(number, normalized=False) for number in numbers])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a model folder."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token=PAD, eos_token=END
    )


def time_token_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of the whole seconds; they do not stand in a row, since the BPE has digits of its own."""
    known = tokenizer.get_vocab()
    return [known[f" {second}"] for second in range(MAX_SECONDS + 1)]


def escape(text: str) -> str:
    """Text in which no control or markup token is recognised."""
    for token in (*CONTROL, *MARKUP):
        text = text.replace(token, token.replace("<", "< "))
    return text


def prompt_text(question: str, choices: Sequence[str] | None, duration: float) -> str:
    """What follows the first listen in the user's turn.

    It was taught with four choices: where every whole second is one, four of them stand for all. ``duration`` is as its
    clock has it (:func:`pace`).
    """
    if choices is not None and list(choices) == (seconds := whole_seconds(duration)):
        choices = seconds[:: max(1, -(-len(seconds) // SHOWN_SECONDS))]
    options = f" choices: {' | '.join(escape(choice) for choice in choices)}" if choices else ""
    return f" {max(1, round(duration))} s. {escape(question)}{options}"


def fill_places(text: str, sizes: Sequence[int]) -> str:
    """The text with ``size`` placeholders between marks in place of each ``<|audio|>``.

    Raises:
        PlaceholderError: The text has more or fewer of them than there are sizes.
    """
    parts = text.split(AUDIO)
    if len(parts) - 1 != len(sizes):
        raise PlaceholderError(f"{len(parts) - 1} {AUDIO} in the text for {len(sizes)} pieces of audio")
    filled = (
        f"{AUDIO_START}{AUDIO * size}{AUDIO_END}{part}" for size, part in zip(sizes, parts[1:], strict=True)
    )
    return parts[0] + "".join(filled)


def whole_seconds(duration: float) -> list[str]:
    """Every whole second of a recording of ``duration`` seconds, as an answer: ``0 s``, ``1 s``, ..."""
    return [f"{second} s" for second in range(min(MAX_SECONDS, max(1, int(duration))) + 1)]


def pace(duration: float) -> float:
    """Seconds of a recording that one second of the clock stands for: the clock ends at ``MAX_SECONDS``."""
    return max(1.0, duration / MAX_SECONDS)


def listen_times(start: float, end: float, tokens: int) -> list[int]:
    """The whole second that each audio token of a listen to ``start..end`` stands for (its centre, rounded down)."""
    step = (end - start) / tokens
    return [min(MAX_SECONDS, int(start + (i + 0.5) * step)) for i in range(tokens)]


@dataclass(frozen=True)
class ListenInputs:
    """Tensors of one or more listens, as ``NanoModel.forward`` names them."""

    mels: Tensor
    mel_lengths: Tensor
    listen_windows: Tensor


def listen_inputs(waveforms: Sequence[Tensor], config: NanoConfig) -> ListenInputs:
    """Log-mel windows of waveforms (float32 mono ``[n]`` at 16 kHz), zero behind each window's end."""
    listens = [window_mels(samples, config.window_seconds, config.mel_bins) for samples in waveforms]
    windows = [mel for listen in listens for mel in listen]
    lengths = torch.tensor([mel.shape[-1] for mel in windows])
    mels = torch.zeros(len(windows), config.mel_bins, int(lengths.max()))
    for row, mel in enumerate(windows):
        mels[row, :, : mel.shape[-1]] = mel
    return ListenInputs(mels, lengths, torch.tensor([len(listen) for listen in listens]))
