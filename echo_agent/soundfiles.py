"""Reads wav, flac, ogg, mp3 and their relatives with libsndfile, which seeks: a crop reads only the crop.

Waveforms come out as float32 mono `[samples]` (the mean of the channels) at the file's own rate. Four habits
of libsndfile 1.2.2 and of the soundfile package, all measured, are met here, so that a stretch read by
seeking is the same stretch of the whole, sample for sample:

- soundfile seeks after *every* read of a seekable file. In an mp3 that loses the bit reservoir, and reading
  in blocks gives other samples (off by up to 0.4). `_Sequential` tells it not to.
- A seek into an mp3 needs some frames before the target to be decoded too; in an Ogg file a seek into the
  last page lands up to 12 ms off. So reading starts early (`_LEAD_IN`, `_OGG_TAIL`) and what was not asked
  for is dropped.
- It believes headers: an mp3 that holds more than its header says is cut, a truncated file is silently short,
  a flac that was written to a pipe has 2^63 - 1 samples, and of Ogg files put one after the other it reads
  the first. `inspect` finds the true length, refuses what is cut off, and hands on (`UnreadableError`) what
  ffmpeg reads better.
- It reads NaN and infinity from float files. Those are refused, with their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echo_agent.errors import RecordingError
from echo_agent.files import FileStamp, Remembered
from echo_agent.mpeg import count_frames

__all__ = ["SoundInfo", "SoundReader", "UnreadableError", "check_rate", "check_samples", "inspect"]

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Sampling rates that recordings have; a header that says otherwise is wrong."""

_BLOCK = 1 << 16
_UNKNOWN_FRAMES = 1 << 62
_LEAD_IN = {"MP3": 10.0, "OGG": 2.0}
"""Seconds decoded before a crop, by format. mp3 needs 0.5; ten cost 40 ms and spare short recordings the
complaints that mpg123 prints to stderr after a seek."""
_OGG_TAIL = 16.0
"""Seconds at the end of an Ogg file that are never seeked into: more than a last page holds."""
_HEADER_BYTES = 1024
"""A file of no samples that is larger than this holds more than a header."""
_LOUDEST = 64.0
"""Level beyond which samples are not a waveform of full scale 1 any more (36 dB over it)."""
_CUT_SIZE = re.compile(r"(data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+)\s*\(should be (\d+)\)")
_STREAMED_SIZE = 0x7FFF_0000
"""Sizes from here on in a file that is smaller stand for "not known": it was written to a pipe."""


class UnreadableError(Exception):
    """libsndfile cannot read this file, or not all of it; the message says why. Another decoder may."""


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

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate


_known: Remembered[SoundInfo] = Remembered()


def inspect(stamp: FileStamp) -> SoundInfo:
    """Open a file, find its true length and make sure that all of it is there.

    Raises:
        UnreadableError: libsndfile cannot read it, or would drop a part of it.
        RecordingError: It is cut off, holds no samples, an impossible rate, or samples that are no numbers.
    """
    known = _known.get(stamp)
    if known is None:
        known = _inspect(stamp.path)
        _known.put(stamp, known)
    return known


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
        with _decoding(info.path):
            self._file = _open(info.path)
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
            block = self._block(min(_BLOCK, samples - done))
            check_samples(block, self._position - len(block), self._info.rate, self._info.path)
            out[done : done + len(block)] = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
            done += len(block)
        return out

    def skip(self, samples: int) -> int:
        """Decode and drop up to `samples` samples, whatever they are; how many there were in one go.

        Raises:
            RecordingError: They cannot be decoded.
        """
        return len(self._block(min(_BLOCK, samples)))

    def _block(self, samples: int) -> NDArray[np.float32]:
        with _decoding(self._info.path, self._position / self._info.rate):
            block = self._file.read(samples, dtype="float32", always_2d=True)
        if len(block) == 0:
            raise RecordingError(
                f"the recording {self._info.path} can only be read up to "
                f"{self._position / self._info.rate:.2f} s of {self._info.duration:.2f} s; it is damaged"
            )
        self._position += len(block)
        return block


