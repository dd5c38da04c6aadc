"""Audio in the training forward pass: a model's own ``forward`` takes ``audio=...`` along with the ids.

Trainers know ids, masks and labels. The audio of every listen of a trajectory has to reach the model too, and the
gradient has to reach the projector. :class:`AudioHook` registers a hook that runs before the model's ``forward``: it
takes the listens of the batch, makes their embeddings from frozen features (or from samples, if the encoder is
trained), puts them in the places of the placeholders, and gives the positions. So a family's own merge is not used,
wrappers such as PEFT and DDP need not know, and all families are treated alike.

Without the hook, missing audio would go unnoticed, since a model scores bare placeholders as well. Here, placeholders
without audio are an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from echo_agent.audio.recording import AudioRef
from echo_agent.errors import PlaceholderError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from echo_agent.families.base import Family
    from echo_agent.stores import RecordingStore


OWN_AUDIO = ("input_features", "mels", "audio_features")
"""The arguments by which the models' own ``forward`` takes audio."""


@dataclass(frozen=True)
class AudioInput:
    """One listen of a row, whose place a range of placeholders holds: either features or samples are given."""

    ref: AudioRef
    features: dict[str, Tensor] | None = None
    """Outputs of the frozen modules."""
    samples: np.ndarray | None = None
    """float32 mono ``[samples]`` at the family's rate, if the encoder is trained."""


LoadAudio = Callable[[Sequence[AudioRef]], list[AudioInput]]
"""Fetches features or samples for the listens of a batch."""


class AudioHook:
    """Lets ``family.model(input_ids=..., attention_mask=..., audio=[[AudioInput, ...], ...])`` hear; see the module."""

    def __init__(self, family: Family) -> None:
        """Register the hook."""
        self._family = family
        self._handle = family.model.register_forward_pre_hook(self._hear, with_kwargs=True)

    def remove(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    def _hear(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if "audio" not in kwargs:
            self._check_deaf(kwargs)
            return None
        rows: Sequence[Sequence[AudioInput]] = kwargs.pop("audio")
        ids, mask = kwargs.pop("input_ids"), kwargs["attention_mask"]
        kwargs |= self._family.embeds_inputs(self.embeds(ids, [heard for row in rows for heard in row]))
        kwargs["position_ids"] = self._family.position_ids((mask.cumsum(-1) - 1).clamp(min=0))
        return args, kwargs

    def _check_deaf(self, kwargs: dict[str, Any]) -> None:
        """Refuse ids with placeholders but without audio."""
        ids = kwargs.get("input_ids")
        if ids is None or any(kwargs.get(name) is not None for name in OWN_AUDIO):
            return
        if wanted := int((ids == self._family.audio_id).sum()):
            raise PlaceholderError(f"the batch has {wanted} audio placeholders, but no audio: pass audio=...")

    def embeds(self, ids: Tensor, heard: Sequence[AudioInput]) -> Tensor:
        """Embeddings ``[batch, n, hidden or wider]`` of ids, placeholders filled with listens in reading order.

        Raises:
            PlaceholderError: The placeholders are more or fewer than the listens give; both numbers are named.
        """
        family = self._family
        embeds = family.token_embeds(ids)
        places = ids == family.audio_id
        refs = [listen.ref for listen in heard]
        wanted, given = int(places.sum()), sum(map(family.audio_tokens, refs))
        if wanted != given:
            raise PlaceholderError(f"the batch has {wanted} audio placeholders, but its listens give {given}")
        if not heard:
            return embeds
        audio = torch.cat(family.audio_embeds(refs, self._features(heard))).to(embeds.dtype)
        return family.with_audio(embeds, places, audio)

    def _features(self, heard: Sequence[AudioInput]) -> list[dict[str, Tensor]]:
        """Features as they are given; samples are encoded here, so that the encoder gets its gradient."""
        crops = [(listen.ref, listen.samples) for listen in heard if listen.samples is not None]
        fresh = iter(self._family.encode(crops) if crops else [])
        return [next(fresh) if listen.features is None else listen.features for listen in heard]


class AudioLoader:
    """Fetches listens for a trainer (:data:`LoadAudio`): features, or samples if the encoder is trained."""

    def __init__(
        self,
        family: Family,
        recordings: RecordingStore,
        features: Callable[[Sequence[AudioRef]], list[dict[str, Tensor]]],
    ) -> None:
        """Take what gives the outputs of ``family``'s frozen modules for listens, in order."""
        self._family, self._recordings, self._features = family, recordings, features

    def __call__(self, refs: Sequence[AudioRef]) -> list[AudioInput]:
        """The listens of a batch, in order.

        Raises:
            RecordingError: A recording cannot be read.
            DataError: A file of features is damaged, or the disk is full.
        """
        family = self._family
        if not family.is_frozen:
            return [AudioInput(ref, samples=self._recordings.crop(ref, family.sample_rate)) for ref in refs]
        return [
            AudioInput(ref, features=found) for ref, found in zip(refs, self._features(refs), strict=True)
        ]
