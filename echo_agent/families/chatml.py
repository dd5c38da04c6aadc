"""What the public families have in common: turns, an audio tower, and one decoder into whose inputs audio is merged.

What is written here is what most of them do: ChatML turns, Whisper's mel features, audio marked as
``<|audio_bos|> <|AUDIO|>*n <|audio_eos|>``, n mel frames (10 ms each) that become about n/4 audio tokens (25 per
second). A family says in its own file where it differs: how a crop is encoded, where the projection lies, its
positions, its turns and its marks.

The text model is always run on embeddings, with the mask and the positions of each token spelled out. So nothing that
the model objects remember between calls (``rope_deltas``) and nothing that they do on the sly (the legacy merge of
Qwen2-Audio, surplus audio features that Omni drops without a word) can touch a run.
"""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from math import ceil
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from transformers import AutoTokenizer, DynamicCache, WhisperFeatureExtractor

from echo_agent.audio.recording import AudioRef
from echo_agent.errors import ModelError, PlaceholderError
from echo_agent.families.base import Family, Limits, Piece
from echo_agent.families.checkpoint import check_vocabulary, check_weights, reading, without_weights
from echo_agent.families.own_adapters import merge_own_adapters
from echo_agent.families.placement import Placement, check_spread

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

AUDIO, AUDIO_BEGIN, AUDIO_END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
TURN_BEGIN, TURN_END, TEXT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"

MEDIA = re.compile(
    r"<\|(audio|image|video|vision|sound|tts|box|quad|object_ref)(_\w+)?\|>|<(sound|image|video|vila/\w+)>"
    r"|<\|(audio|image)>|<(audio|image)\|>"
    r"|\[(BEGIN_)?(AUDIO|IMG|IMG_BREAK|IMG_END)\]",
    re.IGNORECASE,
)
"""Control tokens that stand for, begin or end something that is not text."""

SHORTEST = 0.2
"""Shortest crop in seconds: 20 mel frames, 5 tokens. Shorter recordings are heard with silence after them."""


