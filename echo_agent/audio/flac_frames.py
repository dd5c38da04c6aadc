"""Decodes what is whole of a damaged FLAC file, or of several that were joined, and leaves all of it in its place.

The head of a frame says which sample it begins with. So what follows on a damaged frame is where it was before, and
what was lost is silence. libsndfile decodes each stretch of whole frames; decoders that are given such a file at once
lose frames behind the damage, or give them the wrong time.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from echo_agent.audio.flac import FRAME_HEAD, joined_streams, place_of, stated_samples
from echo_agent.audio.layouts import Layout
from echo_agent.audio.soundfiles import open_sound

__all__ = ["FlacFrames", "find_frames"]

_LEAST_FRAME = 10
"""Bytes that a frame has at least."""
_MOST_DAMAGED = 1000
"""Damaged places after which the rest is not heard: where hardly a frame is whole, there is nothing to hear."""
_SMALL = 64
"""Samples that are read at once where frames differ in length: what was read is lost where the next is damaged."""


@dataclass(frozen=True)
class _Stream:
    """One FLAC file, perhaps of several that were joined."""

    head: bytes
    """Its header, which states no number of samples."""
    frames: tuple[tuple[int, int], ...]
    """Where in the file each frame begins, and which sample it begins with."""
    end: int
    largest: int
    """Samples of the largest frame."""
    block: int
    """Samples of a frame, or a few where they differ."""
    stated: int


class FlacFrames:
    """The frames of a FLAC file."""

    rate: int
    """Samples per second."""
    channels: int
    """Number of channels."""
    stated: int
    """Samples per channel that its headers promise."""

    def __init__(self, path: str, streams: tuple[_Stream, ...]) -> None:
        """Of the file at `path`; `find_frames` finds them."""
        head = streams[0].head
        self._path, self._streams = path, streams
        self.rate = head[18] << 12 | head[19] << 4 | head[20] >> 4
        self.channels = (head[20] >> 1 & 7) + 1
        self.stated = sum(stream.stated for stream in streams)
        self.damaged = 0
        """Places that could not be decoded, known when all blocks have been given."""

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All samples in order, as blocks `[samples, channels]`; silence for what cannot be decoded."""
        self.damaged = 0
        for stream in self._streams:
            yield from self._stream(stream)

    def _stream(self, stream: _Stream) -> Iterator[NDArray[np.float32]]:
        at = 0  # the next sample to give
        for (offset, first), end in zip(stream.frames, _ends(stream), strict=True):
            if first < at:  # decoded with the frame before it
                continue
            if first > at:
                self.damaged += 1
                if self.damaged > _MOST_DAMAGED:
                    return
                for left in range(first - at, 0, -self.rate):
                    yield np.zeros((min(left, self.rate), self.channels), np.float32)
                at = first
            for block in self._run(stream, offset, end):
                yield block
                at += len(block)

    def _run(self, stream: _Stream, offset: int, end: int) -> Iterator[NDArray[np.float32]]:
        """What can be decoded from the frame at `offset` on, up to the first that is damaged, or to `end`."""
        import soundfile

        layout = Layout(stream.head, ((offset, end - offset),))
        try:
            with open_sound(self._path, layout) as file:
                while len(block := file.read(stream.block, dtype="float32", always_2d=True)):
                    yield block
        except soundfile.SoundFileError:
            return


def _ends(stream: _Stream) -> list[int]:
    """For each frame, where the first one that is missing behind it should be: what lies behind is not decoded with it.

    Else the decoder would fill the gap as it sees fit.
    """
    ends = [stream.end]
    for (_, before), (place, first) in reversed([*pairwise(stream.frames)]):
        ends.append(place if first - before > stream.largest else ends[-1])
    return ends[::-1][: len(stream.frames)]


def find_frames(path: str) -> FlacFrames | None:
    """The frames of the file at `path`; None if it is no FLAC file, or one of several kinds of sound.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        streams = tuple(_stream_at(data, begin, end) for begin, end in joined_streams(data))
    kinds = {stream.head[18:21] for stream in streams}
    if len(kinds) > 1 or not any(stream.frames for stream in streams):
        return None
    found = FlacFrames(path, streams)
    return found if found.rate else None


def _stream_at(data: mmap.mmap, start: int, end: int) -> _Stream:
    """The FLAC file that lies between two places in `data`."""
    info = data[start + 8 : start + 42].ljust(34, b"\0")
    largest = int.from_bytes(info[2:4], "big")
    unknown = bytes([info[13] & 0xF0]) + bytes(20)  # neither a number of samples nor their checksum
    frames: list[tuple[int, int]] = []
    strategy = None
    for found in FRAME_HEAD.finditer(data, start + 42, end):
        at = found.start()
        first = place_of(data[at : at + 16], largest)
        if first is None or (strategy is not None and data[at + 1] != strategy):
            continue
        before = frames[-1] if frames else (start, -1)
        most = (1 + (at - before[0]) // _LEAST_FRAME) * max(largest, 1)
        if before[1] < first <= before[1] + most:  # else two bytes that look like a head and are none
            strategy = data[at + 1]
            frames.append((at, first))
    return _Stream(
        head=b"fLaC\x80\0\0\x22" + info[:13] + unknown,
        frames=tuple(frames),
        end=end,
        largest=largest,
        block=largest if strategy == 0xF8 and largest else _SMALL,
        stated=stated_samples(data, start),
    )
