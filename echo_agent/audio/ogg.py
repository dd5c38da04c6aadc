"""Walks over the pages of an Ogg file, because libsndfile reads some of them only in part.

It reads the first of several streams, counts time from the beginning of a broadcast that was joined late, and stops
or jumps where a page is missing or damaged. `oddity` says what is unusual about a file, in words; such a file is
decoded by ffmpeg, which keeps to the times on the pages. Reading the page heads and their checksums costs a few
milliseconds per megabyte.
"""

from __future__ import annotations

import mmap
import zlib
from dataclasses import dataclass

__all__ = ["OggPages", "walk_pages"]

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_LARGEST_PACKET = 8192
"""Most samples of a packet; a first page of sound that ends later than its packets last began in a longer stream."""
_MOST_DAMAGED = 1000
"""Damaged pages after which the rest is not walked over: each costs as much as 64 KiB, however close they stand."""
_CODECS = {b"OpusHead": "Opus", b"\x01vorbis": "Vorbis", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex"}


@dataclass(frozen=True)
class OggPages:
    """What the pages of an Ogg file say of it."""

    oddity: str | None
    """Why libsndfile would not read all of it; None if nothing speaks against it."""
    is_chained: bool
    """Whether streams stand one after the other."""
    codecs: tuple[str, ...]
    """The codec of each stream of sound, in the order in which they begin."""
    is_whole: bool
    """Whether each stream of sound has the page that is marked as its last one."""


def _checksum(page: bytes) -> int:
    """The checksum of a page (with zeros in its place): CRC-32 of the unreflected kind."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def walk_pages(path: str) -> OggPages:
    """Walk over the pages of the file at `path`.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _walk(data)


def _walk(data: mmap.mmap) -> OggPages:
    codecs: list[str] = []
    serials: dict[int, int] = {}  # the number of the page that comes next, by stream
    unfinished: set[int] = set()  # streams of sound whose last page has not come
    is_whole = True
    oddity: str | None = None
    sound_began = is_chained = False
    packets = damaged = 0
    at = data.find(b"OggS")
    while 0 <= at and at + 27 <= len(data):
        head = data[at : at + 27]
        table = data[at + 27 : at + 27 + head[26]]
        end = at + 27 + len(table) + sum(table)
        if end > len(data) or len(table) < head[26]:
            break  # the last page is cut short
        page = data[at:end]
        if head[4] or _checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            oddity = oddity or "one of its pages is damaged"
            damaged += 1
            if damaged > _MOST_DAMAGED:
                break
            at = data.find(b"OggS", at + 4)
            continue
        serial, number = int.from_bytes(page[14:18], "little"), int.from_bytes(page[18:22], "little")
        if head[5] & 2:  # a stream begins
            content = page[27 + len(table) :]
            known = [name for magic, name in _CODECS.items() if content.startswith(magic)]
            codecs += known
            if known:
                is_whole = is_whole and serial not in unfinished
                unfinished.add(serial)
            if sound_began:
                is_chained = True
                oddity = "it is several Ogg streams one after the other, and libsndfile reads the first only"
            elif serials:
                oddity = oddity or "it holds several streams side by side"
            sound_began = False
        elif number != serials.get(serial, number):
            oddity = oddity or "some of its pages are missing"
        packets += sum(length < 255 for length in table)
        granule = int.from_bytes(page[6:14], "little", signed=True)
        if not head[5] & 2 and granule > 0:
            if not sound_began and granule > packets * _LARGEST_PACKET:
                oddity = oddity or "it begins in the middle of a longer stream"
            sound_began = True
        if head[5] & 4:
            unfinished.discard(serial)
        serials[serial] = number + 1
        at = end if data[end : end + 4] == b"OggS" else data.find(b"OggS", end)
    return OggPages(oddity, is_chained, tuple(codecs), is_whole and not unfinished)
