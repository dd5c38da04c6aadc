"""Finds out where the samples of a wav, aiff, au or caf file really lie.

Headers are written before the sound is known. A server that streams writes a placeholder for the length, a
recorder that is killed leaves 0, others count the header into it, a speech server sends the header of its first
chunk and then more, or joins whole files. libsndfile believes what is written: it drops what lies behind, or finds
nothing. `find_layout` looks at the file itself, and where its lengths do not add up it says which bytes are sound.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator

from echo_agent.audio.layouts import (
    LEAST_BEHIND,
    LEAST_MISSING,
    TAGS,
    Layout,
    cut_off,
    is_name,
    skip_tags,
    stands_for_unknown,
)
from echo_agent.audio.riff import riff_layout

__all__ = ["find_layout"]


def find_layout(path: str) -> Layout | None:
    """The layout of the file at `path`; None where its header is right or it is another kind of file.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = skip_tags(data)
        kind = data[start : start + 4]
        if kind in (b".snd", b"dns."):
            return _au(data, start)
        if kind == b"caff":
            return _caf(data, start)
        return riff_layout(data, start)


def _au(data: mmap.mmap, start: int) -> Layout | None:
    if len(data) < start + 24:
        return None
    order = ">" if data[start : start + 4] == b".snd" else "<"
    offset, size, encoding, rate, channels = struct.unpack(order + "5I", data[start + 4 : start + 24])
    body, width = start + offset, {1: 1, 27: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8}.get(encoding, 0)
    left = len(data) - body
    if offset < 24 or left <= 0 or size == 0xFFFFFFFF or size == left:
        return None
    per_second = width * rate * channels
    sound = left / per_second if per_second else 0.0
    notes: list[str] = []
    if size > left and not stands_for_unknown(size) and per_second:
        if (size - left) / per_second >= LEAST_MISSING:
            notes.append(cut_off(sound, size / per_second))
    if 0 < size < left:
        if data[body + size : body + size + 16].startswith(TAGS):
            return None
        # whole files put one after the other: the heads of the others are left out
        more = [
            found.start()
            for found in re.finditer(re.escape(data[start : start + 8]), data)
            if found.start() > body
        ]
        ends = [*more, len(data)]
        starts = [body, *(each + offset for each in more)]
        pieces = tuple((a, b - a) for a, b in zip(starts, ends, strict=True) if b > a)
        behind = (sum(length for _, length in pieces) - size) / per_second if per_second else 0.0
        if per_second and behind < LEAST_BEHIND:
            return None
        said = f"{behind:.2f} s more follow" if per_second else "more follows"
        known = f"{size / per_second:.2f} s" if per_second else f"{size} bytes"
        notes.append(f"its header speaks of {known} of sound, but {said}; they are heard too")
    else:
        pieces = ((body, left),)
    head = data[start : start + 8] + b"\xff\xff\xff\xff" + data[start + 12 : body]
    return Layout(head, pieces, tuple(notes))


def _caf_chunks(data: mmap.mmap, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content and stated size of each chunk, up to the one that holds the sound."""
    at = start + 8
    while at + 12 <= len(data):
        name, size = data[at : at + 4], struct.unpack(">q", data[at + 4 : at + 12])[0]
        yield name, at + 12, size
        if name == b"data" or size < 0:
            return
        at += 12 + size


def _caf(data: mmap.mmap, start: int) -> Layout | None:
    per_second, body, size = 0.0, 0, -1
    for name, at, stated in _caf_chunks(data, start):
        if name == b"desc" and len(data) >= at + 32:
            rate, _, _, packet, frames = struct.unpack(">d4sIII", data[at : at + 24])
            per_second = rate * packet / frames if frames else 0.0
        if name == b"data":
            body, size = at, stated
    left = len(data) - body
    if not body or size == left or per_second <= 0 or not 4 < left:
        return None
    notes: tuple[str, ...] = ()
    if size == -1:  # not known, which the format allows, but libsndfile does not
        pass
    elif size > left:
        short = (size - left) / per_second
        if short >= LEAST_MISSING:
            notes = (cut_off((left - 4) / per_second, (size - 4) / per_second),)
    else:
        if is_name(data[body + size : body + size + 4]) or (left - size) / per_second < LEAST_BEHIND:
            return None
        notes = (
            f"its header speaks of {max(0, size - 4) / per_second:.2f} s of sound, but "
            f"{(left - max(4, size)) / per_second:.2f} s more follow; they are heard too",
        )
    head = data[start : body - 8] + struct.pack(">q", left) + data[body : body + 4]
    return Layout(head, ((body + 4, left - 4),), notes)
