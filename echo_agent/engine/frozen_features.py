"""Outputs of a family's frozen modules for listens: from memory, from disk, or encoded now, many at a time and once.

They outlive an optimiser step; the engine makes embeddings from them, and a trainer makes its forward pass from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from echo_agent.stores import ByteStore, RecordingStore

if TYPE_CHECKING:
    import numpy as np

    from echo_agent.audio.recording import AudioRef
    from echo_agent.engine.feature_files import FeatureFiles
    from echo_agent.families.base import Family

Features = dict[str, Tensor]

BATCH_SECONDS = 960.0
"""Most seconds of audio that are handed to the family's encoder at once: 32 windows of 30 s."""


class FrozenFeatures:
    """Features of listens by reference, encoded where they are not kept. Any thread may ask."""

    def __init__(
        self,
        family: Family,
        recordings: RecordingStore,
        limit: int,
        files: FeatureFiles | None = None,
        *,
        crops_on_disk: bool = False,
    ) -> None:
        """Keep at most ``limit`` bytes at hand.

        Args:
            family: Whose encoder hears.
            recordings: Where samples come from.
            limit: Bytes of memory.
            files: Features from before; first listens are added to it.
            crops_on_disk: Add crops to it too. A policy seldom asks for the same one again, but the trajectories of a
                dataset do in every epoch.
        """
        self._family, self._recordings = family, recordings
        self._files, self._crops_on_disk = files, crops_on_disk
        self.kept: ByteStore[str, Features] = ByteStore(limit)
        self.encoded = 0
        """Listens that went through the encoder so far."""
        self.batches = 0
        """Calls of the encoder so far."""

    def get(self, refs: Sequence[AudioRef]) -> list[Features]:
        """Features of listens, in order.

        Raises:
            RecordingError: A recording cannot be read.
            RecordingTooLongError: The family cannot hear it.
            DataError: A file of features is damaged, or the disk is full.
        """
        found = self.find(refs)
        features: list[Features] = []
        for ref in refs:
            result = found[ref.key()]
            if isinstance(result, Exception):
                raise result
            features.append(result)
        return features

    def for_notes(self, ref: AudioRef) -> Features:
        """As much of the features of a listen as its notes take: all of them, where these are at hand.

        Raises:
            RecordingError: The recording cannot be read.
            DataError: A file of features is damaged, or the disk is full.
        """
        if not self._family.notes_early or (self._files is not None and ref in self._files):
            return self.get([ref])[0]
        key = f"{ref.key()}:notes"
        features = self.kept.get(ref.key()) or self.kept.get(key)
        if features is None:
            pieces = self._recordings.get(ref).pieces(ref, self._family.sample_rate)
            features = {name: alone(t) for name, t in self._family.frozen_notes(ref, pieces).items()}
            self.batches += 1
            self._keep(key, features)
        return features

    def find(self, refs: Sequence[AudioRef]) -> dict[str, Features | Exception]:
        """Features by ``ref.key()``, or why there are none for that reference."""
        found: dict[str, Features | Exception] = {}
        crops: dict[str, tuple[AudioRef, np.ndarray]] = {}
        for key, ref in {ref.key(): ref for ref in refs}.items():
            features = self.kept.get(key)
            if features is not None:
                found[key] = features
                continue
            try:
                features = None if self._files is None else self._files.get(ref)
                if features is not None:
                    found[key] = features
                    self._keep(key, features)
                    continue
                self._family.check_length(ref)
                if self._family.in_stream(ref):
                    found[key] = self._stream(ref)
                else:
                    crops[key] = (ref, self._recordings.crop(ref, self._family.sample_rate))
            except Exception as error:  # whatever is wrong with this one must not touch the others
                found[key] = error
        for batch in batches([ref for ref, _ in crops.values()]):
            found.update(self._encode([crops[ref.key()] for ref in batch]))
        return found

    def _stream(self, ref: AudioRef) -> Features:
        """Run the frozen modules on a long listen that is read piece by piece."""
        pieces = self._recordings.get(ref).pieces(ref, self._family.sample_rate)
        features = self._family.frozen_stream(ref, pieces)
        self.batches += 1
        self.encoded += 1
        self._keep(ref.key(), features)
        if self._files is not None:
            self._files.put(ref, features)
        return features

    def _encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> dict[str, Features | Exception]:
        """Run the frozen modules on one batch; where that fails, on each crop alone."""
        self.batches += 1
        try:
            encoded = self._family.frozen_features(crops)
        except Exception as error:
            if len(crops) == 1:
                return {crops[0][0].key(): error}
            return {key: value for crop in crops for key, value in self._encode([crop]).items()}
        self.encoded += len(crops)
        found: dict[str, Features | Exception] = {}
        for (ref, _), features in zip(crops, encoded, strict=True):
            features = {name: alone(tensor) for name, tensor in features.items()}
            found[ref.key()] = features
            self._keep(ref.key(), features)
            if self._files is not None and (ref.is_whole or self._crops_on_disk):
                self._files.put(ref, features)
        return found

    def _keep(self, key: str, features: Features) -> None:
        self.kept.put(key, features, sum(tensor.nbytes for tensor in features.values()))


def batches(refs: Sequence[AudioRef]) -> list[list[AudioRef]]:
    """Cut a list of references into batches of at most ``BATCH_SECONDS``, but never less than one."""
    cut: list[list[AudioRef]] = []
    seconds = 0.0
    for ref in refs:
        if not cut or seconds + ref.seconds > BATCH_SECONDS:
            cut.append([])
            seconds = 0.0
        cut[-1].append(ref)
        seconds += ref.seconds
    return cut


def alone(tensor: Tensor) -> Tensor:
    """The tensor without gradient and with memory of its own: a view would keep a whole batch alive."""
    tensor = tensor.detach()
    if tensor.untyped_storage().nbytes() == tensor.nbytes:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
