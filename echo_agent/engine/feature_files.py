"""Features of frozen encoders on disk: what was encoded once is not encoded again, in this run or the next.

One small safetensors file per listen, in a folder per encoder. Its name is that of the listen (content, span and
transform), so any number of processes may read and fill one folder at once: a file appears when it is whole, and two
that write the same write the same bytes. What is read is bit for bit what the encoder gave, in its own precision: each
file holds a digest of its tensors, and one that does not agree with it, or has none, is not used.

    <folder>/<fingerprint of the encoder>/<first two digits>/<hash of the listen>.safetensors
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from echo_agent.disk import whole
from echo_agent.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from echo_agent.audio.recording import AudioRef
    from echo_agent.families.base import Family


DIGEST = "echo-agent-sha256"
"""Key of the digest in a file's metadata."""


class FeatureFiles:
    """A folder of features; see the module."""

    def __init__(self, folder: Path, family: Family) -> None:
        """Keep the features of ``family``'s frozen modules below ``folder``, which is made.

        Raises:
            DataError: It cannot be made.
        """
        self.folder = folder / family.encoder_fingerprint()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def path(self, ref: AudioRef) -> Path:
        """Where the features of a listen are kept."""
        name = hashlib.sha256(ref.key().encode()).hexdigest()[:40]
        return self.folder / name[:2] / f"{name}.safetensors"

    def __contains__(self, ref: AudioRef) -> bool:
        """Whether a listen has been kept."""
        return self.path(ref).exists()

    def get(self, ref: AudioRef) -> dict[str, Tensor] | None:
        """The features of a listen, or None.

        Raises:
            DataError: The file is damaged, or cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path(ref)
        try:
            with safe_open(path, "pt") as file:
                features = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                digest = (file.metadata() or {}).get(DIGEST)
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            raise DataError(f"{path} is damaged: remove it, and it is made again ({error})") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if digest != _digest(features):
            raise DataError(
                f"{path} is damaged, or holds no features: remove it, and it is made again (its digest is of others)"
            )
        return features

    def put(self, ref: AudioRef, features: dict[str, Tensor]) -> None:
        """Keep the features of a listen.

        Raises:
            DataError: The disk is full, or the folder cannot be written to.
        """
        from safetensors.torch import save

        try:
            with whole(self.path(ref)) as partial:
                tensors = {name: value.contiguous().cpu() for name, value in features.items()}
                partial.write_bytes(save(tensors, metadata={DIGEST: _digest(tensors)}))
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> DataError:
        why = error.strerror or error
        return DataError(
            f"features cannot be kept in {self.folder}: {why}; free some space, or name another folder"
        )


def _digest(tensors: dict[str, Tensor]) -> str:
    """A hash of names, types, shapes and values."""
    from safetensors.torch import save

    return hashlib.sha256(save(tensors)).hexdigest()
