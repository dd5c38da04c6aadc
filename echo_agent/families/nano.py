"""echo-nano as a family: a constant price per listen, whole seconds as time tokens, a terse prompt of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache, DynamicCache

from echo_agent.errors import ModelError, PlaceholderError
from echo_agent.families.base import Family, Limits, Piece
from echo_agent.nano import processing
from echo_agent.nano.adapter import pool
from echo_agent.nano.configuration import MAX_SECONDS
from echo_agent.nano.decoder import decode
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.weights import POLICY_FILE, load_embedded
from echo_agent.recording import AudioRef

if TYPE_CHECKING:
    import numpy as np

SHORTEST = 0.5
"""Seconds: the shortest crop, six audio tokens."""


class NanoFamily(Family):
    """echo-nano with its loaded weights."""

    kind = "echo-nano"
    limits = Limits(shortest=SHORTEST, longest_crop=float(MAX_SECONDS), longest_recording=float(MAX_SECONDS))
    projector_module = "model.adapter.project"
    frozen_modules = ("model.encoder", "model.adapter.branch")

    def __init__(self, name: str, model: NanoForConditionalGeneration, tokenizer: Any) -> None:
        """Wrap a model and its tokenizer."""
        self.name = name
        self.model: Any = model
        self.tokenizer = tokenizer
        self.config = model.config
        self.context_length = model.config.text_config.max_position_embeddings
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in processing.CONTROL}
        self.audio_id = ids[processing.AUDIO]
        self._start_id, self._end_id = ids[processing.AUDIO_START], ids[processing.AUDIO_END]
        self.eos_ids = (ids[processing.END],)
        unused = range(len(tokenizer), model.config.text_config.vocab_size)
        self.banned_ids = tuple(sorted({*(i for t, i in ids.items() if t != processing.END), *unused}))

    @classmethod
    def load(cls, source: str | Path, *, name: str, device: torch.device, dtype: torch.dtype) -> NanoFamily:
        """Load the embedded model, or a folder that :meth:`save` wrote."""
        folder = Path(source)
        if (folder / POLICY_FILE).exists():
            model = load_embedded(folder)
        else:
            model = NanoForConditionalGeneration.from_pretrained(folder)
        if not (folder / "tokenizer.json").exists():
            raise ModelError(f"{folder}: tokenizer.json is missing; save model and tokenizer together")
        family = cls(name, model.to(device, dtype).eval(), processing.load_tokenizer(folder))
        family.freeze()
        return family

    @property
    def feature_settings(self) -> str:
        """The budget of a listen: features are pooled to it."""
        return f"{self.config.listen_tokens} {self.config.tokens_per_second}"

    def audio_tokens(self, ref: AudioRef) -> int:
        """At most 48, and at most 6 per second heard."""
        return self.config.listen_size(ref.samples(self.sample_rate) / self.sample_rate)

    def audio_ids(self, ref: AudioRef) -> list[int]:
        """Begin marker, placeholders, end marker."""
        self.check_length(ref)
        return [self._start_id, *[self.audio_id] * self.audio_tokens(ref), self._end_id]

    def question_pieces(
        self, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """User's turn with the first listens, then the question; the assistant's turn is open at the end."""
        text = processing.prompt_text(question, choices, recordings[0].duration)
        return [
            Piece(text=processing.USER),
            *(Piece(audio=ref) for ref in recordings),
            Piece(text=f"{text}{processing.END}{processing.ASSISTANT}"),
        ]

    def turn_open(self, role: str) -> str:
        """The token that opens a turn; there are two roles."""
        tokens = {"user": processing.USER, "assistant": processing.ASSISTANT}
        return tokens[role] if role in tokens else super().turn_open(role)

    def turn_close(self) -> str:
        """The token that closes a turn."""
        return processing.END

    def escape(self, text: str) -> str:
        """Text in which no control or markup token is recognised."""
        return processing.escape(text)

    def written(self, text: str) -> str:
        """Numbers and words always stand behind a space, also after a tag: then they are the tokens of the prompt."""
        text = re.sub(rf"\s*{processing.SEG}\s*", f"{processing.SEG} ", text)
        return re.sub(rf"({processing.THINK}|{processing.ANSWER})(?=[^\s<])", r"\1 ", text)

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, torch.Tensor]]:
        """Pooled features ``[tokens, feature_dim]`` and the second of each token."""
        for ref, _ in crops:
            self.check_length(ref)
        inputs = self._listens(crops)
        frames = self.model.model.frames(inputs["mels"], inputs["mel_lengths"], inputs["listen_windows"])
        sizes = [self.audio_tokens(ref) for ref, _ in crops]
        return [
            {"pooled": pool(f, n), "times": self._times(ref, n)}
            for f, n, (ref, _) in zip(frames, sizes, crops, strict=True)
        ]

    def audio_embeds(
        self, refs: Sequence[AudioRef], features: Sequence[dict[str, torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Projection plus the embedding of the time token."""
        sizes = [self.audio_tokens(ref) for ref in refs]
        for ref, size, feature in zip(refs, sizes, features, strict=True):
            if feature["pooled"].shape[0] != size:
                raise PlaceholderError(
                    f"a listen to {ref.seconds:.2f} s has {size} placeholders, "
                    f"but {feature['pooled'].shape[0]} features"
                )
        if not refs:
            return []
        pooled = torch.cat([f["pooled"] for f in features]).to(self.device)
        times = torch.cat([f["times"] for f in features]).to(self.device)
        return list(self.model.model.audio_embeds(pooled, times).split(sizes))

    def token_embeds(self, ids: torch.Tensor) -> torch.Tensor:
        """The decoder's token embeddings."""
        return self.model.get_input_embeddings()(ids)

    def forward_embeds(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, Cache]:
        """One step of the decoder."""
        cache = DynamicCache() if cache is None else cache
        return decode(self.model.model.language_model, embeds, mask, positions, cache), cache

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores over the vocabulary, float32."""
        return self.model.lm_head(hidden).float()

    def forward_inputs(
        self, ids: Sequence[int], crops: Sequence[tuple[AudioRef, np.ndarray]]
    ) -> dict[str, Any]:
        """Ids, mel windows and times for the model's own ``forward``."""
        refs = [ref for ref, _ in crops]
        self.check_placeholders(ids, refs)
        tokens = torch.tensor([list(ids)], device=self.device)
        inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if crops:
            sizes = [self.audio_tokens(ref) for ref in refs]
            inputs |= self._listens(crops)
            inputs["listen_tokens"] = torch.tensor(sizes, device=self.device)
            inputs["audio_times"] = torch.cat([self._times(r, n) for r, n in zip(refs, sizes, strict=True)])
        return inputs

    def _listens(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> dict[str, torch.Tensor]:
        # Also in training, mel features are those of full precision.
        with torch.autocast("cpu", enabled=False):
            inputs = processing.listen_inputs(
                [torch.from_numpy(samples) for _, samples in crops], self.config
            )
        return {
            "mels": inputs.mels.to(self.device, self.model.dtype),
            "mel_lengths": inputs.mel_lengths.to(self.device),
            "listen_windows": inputs.listen_windows.to(self.device),
        }

    def _times(self, ref: AudioRef, tokens: int) -> torch.Tensor:
        return torch.tensor(processing.listen_times(ref.start, ref.end, tokens), device=self.device)