def audio_token_count(frames: int) -> int:
    """Audio tokens that ``frames`` mel frames give: a convolution of stride 2, then pooling of stride 2."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


class ChatMLFamily(Family):
    """A model with turns (ChatML unless it says otherwise) whose audio goes through a tower into one decoder."""

    limits: Limits
    model_class: ClassVar[Any]
    """The transformers class; ``Any`` because its loading methods are not typed."""
    extractor_class: ClassVar[Any] = WhisperFeatureExtractor
    """The class of its feature extractor."""
    audio_token: ClassVar[str] = AUDIO
    """The placeholder."""
    audio_marks: ClassVar[tuple[str, str]] = (AUDIO_BEGIN, AUDIO_END)
    """What stands before and after a listen. Where a model has no end mark it is a line break, so that two listens
    never run into one another."""
    turn_marks: ClassVar[tuple[str, ...]] = (TURN_BEGIN, TURN_END)
    """Control tokens that turns are written with."""
    adapters: ClassVar[str] = ""
    """Folder of a checkpoint that holds adapters for sound."""
    end_marks: ClassVar[tuple[str, ...]] = (TURN_END, TEXT_END)
    """Control tokens that end the assistant's turn."""

    masks_windows: ClassVar[bool] = False
    """Whether the family masks by positions what layers of sliding attention do not look back to."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        feature_extractor: Any,
    ) -> None:
        """Take loaded parts; the model is put into evaluation mode."""
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.sample_rate = feature_extractor.sampling_rate
        config: Any = model.config
        text = config.get_text_config()
        if "sliding_attention" in (getattr(text, "layer_types", None) or ()) and not self.masks_windows:
            raise ModelError(
                f"{name}: models with sliding-window attention cannot keep a cache that is appended to"
            )
        self.context_length = text.max_position_embeddings
        vocabulary = tokenizer.get_vocab()
        marks = [mark for mark in self.audio_marks if mark.strip()]
        self.audio_id = self._audio_token_id(config)
        if (found := vocabulary.get(self.audio_token, self.audio_id)) != self.audio_id:
            raise ModelError(
                f"{name}: {self.audio_token} is token {found} for the tokenizer and {self.audio_id} for the model: "
                "they do not belong together"
            )
        embedding: Any = model.get_input_embeddings()
        needed = (self.audio_token, *marks, *self.turn_marks)
        check_vocabulary(name, needed, vocabulary, embedding.weight.shape[0])
        self._begin, self._end = (self.tokenize(mark) for mark in self.audio_marks)
        self.eos_ids = tuple(
            vocabulary[token] for token in dict.fromkeys(self.end_marks) if token in vocabulary
        )
        banned = {*self._banned(vocabulary, config), self.audio_id, *(vocabulary[mark] for mark in marks)}
        self.banned_ids = tuple(sorted(banned))
        added: Any = tokenizer  # the method is missing from the base class's types
        # longest first, so that a token that begins another is not found in its place
        control = sorted(
            filter(lambda token: len(token.strip()) > 1, added.get_added_vocab()), key=len, reverse=True
        )
        self._control = re.compile("|".join(map(re.escape, control)))

    @classmethod
    def load(
        cls,
        source: str,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        quantise: str = "",
        device_map: str = "",
    ) -> Self:
        """Load from a hub id or a folder; processors for pictures are left alone, and weights for the device ``meta``.

        ``quantise`` and ``device_map`` are those of :class:`~echo_agent.families.placement.Placement`.

        Raises:
            ModelError: Weights are missing, too many or of another size (the library would go on without them).
        """
        with reading(name, "tokenizer (tokenizer.json, tokenizer_config.json)"):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        with reading(name, "feature extractor (preprocessor_config.json)"):
            extractor = cls.extractor_class.from_pretrained(source)
        placement = Placement(device, dtype, quantise, device_map)
        if device.type == "meta":
            model = without_weights(cls.model_class, source)
        else:
            model, report = cls.model_class.from_pretrained(
                source,
                **placement.arguments(cls.decoder_module),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            check_weights(name, report)
            check_spread(name, model)
            merge_own_adapters(model, source, cls.adapters)
        bins = cls._mel_bins(model.config)
        if extractor.feature_size != bins or extractor.sampling_rate <= 0:
            raise ModelError(
                f"{name}: its preprocessor_config.json has {extractor.feature_size} mel bins at "
                f"{extractor.sampling_rate} Hz, but the model hears {bins} mel bins: they do not belong together"
            )
        return cls(name, model.to(device) if placement.moves else model, tokenizer, extractor)

    @classmethod
    def _mel_bins(cls, config: Any) -> int:
        """Mel bins that the tower hears, by its configuration."""
        return config.audio_config.num_mel_bins

    def _audio_token_id(self, config: Any) -> int:
        """Id of the placeholder, by the model's configuration."""
        return config.audio_token_id

    def _banned(self, vocabulary: dict[str, int], config: Any) -> tuple[int, ...]:
        """Every medium's placeholders and markers, and the rows of the embedding that no token stands for."""
        media = {number for token, number in vocabulary.items() if MEDIA.fullmatch(token)}
        named = (
            "audio_token_id",
            "image_token_id",
            "video_token_id",
            "audio_start_token_id",
            "audio_end_token_id",
        )
        named += ("vision_start_token_id", "vision_end_token_id")
        media.update(number for number in (getattr(config, key, None) for key in named) if number is not None)
        rows = config.get_text_config().vocab_size
        unused = set(range(rows)).difference(vocabulary.values())
        return tuple(sorted(number for number in media | unused if number < rows))

    def save(self, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write model, tokenizer and feature extractor, so that ``load_family(folder)`` gives this family again."""
        super().save(folder, weights)
        self.feature_extractor.save_pretrained(folder)

    # --- tokens -------------------------------------------------------------------------------------------------

    def _heard(self, samples: np.ndarray) -> np.ndarray:
        """A crop as it is heard: cut to the longest listen, with silence after it up to the shortest."""
        samples = samples[: self._longest_samples]
        return np.pad(samples, (0, self._heard_samples(len(samples)) - len(samples)))

    @property
    def _longest_samples(self) -> int:
        """Samples of the longest listen; the tail beyond it (at most ``base.TAIL`` seconds) is not heard."""
        return round(self.limits.longest_recording * self.sample_rate)

    def _heard_samples(self, samples: int) -> int:
        """How many of a crop's samples are heard."""
        return min(max(samples, round(SHORTEST * self.sample_rate)), self._longest_samples)

    def _frames(self, samples: int) -> int:
        """Mel frames of a crop of ``samples`` samples."""
        return ceil(self._heard_samples(samples) / self.feature_extractor.hop_length)

    def _token_count(self, frames: int) -> int:
        """Audio tokens that ``frames`` mel frames give."""
        return audio_token_count(frames)

    def _model_tokens(self, samples: int) -> int:
        """Audio tokens that the model makes of a crop of so many samples."""
        return self._token_count(self._frames(samples))

    def audio_tokens(self, ref: AudioRef) -> int:
        """Number of placeholders (without markers) that a listen to ``ref`` costs."""
        return self._model_tokens(ref.samples(self.sample_rate))

    def audio_ids(self, ref: AudioRef) -> list[int]:
        """Begin marker, placeholders, end marker; refuses what the model cannot hear."""
        self.check_length(ref)
        return [*self._begin, *[self.audio_id] * self.audio_tokens(ref), *self._end]

    def turn_open(self, role: str) -> str:
        """Text that opens a turn."""
        return f"{TURN_BEGIN}{role}\n"

    def turn_close(self, role: str = "assistant") -> str:
        """Text that closes a turn."""
        return f"{TURN_END}\n"

    def _prompt(self) -> str:
        """The head of the context as a template; ``$recordings`` is where the audio stands."""
        system = self.turn_open("system") + prompt_text("listener") + self.turn_close("system")
        user = self.turn_open("user") + prompt_text("question") + self.turn_close("user")
        return system + user + self.turn_open("assistant")

    def question_pieces(
        self, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """System turn; audio, question, choices and the protocol in the user's turn; the assistant's header."""
        before, after = self._prompt().split("$recordings")
        heard: list[Piece] = []
        for number, ref in enumerate(recordings, start=1):
            label = f"Audio {number}: " if self._labels or len(recordings) > 1 else ""
            heard += [Piece(text=label), Piece(audio=ref), Piece(text=f" ({ref.seconds:.1f} seconds)\n")]
        options = "".join(f"- {self.escape(choice)}\n" for choice in choices or ())
        rest = Template(after).substitute(
            question=self.escape(question),
            choices=f"Choices:\n{options}" if options else "",
            rule=", copied word for word from the choices" if options else ", as short as possible",
        )
        return [Piece(text=before), *heard, Piece(text=rest)]

    _labels: bool = False
    """Whether a single recording is numbered too."""

    def escape(self, text: str) -> str:
        """The text with a space inside everything that the tokenizer would take for a control token."""
        text = unicodedata.normalize("NFC", text)  # as the tokenizer does before it looks for some of them
        while self._control.search(text):
            text = self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        return text

    # --- audio --------------------------------------------------------------------------------------------------

    def _mel(self, crops: Sequence[np.ndarray], window: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel features of crops and how many of the frames are theirs.

        Args:
            crops: float32 mono samples at ``sample_rate``.
            window: Samples to pad to, or None for the longest crop. A window of silence after each crop is kept, so
                that the last frames are what they are under the processor's own padding.

        Returns:
            Features ``[crops, mel bins, frames]`` and the frames of each crop ``[crops]``, on the CPU.
        """
        extractor = self.feature_extractor
        heard = [crop[: self._longest_samples] for crop in crops]
        longest = max(self._heard_samples(len(crop)) for crop in heard) + extractor.n_fft
        size = ceil(longest / extractor.hop_length) * extractor.hop_length if window is None else window
        return self._log_mel(heard, size), torch.tensor([self._frames(len(crop)) for crop in crops])

    def _log_mel(self, crops: Sequence[np.ndarray], window: int) -> torch.Tensor:
        """Whisper's features ``[crops, mel bins, frames]`` of crops padded to ``window`` samples, on the CPU."""
        # Also in training, mel features are those of full precision.
        with torch.autocast("cpu", enabled=False):
            return self.feature_extractor(
                list(crops),
                sampling_rate=self.sample_rate,
                padding="max_length",
                max_length=window,
                return_tensors="pt",
            )["input_features"]

    @abstractmethod
    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """What the model's own ``forward`` wants of crops, by the names that it has for it, on the CPU."""

    @abstractmethod
    def _projector(self, features: torch.Tensor) -> torch.Tensor:
        """Frozen features ``[n, width]`` to embeddings ``[n, hidden]``."""

    def audio_embeds(
        self, refs: Sequence[AudioRef], features: Sequence[dict[str, torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Project the tower's outputs of each listen; differentiable in the projector's weights."""
        if not refs:
            return []
        towers = [feature["tower"] for feature in features]
        for ref, tower in zip(refs, towers, strict=True):
            self._check_features(ref, len(tower))
        projected = self._projector(torch.cat([tower.to(self.device) for tower in towers])).to(
            self.model.dtype
        )
        return list(projected.split([len(tower) for tower in towers]))

    def _check_features(self, ref: AudioRef, found: int) -> None:
        """Raise PlaceholderError where a listen has ``found`` features, but another number of placeholders."""
        if found != self.audio_tokens(ref):
            raise PlaceholderError(
                f"{self.audio_tokens(ref)} placeholders stand for {ref.seconds:.2f} s of audio, "
                f"but its encoding has {found} features"
            )

    # --- text model ---------------------------------------------------------------------------------------------

    def token_embeds(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings ``[..., hidden]`` of ids ``[...]``."""
        return self.model.get_input_embeddings()(ids)

    def forward_embeds(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, Cache]:
        """One step of the text model; see :meth:`Family.forward_embeds`."""
        return self._step(self.model.get_submodule("model.language_model"), embeds, mask, positions, cache)

    def _step(
        self,
        text: Any,
        embeds: torch.Tensor,
        mask: torch.Tensor | dict[str, torch.Tensor],
        positions: torch.Tensor,
        cache: Cache | None,
    ) -> tuple[torch.Tensor, Cache]:
        """One step of ``text``, the module that the decoder's layers are in; masks may be given by kind of layer."""
        out = text(
            **self.embeds_inputs(embeds),
            attention_mask=mask,
            position_ids=self.position_ids(positions),
            cache=DynamicCache() if cache is None else cache,
            use_cache=True,
        )
        return out.last_hidden_state, out.cache

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores ``[..., vocabulary]`` in float32."""
        head: Any = self.model.get_output_embeddings()
        return head(hidden).float()

    def forward_inputs(
        self, ids: Sequence[int], crops: Sequence[tuple[AudioRef, np.ndarray]]
    ) -> dict[str, Any]:
        """Keyword arguments of the model's own ``forward`` for the whole trajectory, positions included."""
        self.check_placeholders(ids, [ref for ref, _ in crops])
        if len(crops) > 1 and (heard := self._heard_alone([samples for _, samples in crops])):
            return self._merged_inputs(ids, heard)
        inputs = self._text_inputs(ids)
        if crops:
            features = self._model_features([samples for _, samples in crops])
            self._check_counts(ids, [self._model_tokens(len(samples)) for _, samples in crops])
            for key, value in features.items():
                inputs[key] = value.to(self.device, self.model.dtype if value.is_floating_point() else None)
        return inputs

    def _heard_alone(self, crops: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """What the model's own encoder makes of each crop by itself, ``[tokens, hidden]``; none where it may pad them.

        For families whose encoders hear a clip otherwise where it is padded to another.
        """
        return []

    def _text_inputs(self, ids: Sequence[int]) -> dict[str, Any]:
        """Ids, mask and positions of a trajectory for the model's own ``forward``."""
        input_ids = torch.tensor([list(ids)], device=self.device)
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "position_ids": self.position_ids(torch.arange(len(ids), device=self.device)[None]),
        }

    def _check_counts(self, ids: Sequence[int], got: list[int]) -> None:
        """Raise PlaceholderError where samples make other numbers of features than ``ids`` have placeholders."""
        wanted = [count for _, count in self.placeholder_ranges(ids)]
        if got != wanted:
            raise PlaceholderError(
                f"runs of {wanted} placeholders, but the samples given make {got} features"
            )

    def _merged_inputs(self, ids: Sequence[int], heard: Sequence[torch.Tensor]) -> dict[str, Any]:
        """Inputs of the model's own ``forward`` with audio in its place, for crops that must not be padded together.

        Args:
            ids: The trajectory.
            heard: What the model's own encoder makes of each crop alone, ``[tokens, hidden]``.
        """
        self._check_counts(ids, [len(embeds) for embeds in heard])
        inputs = self._text_inputs(ids)
        input_ids = inputs.pop("input_ids")
        embeds = self.token_embeds(input_ids)
        if heard:
            audio = torch.cat(list(heard)).to(embeds)
            embeds = self.with_audio(embeds, input_ids == self.audio_id, audio)
        return inputs | self.embeds_inputs(embeds)


@cache
def prompt_text(name: str) -> str:
    """A text of this package's prompts."""
    return (files("echo_agent.families") / "prompts" / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")
