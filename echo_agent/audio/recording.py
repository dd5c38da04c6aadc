"""A recording: a file or an array that gives out stretches of itself, reading no more than the stretch.

What comes out is float32 mono `[samples]` at the rate that is asked for. A stretch lies on the grid that
`echo_agent.audio.references` describes: it is exactly that slice of the whole recording read at the same rate, to
float rounding where it was resampled (edges are read with a margin, and thrown away again).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from echo_agent.audio import transforms
from echo_agent.audio.arrays import ArrayReader, PaddedReader, Reader, mono
from echo_agent.audio.containers import decode
from echo_agent.audio.decoded import DecodedFile, too_long
from echo_agent.audio.files import FileStamp, local_file, sha256_of, storable
from echo_agent.audio.lengths import UnreadableError, inspect
from echo_agent.audio.references import MEMORY, AudioRef, samples_of_span
from echo_agent.audio.soundfiles import (
    SoundInfo,
    SoundReader,
    check_rate,
)
from echo_agent.audio.temporary import TemporaryFile, writing_temporarily
from echo_agent.audio.transforms import Samples, Transform
from echo_agent.errors import RecordingError
from echo_agent.forks import Lock

if TYPE_CHECKING:
    from pydub import AudioSegment

__all__ = ["AudioRef", "Recording", "Transform", "is_silent", "rms_db", "wav_bytes"]

_CHUNK_SECONDS = 30.0
"""Long stretches are resampled in pieces of this length, so that only the result grows with the stretch."""
MOST_IN_MEMORY = 1 << 30
"""Bytes of samples that `from_bytes` keeps: 1.5 hours at 48 kHz, 4.6 at 16 kHz."""
_switching = Lock()
"""Held while a recording goes over to a decoded copy."""


class Recording:
    """The audio that a question is about.

    Make one with `open`, `from_array`, `from_bytes` or `from_segment`; use it from any thread.

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
    """Its own sampling rate, Hz; at most 48000 where it had to be decoded to a temporary file."""
    channels: int
    """Its number of channels; what is read is their mean, unless they cancel each other out in it."""
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
        self._notes = info.notes
        self._path = (
            source if stamp is None else stamp.path
        )  # of bytes that are no UTF-8, `source` is a spelling

    @classmethod
    def open(cls, path: str | os.PathLike[str], longest: float | None = None) -> Recording:
        """Open a local sound file.

        wav, flac, ogg, mp3 and what else libsndfile reads is read in place; m4a, aac, mp4, webm and the rest
        is decoded once into a temporary file. Of a file that is cut off or damaged, what is there is heard;
        `notes` says so.

        Args:
            path: The file.
            longest: Seconds from which on it is too long to be of use. Such a file is refused by the length that its
                header states, without decoding it, or as soon as so much of it was decoded.

        Raises:
            RecordingTooLongError: It is longer than that.
            RecordingError: It is no local file, is empty, holds no sound, cannot be decoded or unpacks to
                more than there is room for; the message says which, and what to do.
        """
        file = local_file(path)
        stamp = FileStamp.of(file)
        decoded = None
        try:
            info = inspect(stamp)
        except UnreadableError as error:
            decoded = decode(stamp, str(error), error.info, longest)
            info = _of_copy(decoded, error.notes)
        if longest is not None and info.duration > longest:
            raise too_long(str(file), f"{info.duration:.1f} s", longest)
        return cls(
            name=storable(file.name), source=storable(str(file)), info=info, stamp=stamp, decoded=decoded
        )

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
        wave, channels, said = mono(samples, rate, name)
        wave.flags.writeable = False
        digest = hashlib.sha256(f"float32 mono {rate} Hz\n".encode())
        digest.update(wave.data)
        sha256 = digest.hexdigest()
        source = MEMORY + sha256[:16]
        info = SoundInfo(source, len(wave), rate, channels, "array", notes=(said,) if said else ())
        return cls(name=name, source=source, info=info, samples=wave, sha256=sha256)

    @classmethod
    def from_segment(cls, segment: AudioSegment, name: str = "segment") -> Recording:
        """Wrap sound that was opened, cut or mixed with pydub; its samples are copied.

        Args:
            segment: Of any rate, width and number of channels; channels are mixed down.
            name: What to call it in messages.

        Raises:
            RecordingError: It holds no sound.
        """
        samples = np.array(segment.get_array_of_samples(), dtype=f"int{8 * segment.sample_width}")
        return cls.from_array(samples.reshape(-1, segment.channels), segment.frame_rate, name)

    @classmethod
    def from_bytes(
        cls, data: bytes, name: str = "audio", longest: float | None = None, rate: int | None = None
    ) -> Recording:
        """Decode a sound file's bytes, such as an upload, and keep its samples in memory.

        Args:
            data: The file.
            name: What to call it in messages.
            longest: As for `open`.
            rate: Samples per second of what is kept, in Hz; its own by default.

        Raises:
            RecordingTooLongError: It is longer than that.
            RecordingError: As for `open`.
        """
        if not data:
            raise RecordingError(f"{name} is empty (0 bytes)")
        with writing_temporarily(name), closing(TemporaryFile()) as file:
            path = Path(file.shared_path)
            path.write_bytes(data)
            try:
                opened = cls.open(path, longest)
                rate = rate or opened.rate
                if opened.duration * rate * 4 > MOST_IN_MEMORY:
                    raise RecordingError(
                        f"{name} unpacks to {opened.duration / 3600:.1f} hours of sound at {rate} Hz, more "
                        f"than the {MOST_IN_MEMORY / (1 << 30):g} GiB that are kept in memory; "
                        "save it as a file and open that"
                    )
                made = cls.from_array(opened.read(rate=rate), rate, name)
                made._notes = opened.notes
                return made
            except RecordingError as error:
                raise type(error)(str(error).replace(str(path), name)) from error

    def __repr__(self) -> str:
        """Name, length, rate and channels."""
        return f"Recording({self.name!r}, {self.duration:.3f} s, {self.rate} Hz, {self.channels} ch)"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about it, such as that it is cut off: sentences without its name.

        Damage in the middle of a file is found when that place is read, so there may be more later.
        """
        return self._notes

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate

    @cached_property
    def is_silent(self) -> bool:
        """Whether no stretch of half a minute is louder than a quiet room; read up to the first that is.

        Raises:
            RecordingError: As for `read`.
        """
        return all(is_silent(piece) for piece in self.pieces(self.ref(), self.rate))

    @property
    def nbytes(self) -> int:
        """Bytes of samples that it holds in memory; 0 for a file."""
        return 0 if self._samples is None else self._samples.nbytes

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes, or of the array's samples and rate; computed when first asked for."""
        if self._sha256 is None:
            assert self._stamp is not None  # only files are hashed late
            if FileStamp.of(self._path) != self._stamp:
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
        try:
            return self._read(first, last, rate)
        except RecordingError as error:
            if self._decoded is not None or self._stamp is None or not self._decode_damaged(error):
                raise
        return self._read(first, last, rate)

    def _decode_damaged(self, error: RecordingError) -> bool:
        """Have a file decoded in the middle of which libsndfile gives up; whether that made a difference."""
        with _switching:
            if self._decoded is not None:
                return True  # another thread was faster
            mixed = (
                self._info.weights or (1.0 / self.channels,) * self.channels
            )  # noise must not change the mix
            try:
                decoded = decode(FileStamp.of(self._path), str(error), weights=mixed)
            except RecordingError:
                return False
            info = _of_copy(decoded)
            if info.rate != self.rate:
                return False
            missing = max(0, self.frames - info.frames) / self.rate
            note = "it is damaged in the middle; what can be decoded there is heard"
            if missing >= 0.1:
                note += f", and the last {missing:.2f} s are silence"
            self._notes = (*self._notes, note)
            self._info, self._decoded = info, decoded
            return True

    def _read(self, first: int, last: int, rate: int) -> Samples:
        if rate == self.rate:
            with self._reader(first) as reader:
                samples = reader.read(last - first)
            return samples if samples.flags.owndata else samples.copy()
        out = np.zeros(last - first, np.float32)
        at = 0
        for piece in self._stream(first, last, rate, max(1, round(_CHUNK_SECONDS * rate))):
            out[at : at + len(piece)] = piece
            at += len(piece)
        return out

    def _stream(self, first: int, last: int, rate: int, size: int) -> Iterator[Samples]:
        """Samples `first` to `last` on the grid of `rate`, `size` at a time."""
        if rate != self.rate:
            yield from self._resampled(first, last, rate, size)
            return
        with self._reader(first) as reader:
            for at in range(first, last, size):
                samples = reader.read(min(size, last - at))
                yield samples if samples.flags.owndata else samples.copy()

    def crop(self, ref: AudioRef, rate: int = 16_000) -> Samples:
        """Hear what `ref` refers to: its span, through its transform.

        Returns:
            float32 mono `[ref.samples(rate)]`.

        Raises:
            RecordingError: `ref` refers to another recording, or reading fails.
        """
        if ref.sha256 != self.sha256:
            raise RecordingError(f"the reference {ref.key()} is not to {self.name}: their contents differ")
        start, end = ref.on_file
        samples = self.read(start, min(self.duration, end), rate)
        return transforms.apply(samples, rate, ref.transform)

    def pieces(self, ref: AudioRef, rate: int = 16_000, seconds: float = 30.0) -> Iterator[Samples]:
        """The samples of `crop`, untransformed, piece by piece: nothing longer than a piece is ever in memory.

        Args:
            ref: What to hear; its transform must be none.
            rate: Wanted sampling rate, Hz.
            seconds: Length of a piece; the last one may be shorter.

        Raises:
            RecordingError: As for `crop`.
        """
        if ref.sha256 != self.sha256 or not ref.transform.is_identity:
            raise RecordingError(f"the reference {ref.key()} cannot be read from {self.name} piece by piece")
        self.check_unchanged()
        start, end = ref.on_file
        first, last = samples_of_span(
            start, min(self.duration, end), self.duration, check_rate(rate, self.name)
        )
        size = max(1, round(seconds * rate))
        stream = self._stream(first, last, rate, size)
        for at in range(first, last, size):
            try:
                piece = next(stream)
            except RecordingError as error:
                if self._decoded is not None or self._stamp is None or not self._decode_damaged(error):
                    raise
                stream = self._stream(at, last, rate, size)
                piece = next(stream)
            yield piece

    def check_unchanged(self) -> None:
        """Make sure that the file is still the one that was opened; nothing to do for samples in memory.

        A file that was merely touched or copied back is hashed again and accepted.

        Raises:
            RecordingError: It is gone, or its content is another.
        """
        if self._stamp is None:
            return
        now = FileStamp.of(self._path)
        if now == self._stamp:
            return
        if self._sha256 is None or sha256_of(now) != self._sha256:
            raise RecordingError(f"the recording {self.source} changed after it was opened; open it again")
        self._stamp = now

    @contextmanager
    def _reader(self, start: int) -> Iterator[Reader]:
        if self._samples is not None:
            yield ArrayReader(self._samples, start)
        else:
            with SoundReader(self._info, min(start, self._info.frames)) as reader:
                yield (
                    reader
                    if self._info.frames >= self.frames
                    else PaddedReader(reader, self._info.frames - start)
                )

    def _resampled(self, first: int, last: int, rate: int, piece: int) -> Iterator[Samples]:
        """Samples `first` to `last` on the grid of `rate`, in pieces whose edges are read with a margin.

        Each piece begins where both grids have a sample, so that the resampler sees it as it would see the
        whole.
        """
        shared = math.gcd(self.rate, rate)
        down, up = self.rate // shared, rate // shared
        margin = transforms.resample_margin(self.rate, rate)
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
                yield np.pad(got, (0, stop - at - len(got)))


