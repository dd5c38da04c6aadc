"""One process at a time at an output: a lock that the system takes back when its process ends, however it ends.

The lock is on an open file beside the output, or ``.lock`` in a folder that is filled, and the file says who holds it.
It is removed when the work is done. A process that has opened it meanwhile, and gets its lock then, holds the lock of a
file that is no longer there, which it finds out, and begins again.

Where the disk knows no locks (some network disks), nobody is kept out.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from echo_agent.disk import LOCK, real_path, remove_parts
from echo_agent.errors import DataError

LONGEST = 200
"""Bytes of a file's name that still fit into the name of its lock."""
HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""What the system says where another process holds the lock; anything else means that the disk knows no locks."""
NO_NEW_FILES = (errno.EACCES, errno.EPERM, errno.EROFS)


class Lock:
    """A lock that is held until it is released, or until the process ends."""

    def __init__(self, path: Path, name: str, another: str = "another place", *, own: bool = True) -> None:
        """Take the lock.

        Args:
            path: The file that is locked; it is made.
            name: What is in use, as the message says it.
            another: What may be named in its place.
            own: The file is there for the lock alone: it says who holds it, and is removed at the end.

        Raises:
            DataError: Another process holds it; the message says which.
            OSError: The file cannot be made.
        """
        self._path, self._own = path, own
        while True:
            self._file = _opened(path) if own else path.open(encoding="utf-8", errors="replace")
            try:
                _lock(self._file)
            except OSError as error:
                if error.errno in HELD:
                    raise DataError(
                        f"{name} is in use by {self._holder()}: wait until it has ended, stop it, or name {another}"
                    ) from None
            if not own or self._is_there():
                break
            self._file.close()
        if own:
            with suppress(OSError):  # the disk is full: the lock holds all the same, without the name
                self._file.truncate(0)
                self._file.write(f"{_myself()}\n")
                self._file.flush()

    def release(self) -> None:
        """Let others in."""
        if self._own:
            with suppress(OSError):  # Windows keeps what is open
                self._path.unlink()
        with suppress(OSError):
            _unlock(self._file)  # not by closing alone: a process that was forked has it open, too
        with suppress(OSError):  # the disk is full
            self._file.close()

    def _is_there(self) -> bool:
        """Whether what was locked is still the file of that name."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False

    def _holder(self) -> str:
        said = ""
        with suppress(OSError), self._file as file:
            if self._own:
                file.seek(0)
                said = file.read(200).partition("\n")[0].strip()
        return "another run in this process" if said == _myself() else said or "another process"


def _opened(path: Path) -> IO[str]:
    """The file of a lock, made where there is none; a link is not followed, for it could lead to any file."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    return os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")


def _myself() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


# --- files ------------------------------------------------------------------------------------------------------


def lock_output(path: Path, name: str, another: str = "another file") -> Lock | None:
    """Keep all others from a file that is written to, for as long as the lock is held.

    Where the folder takes no new files, the file itself is locked, and nobody knows by whom. What is no regular file (a
    pipe, a terminal) is not locked.

    Args:
        path: The file; it need not be there. A link is followed, so that a file has one lock under all its names.
        name: What is in use, as the message says it.
        another: What may be named in its place.

    Raises:
        DataError: It is in use; the message says who uses it.
        OSError: The disk has something against it.
    """
    target = real_path(path)
    if target.exists() and not target.is_file():
        return None
    short = target.name if len(os.fsencode(target.name)) <= LONGEST else _digest(target.name)
    try:
        return Lock(target.with_name(f".{short}{LOCK}"), name, another)
    except OSError as error:
        if error.errno not in NO_NEW_FILES or not target.exists():
            raise
    return Lock(target, name, another, own=False)


@contextmanager
def locked_output(path: Path, name: str, another: str = "another file") -> Iterator[None]:
    """Keep all others from a file or folder while it is made; raises as :func:`lock_output`."""
    lock = lock_output(path, name, another)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def lock_entry(path: Path, entry: str, name: str, another: str) -> Lock:
    """Keep all others from one entry of a file that many write to, a database; raises as :func:`lock_output`."""
    target = real_path(path)
    return Lock(target.with_name(f".{target.name}.{_digest(entry)}{LOCK}"), name, another)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


# --- folders ----------------------------------------------------------------------------------------------------


@dataclass
class _Held:
    """The lock of a folder, and how often this process has asked for it."""

    lock: Lock
    made: bool
    """Whether the folder was made for it."""
    times: int = 1


_held: dict[Path, _Held] = {}


def lock_folder(folder: Path) -> None:
    """Keep other processes out of a folder until :func:`unlock_folder` or the process's end.

    The folder is made; if it is still empty in the end, it is removed. What a process that was killed left half written
    in it is removed at once. A process that asks for a lock that it holds gets it again, and lets others in when it has
    let go as often.

    Raises:
        DataError: Another process holds the lock, or the folder cannot be written to.
    """
    try:
        key = real_path(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}") from error
    if key in _held:
        _held[key].times += 1
        return
    made = not key.exists()
    try:
        key.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise DataError(f"{folder} is a file: name a folder") from None
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        _held[key] = _Held(Lock(key / LOCK, str(folder), "another folder"), made)
    except OSError as error:
        raise DataError(f"{folder} cannot be written to: {error.strerror}") from error
    remove_parts(key)


def unlock_folder(folder: Path) -> None:
    """Let go of a folder; nothing happens where this process holds no lock."""
    key = Path(os.path.realpath(folder))
    if held := _held.get(key):
        held.times -= 1
        if not held.times:
            del _held[key]
            held.lock.release()
            if held.made:
                with suppress(OSError):  # there is something in it
                    key.rmdir()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made; raises as :func:`lock_folder`."""
    lock_folder(folder)
    try:
        yield
    finally:
        unlock_folder(folder)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(1 << 20)  # beyond what others read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _unlock(file: IO[str]) -> None:
        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
