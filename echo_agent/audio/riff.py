"""Walks over the chunks of a wav or aiff file, and finds all of its sound, whatever its lengths say."""

from __future__ import annotations

import mmap
import re
import struct
from dataclasses import dataclass, field

from echo_agent.audio.layouts import (
    LEAST_BEHIND,
    LEAST_MISSING,
    TAGS,
    Layout,
    cut_off,
    is_name,
    stands_for_unknown,
)

__all__ = ["riff_layout"]

_BLOCKS = (0x02, 0x11)
"""The formats MS ADPCM and IMA ADPCM, which state how many samples a block of bytes holds."""
_JOINED = re.compile(rb"(?:RIFF|RIFX|RF64|BW64)[\x00-\xff]{4}WAVE|FORM[\x00-\xff]{4}AIF[FC]", re.DOTALL)


def riff_layout(data: mmap.mmap, start: int) -> Layout | None:
    """The layout of the file that begins at `start`; None where its header is right or it is another kind of file."""
    sound = _Sound()
    try:
        following: int | None = start
        while following is not None:
            following = _walk(data, following, sound)
        return sound.layout()
    except (struct.error, OverflowError):  # a description of the samples that is none
        return None


@dataclass
class _Sound:
    """What a walk over the chunks of a RIFF or FORM file has found so far."""

    magic: bytes = b""
    kind: bytes = b""
    format: bytes = b""
    """The chunk that describes the samples: `fmt ` or `COMM`, without its head."""
    pieces: list[tuple[int, int]] = field(default_factory=list)
    stated: int = 0
    """Bytes of sound that the headers speak of."""
    behind: int = 0
    """Bytes of sound that lie behind what the headers speak of."""
    other: bool = False
    """Whether sound of another format follows."""
    odd: bool = False
    """Whether the file is not what its headers say."""
    placeholder: bool = False
    """Whether a length that it states stands for "not known"."""

    @property
    def big_endian(self) -> bool:
        return self.magic in (b"RIFX", b"FORM")

    def seconds(self, size: int) -> float:
        """How long so many bytes of sound last."""
        if self.magic == b"FORM":
            channels, _, bits = struct.unpack(">hIh", self.format[:8])
            rate = _extended(self.format[8:18])
            per_second = channels * ((bits + 7) // 8) * rate
        else:
            order = ">" if self.big_endian else "<"
            kind, _, rate, per_second, block = struct.unpack(order + "HHIIH", self.format[:14])
            if kind in _BLOCKS and block:  # the bytes per second that it states are often wrong
                per_second = rate * block / max(1, struct.unpack(order + "H", self.format[18:20])[0])
        return size / per_second if per_second > 0 else 0.0

    def frame(self) -> int:
        """Bytes of which sound comes in whole numbers."""
        if self.magic == b"FORM":
            channels, _, bits = struct.unpack(">hIh", self.format[:8])
            return max(1, channels * ((bits + 7) // 8)) if self.kind == b"AIFF" else 1
        return max(1, struct.unpack(">H" if self.big_endian else "<H", self.format[12:14])[0])

    def layout(self) -> Layout | None:
        found = sum(length for _, length in self.pieces)
        if not self.format or not (self.odd or self.other) or found == 0:
            return None
        notes = []
        missing = self.stated - (found - self.behind)
        if not self.placeholder and self.seconds(missing) >= LEAST_MISSING:
            notes.append(cut_off(self.seconds(found), self.seconds(self.stated)))
        if self.behind:
            notes.append(
                f"its header speaks of {self.seconds(found - self.behind):.2f} s of sound, but "
                f"{self.seconds(self.behind):.2f} s more follow; they are heard too"
            )
        if self.other:
            notes.append(
                "a second sound of another format (rate, width or channels) follows in the same file; it is "
                "not heard: split the file to ask about it"
            )
        return Layout(self._head(found), tuple(self.pieces), tuple(notes))

    def _head(self, found: int) -> bytes:
        order = ">" if self.big_endian else "<"
        pad = b"\0" * (len(self.format) & 1)
        described = struct.pack(order + "I", len(self.format)) + self.format + pad
        if self.magic == b"FORM":
            frames = (
                struct.pack(">I", min(found // self.frame(), 0xFFFFFFFF)) if self.kind == b"AIFF" else b""
            )
            if frames:
                described = described[:6] + frames + described[10:]
            sound = b"SSND" + struct.pack(">III", min(found + 8, 0xFFFFFFFF), 0, 0)
            body = self.kind + b"COMM" + described + sound
            return b"FORM" + struct.pack(">I", min(len(body) + found, 0xFFFFFFFF)) + body
        body = b"WAVEfmt " + described
        if found + len(body) + 64 < 1 << 32:
            body += b"data" + struct.pack(order + "I", found)
            return (
                (b"RIFX" if self.big_endian else b"RIFF") + struct.pack(order + "I", len(body) + found) + body
            )
        sizes = b"ds64" + struct.pack("<IQQQI", 28, found + len(body) + 44, found, found // self.frame(), 0)
        return b"RF64\xff\xff\xff\xff" + body[:4] + sizes + body[4:] + b"data\xff\xff\xff\xff"


def _walk(data: mmap.mmap, start: int, sound: _Sound) -> int | None:
    """Walk over the chunks of the file that begins at `start`; where one begins that was put behind it."""
    magic, kind = data[start : start + 4], data[start + 8 : start + 12]
    if not _JOINED.match(data[start : start + 12]):
        return None
    first = not sound.magic
    if first:
        sound.magic, sound.kind = magic, kind
    order = ">" if magic in (b"RIFX", b"FORM") else "<"
    same, wide, at = first or (magic, kind) == (sound.magic, sound.kind), None, start + 12
    seen = False
    while at < len(data):
        name, head = data[at : at + 4], data[at + 4 : at + 8]
        if _JOINED.match(data[at : at + 12]):
            return at
        if len(head) < 4 or not is_name(name):
            if seen:
                return _behind(data, at, sound)
            if not is_name(data[at - 1 : at + 3]):
                return None
            # a chunk of odd length before the sound that has no byte to make it even
            sound.odd, at = True, at - 1
            continue
        size, body = struct.unpack(order + "I", head)[0], at + 8
        if name in (b"fmt ", b"COMM"):
            described = data[body : body + min(size, 4096)]
            if first and not sound.format:
                sound.format = described
            same = same and _describes_same(sound, described)
        elif name == b"ds64" and body + 16 <= len(data):
            wide = struct.unpack("<Q", data[body + 8 : body + 16])[0]
        elif name in (b"data", b"SSND") and sound.format:
            if not same:
                sound.other = True
                return None
            if name == b"SSND":
                size, body = max(0, size - 8), body + 8
            elif wide is not None and size == 0xFFFFFFFF:
                size = wide
            sound.odd = sound.odd or seen or not first
            left = len(data) - body
            unknown = size == 0 and left > 0 and not is_name(data[body : body + 4])
            sound.stated += size
            if unknown or size > left:
                sound.odd = True
                sound.placeholder = sound.placeholder or unknown or stands_for_unknown(size)
                return _until_the_end(data, body, sound)
            if size:
                sound.pieces.append((body, size))
            seen = True
            if size & 1 and is_name(data[body + size : body + size + 4]):
                at = body + size  # no byte makes it even
                continue
        elif body + size > len(data) + 1:
            return _behind(data, at, sound) if seen else None
        at = body + size + (size & 1)
    return None


def _until_the_end(data: mmap.mmap, at: int, sound: _Sound) -> int | None:
    """Take what lies from `at` on for sound, up to the end or to the next file, whose place it returns."""
    following = _JOINED.search(data, at)
    size = (following.start() if following else len(data)) - at
    size -= size % sound.frame()
    if size > 0:
        sound.pieces.append((at, size))
    return following.start() if following else None


def _behind(data: mmap.mmap, at: int, sound: _Sound) -> int | None:
    """What lies behind the last chunk: sound of which no header speaks, if it is long enough and no tag.

    Returns where the next file begins.
    """
    if not sound.pieces:
        return None
    following = _JOINED.search(data, at)
    end = following.start() if following else len(data)
    offset, length = sound.pieces[-1]
    begin = offset + length if at - (offset + length) == 1 else at  # no byte was there to make it even
    is_sound = (
        not data[begin : begin + 16].startswith(TAGS)
        and not data[at : at + 16].startswith(TAGS)
        and sound.seconds(end - begin) >= LEAST_BEHIND
        and any(data[i : min(i + (1 << 20), end)].strip(b"\0") for i in range(begin, end, 1 << 20))
    )
    if is_sound:
        size = end - begin
        sound.odd = True
        sound.pieces.append((begin, size - size % sound.frame()))
        sound.behind += sound.pieces[-1][1]
    return following.start() if following else None


def _describes_same(sound: _Sound, described: bytes) -> bool:
    if sound.magic == b"FORM":  # all but the number of samples
        return described[:2] + described[6:] == sound.format[:2] + sound.format[6:]
    return described[:16] == sound.format[:16]


def _extended(number: bytes) -> float:
    """An 80-bit float of an aiff file."""
    exponent, mantissa = struct.unpack(">HQ", number)
    return mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