def _of_copy(decoded: DecodedFile, notes: tuple[str, ...] = ()) -> SoundInfo:
    """What a decoded file holds, with the number of channels of the sound that it was made from."""
    return SoundInfo(
        *(decoded.path, decoded.frames, decoded.rate, decoded.channels, "WAV"), notes=(*notes, *decoded.notes)
    )


def rms_db(samples: Samples) -> float:
    """Level of a waveform in dB of full scale (a full-scale square wave has 0); never less than -120."""
    if samples.size == 0:
        return -120.0
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(-120.0, 10.0 * math.log10(power)) if power > 0 else -120.0


def is_silent(samples: Samples, below_db: float = -60.0) -> bool:
    """Whether the level of a waveform lies below `below_db` dB of full scale."""
    return rms_db(samples) < below_db


def wav_bytes(samples: Samples, rate: int, *, exact: bool = False) -> bytes:
    """A waveform as the bytes of a wav file, such as a message to another model carries.

    Args:
        samples: float32 mono.
        rate: Samples per second, in Hz.
        exact: Write the samples as they are, in 32 bits; else in 16 bits, cut off at full scale, which all can read.
    """
    import soundfile

    file = io.BytesIO()
    if exact:
        soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    else:
        soundfile.write(file, np.clip(samples, -1.0, 1.0), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
