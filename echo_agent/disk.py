"""Writing to disk: files appear whole or not at all, and what the disk has against it is said in one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_ident

from echo_agent.errors import DataError, EchoAgentError

GO_ON = "what is done is kept: run the same command again to resume"
"""Advice for work that is done in pieces."""
MAKE_ROOM = "make room, or name another place"
"""Advice for the rest."""
LOCK = ".lock"
"""The file in a folder that says that a process fills it (:mod:`echo_agent.locks`)."""
_PART = re.compile(r"\..+\.\d+-\d+\.part", re.DOTALL)
"""Names of files that are being written."""


@contextmanager
def writing(target: str | Path, advice: str = MAKE_ROOM) -> Iterator[None]:
    """Turn what the disk has against a piece of work into one sentence.

    Args:
        target: What is written, as the message names it: a path, or words such as ``results to r.jsonl``.
        advice: What to do about it.

    Raises:
        DataError: The disk is full, the folder cannot be written to, or whatever else :func:`disk_fault` knows.
    """
    try:
        yield
    except EchoAgentError:
        raise
    except Exception as error:  # libraries that write have kinds of their own
        reason = disk_fault(error)
        if not reason:
            raise
        raise DataError(f"cannot write {target}: {reason}; {advice}") from error


def disk_fault(error: Exception) -> str:
    """Why a file could not be written, in a few words; empty where the error is of another kind."""
    text = str(error).partition("\n")[0] or type(error).__name__
    if isinstance(error, OSError):
        return error.strerror or text
    if type(error).__name__ == "LibsndfileError" and "System error" in text:
        return "the disk is full, or cannot be written to"
    # torch's writer of checkpoints, and what libraries in Rust say (safetensors, tokenizers)
    words = ("inline_container", "PytorchStreamWriter", "iostream", "(os error ", "I/O error")
    return text if any(word in text for word in words) else ""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; it takes the place of ``path`` at the end, and is removed after an error.

    Any number of processes and threads may write the same file: each has a path of its own. Its folder is made.

    Raises:
        OSError: The folder cannot be made, or the file cannot be moved into its place.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except BaseException:
        with suppress(OSError):  # where the folder is none, there is nothing to remove either
            partial.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Remove what :func:`whole` left in a folder when its process was killed.

    Nobody else may write there. Folders in it that have a lock of their own are left alone.
    """
    for path, inside, files in os.walk(folder):
        inside[:] = [one for one in inside if not os.path.exists(os.path.join(path, one, LOCK))]
        for file in files:
            if _PART.fullmatch(file):
                with suppress(OSError):  # it cannot be removed: then it stays
                    os.unlink(os.path.join(path, file))


def real_path(path: str | Path) -> Path:
    """Where a path leads, through all links, whether there is something or not.

    Raises:
        OSError: The links lead back to themselves.
    """
    found = Path(os.path.realpath(path))
    if found.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return found


def write_whole(path: Path, data: bytes, advice: str = MAKE_ROOM) -> None:
    """Write a file whole or not at all; its folder is made.

    A link is followed. What is no regular file (a pipe, ``/dev/null``), or lies in a folder that takes no new files, is
    written in place.

    Raises:
        DataError: As :func:`writing`.
    """
    with writing(path, advice):
        target = real_path(path)
        if target.exists() and not (target.is_file() and os.access(target.parent, os.W_OK)):
            target.write_bytes(data)
            return
        with whole(target) as partial:
            partial.write_bytes(data)