@contextmanager
def _decoding(path: str, seconds: float | None = None) -> Iterator[None]:
    """Turn what libsndfile raises into a RecordingError that names the file and the place."""
    import soundfile

    try:
        yield
    except (soundfile.SoundFileError, OSError) as error:
        place = "" if seconds is None else f" at {seconds:.2f} s"
        raise RecordingError(f"the recording {path} cannot be decoded{place}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(getattr(error, "error_string", None) or error).strip().rstrip(".")
    if "possibly a pipe" in text:  # what libsndfile says of a text called .mp3
        text = "Format not recognised"
    return text.removeprefix("Error :").strip() or type(error).__name__


def _open(path: str) -> Any:  # soundfile ships no type information that holds for a subclass made at run time
    import soundfile

    class _Sequential(soundfile.SoundFile):
        """A file that soundfile believes it cannot seek, so that it does not seek after every read."""

        def seekable(self) -> bool:
            return False

    return _Sequential(path)


def _inspect(path: str) -> SoundInfo:
    import soundfile

    try:
        with _open(path) as file:
            info = SoundInfo(path, file.frames, file.samplerate, file.channels, file.format)
            subtype, log = str(file.subtype), str(file.extra_info)
    except TypeError as error:  # soundfile takes the name's ending .raw for headerless samples
        raise RecordingError(
            f"{path} holds raw samples without a header, so neither rate nor format is known; "
            "convert it to wav, or read it with numpy and use Recording.from_array"
        ) from error
    except (soundfile.SoundFileError, OSError) as error:
        raise UnreadableError(f"libsndfile says: {_reason(error)}") from error
    check_rate(info.rate, path)
    info = _true_length(info, subtype, log)
    if info.frames <= 0:
        if (
            Path(path).stat().st_size > _HEADER_BYTES
        ):  # a recorder that was switched off before it wrote the lengths
            raise UnreadableError("its header says that it holds no samples")
        raise RecordingError(f"the recording {path} holds no samples")
    if subtype in ("FLOAT", "DOUBLE"):
        with SoundReader(info) as reader:
            left = info.frames
            while left:
                left -= len(reader.read(min(_BLOCK, left)))
    return info


def _true_length(info: SoundInfo, subtype: str, log: str) -> SoundInfo:
    """Correct `info.frames`, or raise where the file is cut off or libsndfile would drop some of it."""
    if info.format == "MP3":
        return _mp3_length(info)
    if info.frames >= _UNKNOWN_FRAMES or subtype.startswith("MPEG"):  # not stated, or only estimated
        return _with_frames(info, _count(info))
    if info.format == "OGG" and _is_chained(info.path):
        raise UnreadableError(
            "it is several Ogg streams one after the other, and libsndfile reads the first only"
        )
    for label, promised, there in _CUT_SIZE.findall(log):
        counts = label in ("data", "SSND", "Data Size") or info.format in ("W64", "RF64")
        if counts and int(there) < int(promised) < _STREAMED_SIZE:
            raise _cut_off(info, info.duration, info.duration * int(promised) / max(1, int(there)))
    if info.format != "OGG" and info.frames > 0 and not _end_is_there(info):
        raise _cut_off(info, _count(info) / info.rate, info.duration)
    return info


def _mp3_length(info: SoundInfo) -> SoundInfo:
    try:
        found = count_frames(info.path)
    except OSError as error:
        raise RecordingError(
            f"the recording {info.path} cannot be read: {error.strerror or error}"
        ) from error
    if found is None:  # layer I or II
        return _with_frames(info, _count(info))
    if found.promised is not None and found.promised > found.frames + 1:
        raise _cut_off(info, found.samples / info.rate, found.promised * found.samples_per_frame / info.rate)
    # The encoder's delay and padding, which the decoder takes off, come to less than five frames.
    if found.samples > info.frames + 5 * found.samples_per_frame:
        raise UnreadableError(
            f"it holds {found.samples / info.rate:.2f} s of sound but libsndfile, led by its header, would "
            f"read only {info.duration:.2f} s"
        )
    info = _with_frames(info, min(info.frames, found.samples))
    return info if info.frames == 0 or _end_is_there(info) else _with_frames(info, _count(info))


def _with_frames(info: SoundInfo, frames: int) -> SoundInfo:
    return SoundInfo(info.path, frames, info.rate, info.channels, info.format)


def _end_is_there(info: SoundInfo) -> bool:
    left = min(info.frames, info.rate // 10 + 1)
    try:
        with SoundReader(info, info.frames - left) as reader:
            while left:
                left -= reader.skip(left)
    except RecordingError:
        return False
    return True


def _count(info: SoundInfo) -> int:
    """Decode from the beginning and count the samples per channel until nothing more comes."""
    import soundfile

    frames = 0
    with _decoding(info.path), _open(info.path) as file:
        try:
            while read := len(file.read(_BLOCK // 16, dtype="float32", always_2d=True)):
                frames += read
        except soundfile.SoundFileError:  # damaged from here on; the caller says so
            pass
    return frames


def _cut_off(info: SoundInfo, there: float, promised: float) -> RecordingError:
    return RecordingError(
        f"the recording {info.path} is cut off: {there:.2f} s of the {promised:.2f} s that its header "
        "promises can be read. Get the whole file, or save the part that is there as a file of its own"
    )


def _is_chained(path: str) -> bool:
    """Whether a first page of an Ogg stream stands after the head of the file."""
    page = re.compile(rb"OggS\x00([\x00-\x07])")
    begun, tail = False, b""
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                data = tail + block
                for found in page.finditer(data):
                    first = bool(found[1][0] & 2)
                    if first and begun:
                        return True
                    begun = begun or not first
                tail = data[-5:]  # shorter than the six bytes looked for, so none is met twice
    except OSError as error:
        raise RecordingError(f"the recording {path} cannot be read: {error.strerror or error}") from error
    return False
