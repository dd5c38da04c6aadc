"""What the models of this package have in common as families: listens of known sizes, and a Llama decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import Cache, DynamicCache

from echo_agent.audio.recording import AudioRef
from echo_agent.errors import ContextError, PlaceholderError
from echo_agent.families.base import Family
from echo_agent.nano.decoder import decode


class EmbeddedFamily(Family):
    """A model whose ``config`` says how many tokens a listen has (``listen_size``)."""

    model: Any
    config: Any
    feature_names: ClassVar[tuple[str, ...]]
    """What a listen is encoded to, by name; each has a row for every audio token."""
    _start_id: int
    _end_id: int

    def seconds_of(self, ref: AudioRef) -> float:
        """Seconds that are heard of a reference."""
        return ref.samples(self.sample_rate) / self.sample_rate

    def audio_tokens(self, ref: AudioRef) -> int:
        """What the configuration gives a listen of this length."""
        return self.config.listen_size(self.seconds_of(ref))

    def audio_ids(self, ref: AudioRef) -> list[int]:
        """Begin marker, placeholders, end marker."""
        self.check_length(ref)
        return [self._start_id, *[self.audio_id] * self.audio_tokens(ref), self._end_id]

    def check_recordings(self, recordings: Sequence[AudioRef]) -> None:
        """Raise ContextError where there is no recording: these models were never taught to answer without one."""
        if not recordings:
            raise ContextError(
                f"{self.name} answers questions about recordings only, and the messages hold none: put audio into the "
                "user's message, as a block of echo_agent.messages.audio_block(ref) or as base64"
            )

    def check_sizes(self, refs: Sequence[AudioRef], counts: Sequence[int]) -> list[int]:
        """Sizes of listens; raises PlaceholderError where the features of one are more or fewer."""
        sizes = [self.audio_tokens(ref) for ref in refs]
        for ref, size, count in zip(refs, sizes, counts, strict=True):
            if count != size:
                raise PlaceholderError(
                    f"a listen to {ref.seconds:.2f} s has {size} placeholders, but {count} features"
                )
        return sizes

    def audio_embeds(
        self, refs: Sequence[AudioRef], features: Sequence[dict[str, torch.Tensor]]
    ) -> list[torch.Tensor]:
        """What the model's own ``audio_embeds`` makes of the features of all listens, which it takes in order."""
        sizes = self.check_sizes(refs, [len(feature[self.feature_names[0]]) for feature in features])
        if not refs:
            return []
        columns = [torch.cat([f[name] for f in features]).to(self.device) for name in self.feature_names]
        return list(self.model.model.audio_embeds(*columns).split(sizes))

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

    def text_inputs(self, ids: Sequence[int], refs: Sequence[AudioRef]) -> dict[str, Any]:
        """Ids and mask of a trajectory for the model's own ``forward``; raises PlaceholderError as its checks do."""
        self.check_placeholders(ids, refs)
        tokens = torch.tensor([list(ids)], device=self.device)
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
