"""Configuration of echo-small: its decoder, its ears, the sounds that it has names for, and the budget of a listen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import LlamaConfig, PreTrainedConfig, WhisperConfig
from transformers.configuration_utils import SubConfigSpec


class SmallConfig(PreTrainedConfig):
    """Sizes and budgets of an echo-small model.

    A listen has at most ``sound_tokens`` tokens for the sounds in it and as many ``word_tokens`` for what is said,
    whatever its span. A long span cannot hold the words: they are heard in spans of at most ``words_seconds``.
    """

    model_type = "echo_small"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(LlamaConfig),
        "whisper_config": SubConfigSpec(WhisperConfig),
    }

    def __init__(
        self,
        text_config: dict[str, Any] | LlamaConfig | None = None,
        whisper_config: dict[str, Any] | WhisperConfig | None = None,
        sounds: Sequence[str] = ("voice",),
        taught: Sequence[bool] = (True,),
        struck: Sequence[bool] = (False,),
        yamnet_classes: Sequence[Sequence[int]] = ((0,),),
        thresholds: Sequence[float] | None = None,
        head_dim: int = 256,
        head_blocks: int = 3,
        middle_layer: int = 2,
        sound_tokens: int = 48,
        word_tokens: int = 48,
        words_seconds: float = 30.0,
        audio_token_id: int = 0,
        blank_token_id: int = 0,
        **kwargs: Any,
    ) -> None:
        """Build from plain values.

        Args:
            text_config: The decoder; a dict, as it is in ``config.json``.
            whisper_config: Whisper's encoder and decoder, likewise.
            sounds: Plain names of the sounds that the ears know.
            taught: Which of them the head was taught; the others are YAMNet's.
            struck: Which of them come in strokes, which are counted.
            yamnet_classes: YAMNet's classes that mean each of them.
            thresholds: The logit, of the head or of these classes, from which each counts as heard; 0 where it is not
                given.
            head_dim: Width of the head.
            head_blocks: Its convolutions.
            middle_layer: The layer of Whisper's encoder that sounds are heard in.
            sound_tokens: Most tokens that a listen has for sounds.
            word_tokens: Most that it has for words.
            words_seconds: Longest span whose words are heard, at most thirty seconds.
            audio_token_id: The placeholder.
            blank_token_id: What stands in places of a listen that nothing is written in.
            **kwargs: Of every configuration.

        Raises:
            ValueError: A value is out of its range, or the lists are of unequal length.
        """
        thresholds = [0.0] * len(sounds) if thresholds is None else thresholds
        if not len(sounds) == len(taught) == len(struck) == len(yamnet_classes) == len(thresholds):
            raise ValueError("sounds, taught, struck, yamnet_classes and thresholds must be of one length")
        for name, value in (
            ("sound_tokens", sound_tokens),
            ("word_tokens", word_tokens),
            ("head_dim", head_dim),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: a whole number of at least 1 is expected")
        if not 0 < words_seconds <= 30:
            raise ValueError(f"words_seconds is {words_seconds!r}: a number up to 30 is expected")
        self.sounds, self.taught, self.struck = list(sounds), list(taught), list(struck)
        self.yamnet_classes = [list(classes) for classes in yamnet_classes]
        self.thresholds = [float(value) for value in thresholds]
        self.head_dim, self.head_blocks, self.middle_layer = head_dim, head_blocks, middle_layer
        self.sound_tokens, self.word_tokens, self.words_seconds = sound_tokens, word_tokens, words_seconds
        self.audio_token_id, self.blank_token_id = audio_token_id, blank_token_id
        self.text_config = _built(LlamaConfig, text_config)
        self.whisper_config = _built(WhisperConfig, whisper_config)
        kwargs.setdefault("tie_word_embeddings", True)
        super().__init__(**kwargs)

    def listen_size(self, seconds: float) -> int:
        """Tokens of a listen to ``seconds`` of sound: those for sounds, and those for words where these are heard."""
        return self.sound_tokens + (self.word_tokens if self.hears_words(seconds) else 0)

    def hears_words(self, seconds: float) -> bool:
        """Whether the words of a span of so many seconds are heard."""
        return seconds <= self.words_seconds + 1e-6


def _built(kind: Any, given: Any) -> Any:
    """A configuration of a kind, from itself, from plain values, or from none."""
    return given if isinstance(given, kind) else kind(**(given or {}))
