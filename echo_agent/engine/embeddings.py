"""Audio embeddings for the engine: made many at a time, and once.

Two stores, each with a byte limit, keyed by the audio's content, span and transform: the outputs of the family's frozen
modules (:mod:`echo_agent.engine.frozen_features`), which outlive an optimiser step, and the embeddings made from them
by the rest of the audio path, which belong to one version of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from echo_agent.engine.frozen_features import Features, FrozenFeatures, alone, batches
from echo_agent.errors import PlaceholderError
from echo_agent.stores import ByteStore, RecordingStore

if TYPE_CHECKING:
    from echo_agent.audio.recording import AudioRef
    from echo_agent.engine.feature_files import FeatureFiles
    from echo_agent.families.base import Family


class AudioFeatures:
    """Embeddings of audio by reference, encoded where they are not stored."""

    def __init__(
        self, family: Family, recordings: RecordingStore, limit: int, files: FeatureFiles | None = None
    ) -> None:
        """Keep at most ``limit`` bytes, half of it features and half embeddings; ``files`` keeps first listens."""
        self._family = family
        self.frozen = FrozenFeatures(family, recordings, limit // 2, files)
        self.embeds: ByteStore[str, Tensor] = ByteStore(limit // 2)

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
        for key, result in self.frozen.find(list(missing.values())).items():
            if isinstance(result, Exception):
                found[key] = result
            else:
                features[key] = result
        for batch in batches([missing[key] for key in features]):
            found.update(self._embed(batch, features))
        return found

    def weights_changed(self) -> None:
        """Forget what depends on weights that are trained; the outputs of frozen modules stay."""
        self.embeds.clear()
        if not self._family.is_frozen:
            self.frozen.kept.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.frozen.kept.clear()
        self.embeds.clear()

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
            found[ref.key()] = tensor = alone(tensor)
            self.embeds.put(ref.key(), tensor, tensor.nbytes)
        return found
