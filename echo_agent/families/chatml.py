"""What Qwen2-Audio and Qwen2.5-Omni have in common: ChatML turns, Whisper features, one decoder under a merge.

Both mark audio as ``<|audio_bos|> <|AUDIO|>*n <|audio_eos|>`` and turn n mel frames (10 ms each) into about n/4 audio
tokens: 25 per second. They differ in how a crop is encoded, in where the projection lies, and in their positions.

The text model is always run on embeddings, with the mask and the positions of each token spelled out. So nothing that
the model objects remember between calls (``rope_deltas``) and nothing that they do on the sly (the legacy merge of
Qwen2-Audio, surplus audio features that Omni drops without a word) can touch a run.
"""

from __future__ import annotations

import re
import unicodedata
from abc import abstractmethod
from collections.abc import Sequence
from importlib.resources import files
from math import ceil
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from transformers import AutoTokenizer, DynamicCache, WhisperFeatureExtractor

from echo_agent.errors import ModelError, PlaceholderError
from echo_agent.families.base import Family, Limits, Piece
from echo_agent.recording import AudioRef

if TYPE_CHECKING:
    import numpy as np
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

AUDIO, AUDIO_BEGIN, AUDIO_END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
TURN_BEGIN, TURN_END, TEXT_END = "<|im_start|>", "<|im_end|>", "<|endoftext|>"

MEDIA = re.compile(r"<\|(audio|image|video|vision|box|quad|object_ref)(_\w+)?\|>", re.IGNORECASE)
"""Control tokens that stand for, begin or end something that is not text."""

SHORTEST = 0.2
"""Shortest crop in seconds: 20 mel frames, 5 tokens. Shorter recordings are heard with silence after them."""


