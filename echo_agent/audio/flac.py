"""Finds out whether a FLAC file holds more than its header says; libsndfile reads no further than that.

A header that was written before the sound was complete states the length of its first part, and of files that were
joined it states that of the first. The truth stands in the last frame, whose head carries its place.
"""

from __future__ import annotations

import mmap
import re

from echo_agent.audio.layouts import skip_tags

__all__ = ["FRAME_HEAD", "flac_samples", "joined_streams", "place_of", "stated_samples"]

FRAME_HEAD = re.compile(rb"\xff[\xf8\xf9]")
"""How frames begin."""
JOINED = b"fLaC\x00\x00\x00\x22"
"""How a file begins that was put behind another."""
_TAIL = 1 << 20
"""Bytes at the end in which the last frame is looked for: more than the largest frame."""


def flac_samples(path: str) -> tuple[int, int] | None:
    """Samples per channel that a FLAC file states (0: not known), and at least how many its frames hold.

    Files that were joined are added up. None if it is no plain FLAC file.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        streams = joined_streams(data)
        if not streams:
            return None
        return stated_samples(data, streams[0][0]), sum(_last_sample(data, *stream) for stream in streams)


def joined_streams(data: mmap.mmap) -> list[tuple[int, int]]:
    """Where each FLAC file of those that were joined begins and ends; nothing where it is no plain FLAC file."""
    starts = [skip_tags(data)]
    if data[starts[0] : starts[0] + 4] != b"fLaC":
        return []
    while (following := data.find(JOINED, starts[-1] + 4)) >= 0:
        starts.append(following)
    return list(zip(starts, [*starts[1:], len(data)], strict=True))


def stated_samples(data: mmap.mmap, start: int) -> int:
    """Samples per channel that the FLAC file at `start` states; 0 where it does not know."""
    if len(data) < start + 26:
        return 0
    return (data[start + 21] & 15) << 32 | int.from_bytes(data[start + 22 : start + 26], "big")


def _last_sample(data: mmap.mmap, start: int, end: int) -> int:
    """Where the last frame between two places in the file begins, in samples; 0 if there is none."""
    if end - start < 42:
        return 0
    largest = int.from_bytes(data[start + 10 : start + 12], "big")
    low = max(start + 42, end - _TAIL)
    heads = [found.start() + low for found in FRAME_HEAD.finditer(data[low:end])]
    for at in reversed(heads):
        place = place_of(data[at : at + 16], largest)
        if place is not None:
            return place
    return 0


def place_of(head: bytes, largest: int) -> int | None:
    """The number of the first sample of the frame with this head; None if it is no head of a frame."""
    if len(head) < 16 or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    leading = 8 - (head[4] ^ 0xFF).bit_length()
    if leading == 1 or leading > 7:
        return None
    length = max(1, leading)
    number = head[4] & (0x7F >> leading)
    for byte in head[5 : 4 + length]:
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 0x3F
    at, code = 4 + length, head[2] >> 4
    at += {6: 1, 7: 2}.get(code, 0)
    at += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    return (
        number if head[1] & 1 else number * largest
    )  # frames of one length are counted, others give their place


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc
