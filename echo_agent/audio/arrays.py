"""Samples that are in memory: what makes one channel of an array, and what reads it on."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from echo_agent.audio.channels import Balance, down_mix
from echo_agent.audio.soundfiles import check_samples
from echo_agent.audio.transforms import Samples
from echo_agent.errors import RecordingError

__all__ = ["ArrayReader", "PaddedReader", "Reader", "mono"]

_MOST_CHANNELS = 64
_FULL_SCALE = {"int8": 128.0, "int16": 32768.0, "int32": 2147483648.0, "uint8": 128.0}


class Reader(Protocol):
    """Reads forward from one place."""

    def read(self, samples: int) -> Samples:
        """The next samples."""
        ...


class ArrayReader:
    """Reads samples that are in memory."""

    def __init__(self, samples: Samples, start: int) -> None:
        """Read `[samples]` from the sample `start` on."""
        self._samples, self._position = samples, start

    def read(self, samples: int) -> Samples:
        """The next samples."""
        self._position += samples
        return self._samples[self._position - samples : self._position]


class PaddedReader:
    """Reads on in silence where the sound ends early: a damaged file of which a part was lost."""

    def __init__(self, reader: Reader, left: int) -> None:
        """Read from `reader` while it has some of the samples that are `left`."""
        self._reader, self._left = reader, left

    def read(self, samples: int) -> Samples:
        """The next samples."""
        out = np.zeros(samples, np.float32)
        there = min(samples, max(0, self._left))
        if there:
            out[:there] = self._reader.read(there)
        self._left -= samples
        return out


def mono(samples: ArrayLike, rate: int, name: str) -> tuple[Samples, int, str | None]:
    """Check and scale an array: one channel, as memory of its own, how many there were, and a note about them.

    Raises:
        RecordingError: Shape, type or a value is not that of a waveform.
    """
    try:
        array: NDArray[Any] = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecordingError(f"{name}: cannot be made a numpy array of samples: {error}") from error
    if array.ndim not in (1, 2):
        raise RecordingError(
            f"{name}: samples need one axis, or two (samples and channels), not the shape {array.shape}"
        )
    if array.size == 0:
        raise RecordingError(f"{name}: holds no samples (shape {array.shape})")
    if array.dtype.kind != "f" and array.dtype.name not in _FULL_SCALE:
        raise RecordingError(
            f"{name}: samples of type {array.dtype} are not taken, because their full scale is not known; "
            "pass floats from -1 to 1, or int16"
        )
    if array.ndim == 2:
        if array.shape[0] == array.shape[1] > 1:
            raise RecordingError(
                f"{name}: in the shape {array.shape} nothing tells samples from channels; "
                "pass one axis of samples"
            )
        if array.shape[0] < array.shape[1]:
            array = array.T
        if array.shape[1] > _MOST_CHANNELS:
            raise RecordingError(
                f"{name}: the shape {array.shape} has {array.shape[1]} channels; is it a waveform?"
            )
    channels = 1 if array.ndim == 1 else array.shape[1]
    if array.dtype.kind == "f":
        check_samples(array, 0, rate, name)
    else:
        scale = np.float32(_FULL_SCALE[array.dtype.name])
        array = (array.astype(np.float32) - (128.0 if array.dtype.name == "uint8" else 0.0)) / scale
    if array.ndim == 1:
        return np.array(array, dtype=np.float32, order="C"), channels, None
    balance = Balance()
    for place in range(0, len(array), rate):
        balance.add(array[place : place + rate // 10])
    weights, said = balance.weights()
    wave = down_mix(array.astype(np.float64), weights)
    return np.array(wave, dtype=np.float32, order="C"), channels, said
