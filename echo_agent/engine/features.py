"""Audio embeddings for the engine: crops are read and encoded many at a time, and once.

Two stores, each with a byte limit, keyed by the audio's content, span and transform: the outputs of the family's frozen
modules, which outlive an optimiser step, and the embeddings made from them by the rest of the audio path, which belong
to one version of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from echo_agent.errors import PlaceholderError
from echo_agent.stores import ByteStore, RecordingStore

if TYPE_CHECKING:
    import numpy as np

    from echo_agent.families.base import Family
    from echo_agent.feature_files import FeatureFiles
    from echo_agent.recording import AudioRef

Features = dict[str, Tensor]

BATCH_SECONDS = 960.0
"""Most seconds of audio that are handed to the family's encoder at once: 32 windows of 30 s."""


class AudioFeatures:
    """Embeddings of audio by reference, encoded where they are not stored."""

    def __init__(
        self, family: Family, recordings: RecordingStore, limit: int, files: FeatureFiles | None = None
    ) -> None:
        """Keep at most ``limit`` bytes, half of it features and half embeddings.

        ``files`` holds features from before; first listens are added to it, crops are not: a policy seldom asks for
        the same one again.
        """
        self._family = family
        self._recordings = recordings
        self._files = files
        self.features: ByteStore[str, Features] = ByteStore(limit // 2)
        self.embeds: ByteStore[str, Tensor] = ByteStore(limit // 2)
        self.encoded = 0
        """Crops that went through the encoder so far."""
        self.batches = 0
        """Calls of the encoder so far."""

    def embeddings(self, refs: Sequence[AudioRef]) -> dict[str, Tensor | Exception]:
        """Embeddings ``[tokens, hidden]`` by ``ref.key()``, or why there are none for that reference."""
        found: dict[str, Tensor | Exception] = {}
        missing: dict[str, AudioRef] = {}
        for ref in refs:
            key = ref.key()
            if key in found or key in missing:
                continue
            embeds = self.embeds.get(key)
            if embeds is None:
                missing[key] = ref
            else:
                found[key] = embeds
        features: dict[str, Features] = {}
        for key, result in self.frozen(list(missing.values())).items():
            if isinstance(result, Exception):
                found[key] = result
            else:
                features[key] = result
        for batch in _batches([missing[key] for key in features]):
            found.update(self._embed(batch, features))
        return found

    def frozen(self, refs: Sequence[AudioRef]) -> dict[str, Features | Exception]:
        """Outputs of the frozen modules by ``ref.key()``, or why there are none for that reference."""
        found: dict[str, Features | Exception] = {}
        crops: dict[str, tuple[AudioRef, np.ndarray]] = {}
        for ref in refs:
            key = ref.key()
            features = self.features.get(key)
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
                crops[key] = (ref, self._recordings.crop(ref, self._family.sample_rate))
            except Exception as error:  # whatever is wrong with this one must not touch the others
                found[key] = error
        for batch in _batches([ref for ref, _ in crops.values()]):
            found.update(self._encode([crops[ref.key()] for ref in batch]))
        return found

    def weights_changed(self) -> None:
        """Forget what depends on weights that are trained; the outputs of frozen modules stay."""
        self.embeds.clear()
        if not self._family.is_frozen:
            self.features.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.features.clear()
        self.embeds.clear()

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
            features = {name: _alone(tensor) for name, tensor in features.items()}
            found[ref.key()] = features
            self._keep(ref.key(), features)
            if self._files is not None and ref.is_whole:
                self._files.put(ref, features)
        return found

    def _keep(self, key: str, features: Features) -> None:
        self.features.put(key, features, sum(tensor.nbytes for tensor in features.values()))

    def _embed(
        self, refs: Sequence[AudioRef], features: dict[str, Features]
    ) -> dict[str, Tensor | Exception]:
        """Make embeddings of one batch; where that fails, of each reference alone."""
        try:
            embeds = self._family.audio_embeds(refs, [features[ref.key()] for ref in refs])
        except Exception as error:
            if len(refs) == 1:
                return {refs[0].key(): error}
            return {key: value for ref in refs for key, value in self._embed([ref], features).items()}
        found: dict[str, Tensor | Exception] = {}
        for ref, tensor in zip(refs, embeds, strict=True):
            expected = self._family.audio_tokens(ref)
            if len(tensor) != expected:
                found[ref.key()] = PlaceholderError(
                    f"{expected} placeholders stand for {ref.seconds:.2f} s of audio, "
                    f"but its encoding has {len(tensor)} embeddings"
                )
                continue
            found[ref.key()] = tensor = _alone(tensor)
            self.embeds.put(ref.key(), tensor, tensor.nbytes)
        return found


def _batches(refs: Sequence[AudioRef]) -> list[list[AudioRef]]:
    """Cut a list of references into batches of at most ``BATCH_SECONDS``, but never less than one."""
    batches: list[list[AudioRef]] = []
    seconds = 0.0
    for ref in refs:
        if not batches or seconds + ref.seconds > BATCH_SECONDS:
            batches.append([])
            seconds = 0.0
        batches[-1].append(ref)
        seconds += ref.seconds
    return batches


def _alone(tensor: Tensor) -> Tensor:
    """The tensor without gradient and with memory of its own: a view would keep a whole batch alive."""
    tensor = tensor.detach()
    if tensor.untyped_storage().nbytes() == tensor.nbytes:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
