"""Files that recordings come in: which paths are taken, the hash of a file's content, whether it changed.

The hash is the SHA-256 of the file's bytes, streamed in blocks, so a three-hour file costs no memory. It is
remembered by path, size and times: opening the same file again costs one `stat`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from echo_agent.errors import RecordingError
from echo_agent.forks import Lock
from echo_agent.paths import as_on_disk

__all__ = ["FileStamp", "Remembered", "local_file", "storable", "sha256_of"]

T = TypeVar("T")

_BLOCK_BYTES = 1 << 20
_TOO_FRESH_NS = 50_000_000
"""A file changed less than this long ago could change again within one tick of the file system's clock,
unseen; what is learnt about it is not remembered. 50 ms is several ticks."""


@dataclass(frozen=True)
class FileStamp:
    """What tells one state of a file from another without reading it."""

    path: str
    """Absolute path."""
    size: int
    """Length in bytes."""
    modified_ns: int
    """Time of the last change of its content, ns."""
    changed_ns: int
    """Time of the last change of its content or metadata, ns; a program cannot set it back."""
    inode: int
    """Number of the file on its disk, so that a file moved into its place is noticed."""

    @classmethod
    def of(cls, path: str | Path) -> FileStamp:
        """Take the stamp of the file at `path` as it is now.

        Raises:
            RecordingError: The file is gone or cannot be looked at.
        """
        try:
            found = os.stat(path)
        except OSError as error:
            raise RecordingError(
                f"the recording {path} cannot be found any more: {error.strerror}"
            ) from error
        return cls(os.fspath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    @property
    def is_settled(self) -> bool:
        """Whether the file has been left alone long enough for the stamp to stand for its content."""
        return time.time_ns() - max(self.modified_ns, self.changed_ns) > _TOO_FRESH_NS


class Remembered(Generic[T]):
    """A small thread-safe memory of what was learnt about files; the oldest entries are forgotten first."""

    def __init__(self, limit: int = 4096) -> None:
        """Remember at most `limit` states of files."""
        self._limit = limit
        self._known: OrderedDict[FileStamp, T] = OrderedDict()
        self._lock = Lock()

    def get(self, stamp: FileStamp) -> T | None:
        """What is known about the file in this state, or None."""
        with self._lock:
            return self._known.get(stamp)

    def put(self, stamp: FileStamp, fact: T) -> None:
        """Remember `fact`, unless the file is so fresh that its stamp is no proof."""
        if not stamp.is_settled:
            return
        with self._lock:
            self._known[stamp] = fact
            self._known.move_to_end(stamp)
            while len(self._known) > self._limit:
                self._known.popitem(last=False)


_hashes: Remembered[str] = Remembered()


def sha256_of(stamp: FileStamp) -> str:
    """SHA-256 of a file's bytes as 64 hex digits, streamed, and remembered by the file's stamp.

    Raises:
        RecordingError: The file cannot be read, or it changed while it was.
    """
    known = _hashes.get(stamp)
    if known is not None:
        return known
    digest = hashlib.sha256()
    try:
        with open(stamp.path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise RecordingError(
            f"the recording {stamp.path} cannot be read: {error.strerror or error}"
        ) from error
    if FileStamp.of(stamp.path) != stamp:
        raise RecordingError(f"the recording {stamp.path} is being written to; wait until it is complete")
    _hashes.put(stamp, digest.hexdigest())
    return digest.hexdigest()


def storable(path: str) -> str:
    r"""A path as text that can be stored: bytes that are not UTF-8 are written as `\xe9`.

    `local_file` finds the file by this text, too.
    """
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


_ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")


def _unstored(text: str) -> str:
    """The path of which `storable` made this text."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[0][2:]).decode("utf-8", "surrogateescape"), text)


def local_file(path: str | os.PathLike[str]) -> Path:
    """Check that `path` names a regular, readable, non-empty local file, and make it absolute.

    Raises:
        RecordingError: It is a URL, a folder, a device, missing, empty or may not be read.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise RecordingError(
            f"a recording is opened from a path, not from {type(path).__name__}; "
            "for samples there is Recording.from_array, for a file's bytes Recording.from_bytes"
        )
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise RecordingError(f"{name!r} is not the path of a recording")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://?|(data):", name)
    if scheme:
        hints = {"file": "pass the plain path", None: "decode it and use Recording.from_bytes"}
        hint = hints.get(scheme[1] and scheme[1].lower(), "download it and pass the local path")
        shown = name if len(name) <= 200 else name[:200] + "..."
        raise RecordingError(f"{shown} is a URL; recordings are opened from local files only: {hint}")
    absolute = as_on_disk(Path(os.path.abspath(name)))
    if _ESCAPED.search(name) and not absolute.exists():
        absolute = Path(_unstored(str(absolute)))
    try:
        found = absolute.stat()
    except OSError as error:
        raise RecordingError(
            f"the recording {absolute} cannot be opened: {error.strerror or error}"
        ) from error
    if stat.S_ISDIR(found.st_mode):
        raise RecordingError(f"{absolute} is a folder; pass the path of one recording in it")
    if not stat.S_ISREG(found.st_mode):
        raise RecordingError(f"{absolute} is not a regular file; save the sound to a file first")
    if found.st_size == 0:
        raise RecordingError(f"the recording {absolute} is an empty file (0 bytes)")
    if not os.access(absolute, os.R_OK):
        raise RecordingError(f"the recording {absolute} may not be read by this user")
    return absolute
