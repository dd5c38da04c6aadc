"""How many bytes a file should have, by what its own outermost header says: it is cut off if it has fewer.

The length in seconds that a decoder tells is of no use there: of a file that is cut off, ffmpeg often estimates it from
what is left. Bytes are stated by wav, avi and their relatives, aiff, caf, asf (wma), mp4 (m4a, mov, 3gp), Matroska
(webm), mmf, voc, sox and adx. Ogg has marks of its own (`echo_agent.audio.ogg`), and raw streams say nothing.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable

from echo_agent.audio.layouts import CUT_OFF, LEAST_MISSING, is_name, skip_tags, stands_for_unknown

__all__ = ["note_of_missing", "stated_size"]

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_HEADER = 1 << 16
_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"pnot")
_MOST_CHUNKS = 100_000
"""Chunks that are walked over; a film in fragments has a few thousand."""


def note_of_missing(path: str, seconds: float, notes: tuple[str, ...]) -> tuple[str, ...]:
    """What is to be said of a file that is cut off, and of which nothing in `notes` says so; it holds `seconds`.

    Raises:
        OSError: The file cannot be read.
    """
    if any(note.startswith(CUT_OFF) for note in notes):
        return ()
    there, stated = os.path.getsize(path), stated_size(path) or 0
    if seconds * (stated - there) / there < LEAST_MISSING:
        return ()
    return (
        f"{CUT_OFF}: {there} of the {stated} bytes that its header promises are there; heard is what is there",
    )


def stated_size(path: str) -> int | None:
    """Bytes that the file at `path` should have at least; None where it does not say, or says that it does not know.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = skip_tags(data)
        for is_kind, stated in _KINDS:
            if is_kind(data[start : start + 32]):
                try:
                    return stated(data, start)
                except (struct.error, IndexError):  # it ends within its header
                    return None
    return None


def _riff(data: mmap.mmap, start: int) -> int | None:
    """Of several such chunks, as a large avi has them, the last counts."""
    order = "<" if data[start : start + 4] == b"RIFF" else ">"
    at = start
    for _ in range(_MOST_CHUNKS):
        size = struct.unpack(order + "I", data[at + 4 : at + 8])[0]
        if size == 0 or stands_for_unknown(size):
            return None
        at += 8 + size
        if data[at : at + 4] != data[start : start + 4]:
            return at
    return None


def _caf(data: mmap.mmap, start: int) -> int | None:
    at = start + 8
    while at + 12 <= len(data) and is_name(data[at : at + 4]):
        size = struct.unpack(">q", data[at + 4 : at + 12])[0]
        if size < 0:
            return None
        at += 12 + size
    return at


def _asf(data: mmap.mmap, start: int) -> int | None:
    at = data.find(_ASF_PROPERTIES, start, start + _ASF_HEADER)
    if at < 0:
        return None
    size, flags = struct.unpack("<Q", data[at + 40 : at + 48])[0], data[at + 88]
    return None if flags & 1 else start + size  # what is broadcast knows no size


def _boxes(data: mmap.mmap, start: int) -> int | None:
    at = start
    for _ in range(_MOST_CHUNKS):
        if at + 16 > len(data):
            return at
        size = struct.unpack(">I", data[at : at + 4])[0]
        if size == 1:
            size = struct.unpack(">Q", data[at + 8 : at + 16])[0]
        if size < 8 or not is_name(data[at + 4 : at + 8]):  # the last box of all says 0
            return None
        at += size
    return None


def _matroska(data: mmap.mmap, start: int) -> int | None:
    at = start + 4
    size, width = _vint(data, at)
    at += width + size
    if data[at : at + 4] != b"\x18\x53\x80\x67":
        return None
    size, width = _vint(data, at + 4)
    return None if size == (1 << 7 * width) - 1 else at + 4 + width + size


def _vint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of Matroska, and how many bytes it takes."""
    width = 9 - data[at].bit_length()
    if width > 8:
        raise IndexError
    return int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1), width


def _mmf(data: mmap.mmap, start: int) -> int | None:
    return start + 8 + struct.unpack(">I", data[start + 4 : start + 8])[0]


def _voc(data: mmap.mmap, start: int) -> int | None:
    at = start + struct.unpack("<H", data[start + 20 : start + 22])[0]
    for _ in range(_MOST_CHUNKS):
        if at >= len(data) or data[at] == 0:
            return at
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "little")
    return None


def _sox(data: mmap.mmap, start: int) -> int | None:
    order = "<" if data[start : start + 4] == b".SoX" else ">"
    header, samples = struct.unpack(order + "IQ", data[start + 4 : start + 16])
    return start + 4 + header + 4 * samples if samples else None


def _adx(data: mmap.mmap, start: int) -> int | None:
    offset, _, frame, bits, channels = struct.unpack(">HBBBB", data[start + 2 : start + 8])
    samples = struct.unpack(">I", data[start + 12 : start + 16])[0]
    per_frame = (frame - 2) * 8 // max(1, bits)
    if per_frame <= 0 or not samples:
        return None
    return start + offset + 4 + -(-samples // per_frame) * frame * channels


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[mmap.mmap, int], int | None]], ...] = (
    (lambda head: head[:4] in (b"RIFF", b"RIFX", b"FORM"), _riff),
    (lambda head: head.startswith(b"caff"), _caf),
    (lambda head: head.startswith(_ASF), _asf),
    (lambda head: head[4:8] in _BOXES, _boxes),
    (lambda head: head.startswith(b"\x1a\x45\xdf\xa3"), _matroska),
    (lambda head: head.startswith(b"MMMD"), _mmf),
    (lambda head: head.startswith(b"Creative Voice File\x1a"), _voc),
    (lambda head: head[:4] in (b".SoX", b"XoS."), _sox),
    (lambda head: head.startswith(b"\x80\0") and len(head) > 16, _adx),
)
