"""The bytes of a file that are sound, where its header is wrong about them.

`LaidOutFile` shows libsndfile those bytes behind a header that is right; nothing is copied. Which bytes they are finds
`echo_agent.audio.headers`. Offsets and sizes are bytes.
"""

from __future__ import annotations

import io
import mmap
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

__all__ = [
    "CUT_OFF",
    "LEAST_BEHIND",
    "LEAST_MISSING",
    "TAGS",
    "LaidOutFile",
    "Layout",
    "cut_off",
    "is_name",
    "skip_tags",
    "stands_for_unknown",
]

TAGS = (b"TAG", b"APETAGEX", b"ID3", b"LYRICSBEGIN", b"LYRICS200")
"""What players put behind the sound without a chunk around it."""
LEAST_MISSING, LEAST_BEHIND = 0.1, 0.05
"""Seconds of sound from which on it is said that they are missing, or heard though no header speaks of them."""
CUT_OFF = "it is cut off"
"""How the notes begin about a file that holds less than its header promises."""
_ROUND = 1_000_000


@dataclass(frozen=True)
class Layout:
    """The bytes of a file that are sound, and a header that fits them."""

    head: bytes
    pieces: tuple[tuple[int, int], ...]
    """Offset and length of each stretch of sound, in order."""
    notes: tuple[str, ...] = ()
    """What the user should know about it."""

    @property
    def size(self) -> int:
        """Bytes of header and sound together."""
        return len(self.head) + sum(length for _, length in self.pieces)


class LaidOutFile(io.RawIOBase):
    """A file as its layout says that it should be; for reading, by one thread."""

    def __init__(self, path: str | bytes, layout: Layout) -> None:
        """Open the file at `path`."""
        super().__init__()
        self._file = open(path, "rb")
        self._layout, self._position = layout, 0
        lengths = [len(layout.head), *(length for _, length in layout.pieces)]
        self._starts = [0, *accumulate(lengths)][:-1]

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from any place."""
        return True

    def tell(self) -> int:
        """The place from which is read next."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._layout.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: object) -> int:
        """Read as much as fits; how many bytes that was."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        done = 0
        while done < len(view) and self._position < self._layout.size:
            part = bisect_right(self._starts, self._position) - 1
            inside = self._position - self._starts[part]
            if part == 0:
                got = self._layout.head[inside : inside + len(view) - done]
            else:
                offset, length = self._layout.pieces[part - 1]
                self._file.seek(offset + inside)
                got = self._file.read(min(len(view) - done, length - inside))
            if not got:
                break
            view[done : done + len(got)] = got
            done += len(got)
            self._position += len(got)
        return done

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def skip_tags(data: mmap.mmap | bytes) -> int:
    """Where the ID3v2 tags at the head of `data` end; 0 without any."""
    start = 0
    while data[start : start + 3] == b"ID3" and len(head := data[start : start + 10]) == 10:
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | (head[9] & 127)
        start += 10 + size + (10 if head[5] & 0x10 else 0)
    return start


def is_name(name: bytes) -> bool:
    """Whether four bytes can be the name of a chunk."""
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def stands_for_unknown(size: int) -> bool:
    """Whether a length is one that writers put where they do not know it: round, or near 2 or 4 GiB."""
    return size % _ROUND == 0 or any(abs(size - edge) <= 1 << 16 for edge in (1 << 31, 1 << 32))


def cut_off(there: float, promised: float) -> str:
    """The note about a file that holds less than its header promises, in seconds."""
    return (
        f"{CUT_OFF}: {there:.2f} s of the {promised:.2f} s that its header promises are there; "
        "heard is what is there"
    )