def audio_token_count(frames: int) -> int:
    """Audio tokens that ``frames`` mel frames give: a convolution of stride 2, then pooling of stride 2."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


class ChatMLFamily(Family):
    """A model with ChatML turns whose audio goes through a Whisper-like tower into one decoder."""

    limits: Limits
    model_class: ClassVar[Any]
    """The transformers class; ``Any`` because its loading methods are not typed."""
    prompt: Template
    """The head of the context; ``$recordings`` is where the audio stands."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        feature_extractor: WhisperFeatureExtractor,
    ) -> None:
        """Take loaded parts; the model is put into evaluation mode."""
        self.name = name
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.feature_extractor = feature_extractor
        self.sample_rate = feature_extractor.sampling_rate
        config: Any = model.config
        text = config.get_text_config()
        if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
            raise ModelError(
                f"{name}: models with sliding-window attention cannot keep a cache that is appended to"
            )
        self.context_length = text.max_position_embeddings
        vocabulary = tokenizer.get_vocab()
        missing = [
            token
            for token in (AUDIO, AUDIO_BEGIN, AUDIO_END, TURN_BEGIN, TURN_END)
            if token not in vocabulary
        ]
        if missing:
            raise ModelError(
                f"{name}: the tokenizer does not know {', '.join(missing)}: it is not a {self.kind} tokenizer"
            )
        self.audio_id = vocabulary[AUDIO]
        if self.audio_id != config.audio_token_id:
            raise ModelError(
                f"{name}: {AUDIO} is token {self.audio_id} for the tokenizer and {config.audio_token_id} for the "
                "model: they do not belong together"
            )
        self._begin, self._end = vocabulary[AUDIO_BEGIN], vocabulary[AUDIO_END]
        self.eos_ids = tuple(vocabulary[token] for token in (TURN_END, TEXT_END) if token in vocabulary)
        self.banned_ids = self._banned(vocabulary, config)
        added: Any = tokenizer  # the method is missing from the base class's types
        # longest first, so that a token that begins another is not found in its place
        control = sorted(
            filter(lambda token: len(token.strip()) > 1, added.get_added_vocab()), key=len, reverse=True
        )
        self._control = re.compile("|".join(map(re.escape, control)))

    @classmethod
    def load(cls, source: str, *, name: str, device: torch.device, dtype: torch.dtype) -> Self:
        """Load from a hub id or a folder; processors for pictures are left alone.

        Raises:
            ModelError: The checkpoint lacks weights (the library would draw them at random and go on).
        """
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        extractor = WhisperFeatureExtractor.from_pretrained(source)
        model, report = cls.model_class.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        if missing := sorted(report["missing_keys"]):
            raise ModelError(f"{name}: the checkpoint lacks {len(missing)} weights, among them {missing[0]}")
        return cls(name, model.to(device), tokenizer, extractor)

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

    @property
    def _longest_samples(self) -> int:
        """Samples of the longest listen; the tail beyond it (at most ``base.TAIL`` seconds) is not heard."""
        return round(self.limits.longest_recording * self.sample_rate)

    def _heard_samples(self, samples: int) -> int:
        """Samples that are heard of a crop of so many."""
        return min(max(samples, round(SHORTEST * self.sample_rate)), self._longest_samples)

    def _frames(self, samples: int) -> int:
        """Mel frames of a crop of ``samples`` samples."""
        return ceil(self._heard_samples(samples) / self.feature_extractor.hop_length)

    def audio_tokens(self, ref: AudioRef) -> int:
        """Number of placeholders (without markers) that a listen to ``ref`` costs: 25 per second."""
        return audio_token_count(self._frames(ref.samples(self.sample_rate)))

    def audio_ids(self, ref: AudioRef) -> list[int]:
        """Begin marker, placeholders, end marker; refuses what the model cannot hear."""
        self.check_length(ref)
        return [self._begin, *[self.audio_id] * self.audio_tokens(ref), self._end]

    def turn_open(self, role: str) -> str:
        """Text that opens a turn."""
        return f"{TURN_BEGIN}{role}\n"

    def turn_close(self) -> str:
        """Text that closes a turn."""
        return f"{TURN_END}\n"

    def question_pieces(
        self, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """System turn; audio, question, choices and the protocol in the user's turn; the assistant's header."""
        before, after = self.prompt.template.split("$recordings")
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
        if window is None:
            longest = max(self._heard_samples(len(crop)) for crop in heard) + extractor.n_fft
            window = ceil(longest / extractor.hop_length) * extractor.hop_length
        # Also in training, mel features are those of full precision.
        with torch.autocast("cpu", enabled=False):
            mel = extractor(
                heard,
                sampling_rate=self.sample_rate,
                padding="max_length",
                max_length=window,
                return_tensors="pt",
            )["input_features"]
        return mel, torch.tensor([self._frames(len(crop)) for crop in crops])

    @abstractmethod
    def _model_features(self, crops: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """``input_features`` and ``feature_attention_mask`` as the model's own ``forward`` wants them."""

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
            if len(tower) != self.audio_tokens(ref):
                raise PlaceholderError(
                    f"{self.audio_tokens(ref)} placeholders stand for {ref.seconds:.2f} s of audio, "
                    f"but its encoding has {len(tower)} features"
                )
        projected = self._projector(torch.cat([tower.to(self.device) for tower in towers])).to(
            self.model.dtype
        )
        return list(projected.split([len(tower) for tower in towers]))

    # --- text model ---------------------------------------------------------------------------------------------

    def token_embeds(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings ``[..., hidden]`` of ids ``[...]``."""
        return self.model.get_input_embeddings()(ids)

    def forward_embeds(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, Cache]:
        """One step of the text model; see :meth:`Family.forward_embeds`."""
        text: Any = self.model.get_submodule("model.language_model")
        out = text(
            inputs_embeds=embeds,
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
        input_ids = torch.tensor([list(ids)], device=self.device)
        inputs: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "position_ids": self.position_ids(torch.arange(len(ids), device=self.device)[None]),
        }
        if crops:
            features = self._model_features([samples for _, samples in crops])
            got = [audio_token_count(int(n)) for n in features["feature_attention_mask"].sum(-1)]
            wanted = [count for _, count in self.runs(ids)]
            if got != wanted:
                raise PlaceholderError(
                    f"runs of {wanted} placeholders, but the samples given make {got} features"
                )
            inputs.update({key: value.to(self.device) for key, value in features.items()})
        return inputs


def read_prompt(name: str) -> Template:
    """A prompt template of this package's data."""
    return Template((files("echo_agent.families") / "prompts" / f"{name}.txt").read_text(encoding="utf-8"))
