"""From a listen to what is written in its places, and from a question to the prompt: echo-small's own conventions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from echo_agent.small.notes import Heard, note

USER, TURN_END = "<|im_start|>user\n", "<|im_end|>"
PAD = "<|endoftext|>"
ASSISTANT = f"{TURN_END}\n<|im_start|>assistant\n"
AUDIO, AUDIO_START, AUDIO_END = "<|audio|>", "<|audio_start|>", "<|audio_end|>"
THINK, THINK_END, SEG, SEG_END, ANSWER, ANSWER_END = (
    "<think>", "</think>", "<seg>", "</seg>", "<answer>", "</answer>",
)  # fmt: skip
CONTROL = (AUDIO, AUDIO_START, AUDIO_END, "<|im_start|>", TURN_END, PAD)
"""Tokens that only the context's frame may hold."""
MARKUP = (THINK, THINK_END, SEG, SEG_END, ANSWER, ANSWER_END)
"""Tokens that the policy writes."""
_RESERVED = re.compile("|".join(map(re.escape, (*CONTROL, *MARKUP))))
_ASIDE = re.compile(r"\[[^\]]*(\]|$)|\([^)]*(\)|$)")
WHISPER_WORDS = "whisper.json"
"""Whisper's vocabulary, in the model's folder."""


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a model folder."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token=PAD, eos_token=TURN_END
    )


def escape(text: str) -> str:
    """The text with a space inside everything that the tokenizer would take for a control or markup token."""
    while _RESERVED.search(text):
        text = _RESERVED.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
    return text


def prompt_text(question: str, choices: Sequence[str] | None, duration: float) -> str:
    """What follows the first listens in the user's turn; the turn is closed, and the assistant's opened."""
    options = "".join(f"\n- {choice}" for choice in choices or ())
    return f"\nlength {round(duration)}\n{question}{options}{ASSISTANT}"


def sound_ids(
    events: Sequence[Heard], size: int, tokenizer: PreTrainedTokenizerBase, blank: int
) -> list[int]:
    """What a listen's ``size`` places for sounds hold, blanks behind it."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    written = ids(note(events, size, lambda text: len(ids(text))))
    return written[:size] + [blank] * (size - len(written))


def word_ids(
    heard: Sequence[int], size: int, words: Tokenizer, tokenizer: PreTrainedTokenizerBase, blank: int
) -> list[int]:
    """What a listen's places for words hold: ``"..."`` in quotes, as much of it as fits, blanks behind it.

    What Whisper puts in brackets is no speech (``[Music]``), and is left out.
    """
    text = " ".join(_ASIDE.sub(" ", words.decode(list(heard))).split())
    written = tokenizer.encode(f'\n"{text}"', add_special_tokens=False) if text else []
    return written[:size] + [blank] * (size - len(written))
