"""Reads wav, flac, ogg, mp3 and their relatives with libsndfile, which seeks: a crop reads only the crop.

Waveforms come out as float32 mono `[samples]` (the channels mixed as `echo_agent.audio.channels` says) at the file's
own rate. Three habits of libsndfile 1.2.2 and of the soundfile package, all measured, are met here, so that a
stretch read by seeking is the same stretch of the whole, sample for sample:

- soundfile seeks after *every* read of a seekable file. In an mp3 that loses the bit reservoir, and reading
  in blocks gives other samples (off by up to 0.4). `_Sequential` tells it not to.
- A seek into an mp3 needs some frames before the target to be decoded too; in an Ogg file a seek into the
  last page lands up to 12 ms off. So reading starts early (`_LEAD_IN`, `_OGG_TAIL`) and what was not asked
  for is dropped.
- It reads NaN and infinity from float files. They are heard as silence, and `echo_agent.audio.lengths` says so.

How long a file really is finds `echo_agent.audio.lengths`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echo_agent.audio.channels import down_mix
from echo_agent.audio.layouts import LaidOutFile, Layout
from echo_agent.errors import RecordingError

__all__ = ["SoundInfo", "SoundReader", "check_rate", "check_samples", "decoding", "open_sound", "reason_of"]

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Sampling rates that recordings have; a header that says otherwise is wrong."""

_BLOCK = 1 << 16
"""Samples of all channels that are read at once."""
_LEAD_IN = {"MP3": 10.0, "OGG": 2.0}
"""Seconds decoded before a crop, by format. mp3 needs 0.5; ten cost 40 ms and spare short recordings the
complaints that mpg123 prints to stderr after a seek."""
_OGG_TAIL = 16.0
"""Seconds at the end of an Ogg file that are never seeked into: more than a last page holds."""
_LOUDEST = 64.0
"""Level beyond which samples are not a waveform of full scale 1 any more (36 dB over it)."""


@dataclass(frozen=True)
class SoundInfo:
    """What a sound file holds."""

    path: str
    frames: int
    """Samples per channel that can be read."""
    rate: int
    """Samples per second."""
    channels: int
    format: str
    """libsndfile's name of the container, such as "WAV" or "MP3"."""
    layout: Layout | None = None
    """Where the sound lies, if the header is wrong about it."""
    weights: tuple[float, ...] | None = None
    """With what each channel goes into what is heard; None for their mean."""
    notes: tuple[str, ...] = ()
    """What the user should know about the file: sentences without its name."""

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate


def check_rate(rate: int, name: str) -> int:
    """Return `rate` if recordings have such a rate; raise RecordingError otherwise."""
    if (
        isinstance(rate, bool)
        or not isinstance(rate, (int, float, np.integer, np.floating))
        or rate != rate // 1
    ):
        raise RecordingError(f"{name}: the sampling rate must be a whole number of Hz, not {rate!r}")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise RecordingError(
            f"{name}: a sampling rate of {rate:g} Hz is not one of a recording "
            f"({LOWEST_RATE} to {HIGHEST_RATE} Hz)"
        )
    return int(rate)


def check_samples(block: NDArray[np.floating[Any]], first: int, rate: int, name: str) -> None:
    """Raise RecordingError if samples are NaN, infinite or not on a scale of -1 to 1.

    Args:
        block: `[samples]` or `[samples, channels]`.
        first: Index of the block's first sample in the recording.
        rate: Samples per second, for the place in the message.
        name: The recording's name, for the message.
    """
    if block.size == 0 or np.abs(block).max(initial=0.0) <= _LOUDEST:  # false for NaN too
        return
    bad = np.argwhere(~(np.abs(block) <= _LOUDEST))[0]
    value = float(block[tuple(bad)])
    where = f"sample {first + int(bad[0])} ({(first + int(bad[0])) / rate:.3f} s)"
    if block.ndim == 2 and block.shape[1] > 1:
        where += f" of channel {int(bad[1]) + 1}"
    if np.isfinite(value):
        raise RecordingError(
            f"{name}: {where} is {value:g}, but full scale is -1 to 1; divide integer samples that are kept "
            "as floats by their full scale (32768 for 16 bits)"
        )
    kind = "NaN (not a number)" if np.isnan(value) else "infinite"
    raise RecordingError(f"{name}: {where} is {kind}; repair or cut out that place first")


