"""A recording: a file or an array that gives out stretches of itself, reading no more than the stretch.

What comes out is float32 mono `[samples]` at the rate that is asked for. A stretch lies on the grid that
`echo_agent.references` describes: it is exactly that slice of the whole recording read at the same rate, to
float rounding where it was resampled (edges are read with a margin, and thrown away again).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from echo_agent import transforms
from echo_agent.containers import DecodedFile, decode
from echo_agent.errors import RecordingError
from echo_agent.files import FileStamp, local_file, sha256_of
from echo_agent.references import MEMORY, AudioRef, samples_of_span
from echo_agent.soundfiles import SoundInfo, SoundReader, UnreadableError, check_rate, check_samples, inspect
from echo_agent.transforms import Samples, Transform

__all__ = ["AudioRef", "Recording", "Transform", "is_silent", "rms_db", "wav_bytes"]

_CHUNK_SECONDS = 30.0
"""Long stretches are resampled in pieces of this length, so that only the result grows with the stretch."""
_MOST_CHANNELS = 64
_FULL_SCALE = {"int8": 128.0, "int16": 32768.0, "int32": 2147483648.0, "uint8": 128.0}


class _Reader(Protocol):
    """Reads forward from one place."""

    def read(self, samples: int) -> Samples:
        """The next samples."""
        ...


class _ArrayReader:
    def __init__(self, samples: Samples, start: int) -> None:
        self._samples, self._position = samples, start

    def read(self, samples: int) -> Samples:
        self._position += samples
        return self._samples[self._position - samples : self._position]


class Recording:
    """The audio that a question is about.

    Make one with `open`, `from_array` or `from_bytes`; use it from any thread.

    Example:
        >>> recording = Recording.open("talk.flac")  # doctest: +SKIP
        >>> recording.read(12.4, 15.0, rate=16000).shape  # doctest: +SKIP
        (41600,)
    """

    name: str
    """What to call it in messages: a file's name, or what the caller said."""
    source: str
    """Absolute path of its file, or "memory:" and the first 16 digits of its hash."""
    rate: int
    """Its own sampling rate, Hz."""
    channels: int
    """Its number of channels; what is read is their mean."""
    frames: int
    """Samples per channel."""

    def __init__(
        self,
        *,
        name: str,
        source: str,
        info: SoundInfo,
        stamp: FileStamp | None = None,
        samples: Samples | None = None,
        sha256: str | None = None,
        decoded: DecodedFile | None = None,
    ) -> None:
        """Internal: `open`, `from_array` and `from_bytes` make recordings."""
        self.name, self.source = name, source
        self.rate, self.channels, self.frames = info.rate, info.channels, info.frames
        self._info, self._stamp, self._samples, self._sha256 = info, stamp, samples, sha256
        self._decoded = decoded  # the temporary wav lives as long as the recordings that read it

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Recording:
        """Open a local sound file.

        wav, flac, ogg, mp3 and what else libsndfile reads is read in place; m4a, aac, mp4, webm and the rest
        is decoded once by ffmpeg into a temporary file.

        Raises:
            RecordingError: It is no local file, is empty, cut off or damaged, or cannot be decoded; the
            message says
                which, and what to do.
        """
        file = local_file(path)
        stamp = FileStamp.of(file)
        decoded = None
        try:
            info = inspect(stamp)
        except UnreadableError as error:
            decoded = decode(stamp, str(error))
            info = inspect(FileStamp.of(decoded.path))
        return cls(name=file.name, source=str(file), info=info, stamp=stamp, decoded=decoded)

    @classmethod
    def from_array(cls, samples: ArrayLike, rate: int, name: str = "array") -> Recording:
        """Wrap samples; they are copied.

        Args:
            samples: Floats on a scale of -1 to 1, or integers of 8, 16 or 32 bits, which are scaled to it.
                One axis of samples, or two, the shorter of which is taken for the channels.
            rate: Samples per second.
            name: What to call it in messages.

        Raises:
            RecordingError: Shape, type, rate or a value is not that of a waveform.
        """
        rate = check_rate(rate, name)
        wave, channels = _mono(samples, rate, name)
        wave.flags.writeable = False
        digest = hashlib.sha256(f"float32 mono {rate} Hz\n".encode())
        digest.update(wave.data)
        sha256 = digest.hexdigest()
        source = MEMORY + sha256[:16]
        info = SoundInfo(source, len(wave), rate, channels, "array")
        return cls(name=name, source=source, info=info, samples=wave, sha256=sha256)

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "audio") -> Recording:
        """Decode a sound file's bytes, such as an upload, and keep its samples in memory.

        Raises:
            RecordingError: As for `open`.
        """
        if not data:
            raise RecordingError(f"{name} is empty (0 bytes)")
        with tempfile.TemporaryDirectory(prefix="echo-agent-") as folder:
            path = Path(folder) / "upload"
            path.write_bytes(data)
            try:
                opened = cls.open(path)
                return cls.from_array(opened.read(rate=opened.rate), opened.rate, name)
            except RecordingError as error:
                raise RecordingError(str(error).replace(str(path), name)) from error

    def __repr__(self) -> str:
        """Name, length, rate and channels."""
        return f"Recording({self.name!r}, {self.duration:.3f} s, {self.rate} Hz, {self.channels} ch)"

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate

    @property
    def nbytes(self) -> int:
        """Bytes of samples that it holds in memory; 0 for a file."""
        return 0 if self._samples is None else self._samples.nbytes

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes, or of the array's samples and rate; computed when first asked for."""
        if self._sha256 is None:
            assert self._stamp is not None  # only files are hashed late
            if FileStamp.of(self.source) != self._stamp:
                raise RecordingError(
                    f"the recording {self.source} changed after it was opened; open it again"
                )
            self._sha256 = sha256_of(self._stamp)
        return self._sha256

    def ref(
        self, start: float = 0.0, end: float | None = None, transform: Transform | None = None
    ) -> AudioRef:
        """Refer to a span of this recording; see `AudioRef.span`.

        Raises:
            RecordingError: The span does not lie within the recording.
        """
        whole = AudioRef(
            source=self.source, sha256=self.sha256, duration=self.duration, start=0.0, end=self.duration
        )
        return whole.span(start, end, transform)

    def read(self, start: float = 0.0, end: float | None = None, rate: int = 16_000) -> Samples:
        """Read a span, and no more of the file than that.

        Args:
            start: Seconds.
            end: Seconds; None is the end.
            rate: Wanted sampling rate, Hz.

        Returns:
            float32 mono `[round(end * rate) - round(start * rate)]`, at least one sample: the same slice of
            the whole recording at that rate.

        Raises:
            RecordingError: The span does not lie within the recording, or the file changed or cannot be
                decoded there.
        """
        rate = check_rate(rate, self.name)
        end = self.duration if end is None else end
        if not 0 <= start < end <= self.duration:
            raise RecordingError(
                f"a span of {self.name} needs 0 <= start < end <= {self.duration:.3f} s, "
                f"got {start:g} to {end:g} s"
            )
        self.check_unchanged()
        first, last = samples_of_span(start, end, self.duration, rate)
        if rate == self.rate:
            with self._reader(first) as reader:
                samples = reader.read(last - first)
            return samples if samples.flags.owndata else samples.copy()
        return self._read_resampled(first, last, rate)

    def crop(self, ref: AudioRef, rate: int = 16_000) -> Samples:
        """Hear what `ref` refers to: its span, through its transform.

        Returns:
            float32 mono `[ref.samples(rate)]`.

        Raises:
            RecordingError: `ref` refers to another recording, or reading fails.
        """
        if ref.sha256 != self.sha256:
            raise RecordingError(f"the reference {ref.key()} is not to {self.name}: their contents differ")
        return transforms.apply(self.read(ref.start, ref.end, rate), rate, ref.transform)

    def check_unchanged(self) -> None:
        """Make sure that the file is still the one that was opened; nothing to do for samples in memory.

        A file that was merely touched or copied back is hashed again and accepted.

        Raises:
            RecordingError: It is gone, or its content is another.
        """
        if self._stamp is None:
            return
        now = FileStamp.of(self.source)
        if now == self._stamp:
            return
        if self._sha256 is None or sha256_of(now) != self._sha256:
            raise RecordingError(f"the recording {self.source} changed after it was opened; open it again")
        self._stamp = now

    @contextmanager
    def _reader(self, start: int) -> Iterator[_Reader]:
        if self._samples is not None:
            yield _ArrayReader(self._samples, start)
        else:
            with SoundReader(self._info, start) as reader:
                yield reader

    def _read_resampled(self, first: int, last: int, rate: int) -> Samples:
        """Samples `first` to `last` on the grid of `rate`, in pieces whose edges are read with a margin.

        Each piece begins where both grids have a sample, so that the resampler sees it as it would see the
        whole.
        """
        shared = math.gcd(self.rate, rate)
        down, up = self.rate // shared, rate // shared
        margin = transforms.resample_margin(self.rate, rate)
        piece = max(1, round(_CHUNK_SECONDS * rate))
        out = np.zeros(last - first, np.float32)
        begin = max(0, (first * down // up - margin) // down * down)
        held = np.zeros(0, np.float32)  # samples from `begin` on that have been read
        with self._reader(begin) as reader:
            for at in range(first, last, piece):
                stop = min(at + piece, last)
                start = max(0, (at * down // up - margin) // down * down)
                end = min(self.frames, -(-stop * down // up) + margin)
                held = held[start - begin :]
                begin = start
                held = np.concatenate([held, reader.read(max(0, end - begin - len(held)))])
                offset = begin // down * up
                got = transforms.resample(held, self.rate, rate)[at - offset : stop - offset]
                out[at - first : at - first + len(got)] = got
        return out


def rms_db(samples: Samples) -> float:
    """Level of a waveform in dB of full scale (a full-scale square wave has 0); never less than -120."""
    if samples.size == 0:
        return -120.0
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(-120.0, 10.0 * math.log10(power)) if power > 0 else -120.0


def is_silent(samples: Samples, below_db: float = -60.0) -> bool:
    """Whether the level of a waveform lies below `below_db` dB of full scale."""
    return rms_db(samples) < below_db


def wav_bytes(samples: Samples, rate: int) -> bytes:
    """A waveform as the bytes of a 16-bit wav file, such as a message to another model carries."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _mono(samples: ArrayLike, rate: int, name: str) -> tuple[Samples, int]:
    """Check and scale an array; its mean over the channels, as memory of its own, and their number."""
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
    wave = array if array.ndim == 1 else array.mean(axis=1, dtype=np.float64)
    return np.array(wave, dtype=np.float32, order="C"), channels