class SoundReader:
    """Reads a sound file forward from one place; a context manager, for one thread.

    Invariant: what is read equals the same stretch of the whole file, decoded from its beginning.
    """

    def __init__(self, info: SoundInfo, start: int = 0) -> None:
        """Open the file of `info` at sample `start`.

        Raises:
            RecordingError: The file cannot be opened any more, or the place cannot be reached.
        """
        self._info = info
        self._position = max(0, start - round(_LEAD_IN.get(info.format, 0.0) * info.rate))
        if info.format == "OGG":
            self._position = max(0, min(self._position, info.frames - round(_OGG_TAIL * info.rate)))
        with decoding(info.path):
            self._file = open_sound(info.path, info.layout)
            if self._position:
                try:
                    self._file.seek(self._position)
                except BaseException:
                    self._file.close()
                    raise
        try:
            while self._position < start:
                self.skip(start - self._position)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SoundReader:
        """Return the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def read(self, samples: int) -> NDArray[np.float32]:
        """Read the next `samples` samples, mono.

        Raises:
            RecordingError: They cannot be decoded, or are not numbers.
        """
        out = np.empty(samples, np.float32)
        done = 0
        while done < samples:
            block = self.read_channels(samples - done)
            out[done : done + len(block)] = down_mix(block, self._info.weights)
            done += len(block)
        return out

    def read_channels(self, samples: int) -> NDArray[np.float32]:
        """Read up to `samples` samples as `[samples, channels]`, without NaN and infinity.

        Raises:
            RecordingError: They cannot be decoded, or are not on a scale of -1 to 1.
        """
        block = self._block(samples)
        if not np.abs(block).max() <= _LOUDEST:
            block = np.where(np.isfinite(block), block, np.float32(0))
            check_samples(block, self._position - len(block), self._info.rate, self._info.path)
        return block

    def skip(self, samples: int) -> int:
        """Decode and drop up to `samples` samples, whatever they are; how many there were in one go.

        Raises:
            RecordingError: They cannot be decoded.
        """
        return len(self._block(samples))

    def _block(self, samples: int) -> NDArray[np.float32]:
        samples = min(samples, max(1, _BLOCK // self._info.channels))
        with decoding(self._info.path, self._position / self._info.rate):
            block = self._file.read(samples, dtype="float32", always_2d=True)
        if len(block) == 0:
            raise RecordingError(
                f"the recording {self._info.path} can only be read up to "
                f"{self._position / self._info.rate:.2f} s of {self._info.duration:.2f} s"
            )
        self._position += len(block)
        return block


@contextmanager
def decoding(path: str, seconds: float | None = None) -> Iterator[None]:
    """Turn what libsndfile raises into a RecordingError that names the file and the place."""
    import soundfile

    try:
        yield
    except (soundfile.SoundFileError, OSError) as error:
        place = "" if seconds is None else f" at {seconds:.2f} s"
        raise RecordingError(f"the recording {path} cannot be decoded{place}: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Why libsndfile refuses a file, in its words."""
    text = str(getattr(error, "error_string", None) or error).strip().rstrip(".")
    if "possibly a pipe" in text:  # what libsndfile says of a text called .mp3
        text = "Format not recognised"
    return text.removeprefix("Error :").strip() or type(error).__name__


def open_sound(
    path: str, layout: Layout | None = None
) -> Any:  # soundfile ships no type information for a subclass
    """Open a file with libsndfile so that it reads on where it is; a `soundfile.SoundFile`.

    Raises:
        soundfile.SoundFileError: libsndfile cannot read it.
        TypeError: It is called .raw, which soundfile takes for samples without a header.
        OSError: It cannot be opened.
    """
    import soundfile

    class _Sequential(soundfile.SoundFile):
        """A file that soundfile believes it cannot seek, so that it does not seek after every read."""

        def seekable(self) -> bool:
            return False

        def close(self) -> None:
            super().close()
            if laid_out is not None:
                laid_out.close()

    laid_out: Any = None if layout is None else LaidOutFile(path, layout)
    if laid_out is not None:
        try:
            return _Sequential(laid_out)
        except BaseException:
            laid_out.close()
            raise
    # soundfile takes names that are UTF-8 only; bytes it hands on as they are
    name: Any = path if os.name == "nt" else os.fsencode(path)
    return _Sequential(name)
