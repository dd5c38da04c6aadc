"""The standard streams of a program that something else has started: closed, full, or of another encoding.

A service or a GUI may start a program without them. Then the first file that it opens would get the number of a stream,
and what a C library writes to "standard error" would land in that file; so their numbers are taken first.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from echo_agent.terminal import beneath, say

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def prepare() -> None:
    """Open the streams that are closed to nothing, and let none fail because it cannot show a character."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))
    for stream in (beneath(sys.stdout), beneath(sys.stderr)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def flush() -> str:
    """Write out what waits in standard output; why that is not possible, empty where it is."""
    try:
        sys.stdout.flush()
    except OSError as error:
        give_up(sys.stdout)
        return "" if isinstance(error, BrokenPipeError) else f"{error.strerror}"
    return ""


def give_up(stream: TextIO) -> None:
    """Let go of a stream that takes nothing any more, so that the end of the program does not try again."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # it has no number: one of a test, or of a notebook
        return


def is_no_room(error: OSError) -> bool:
    """Whether an error says that a stream takes nothing any more, as a file on a full disk does."""
    return error.errno in _NO_ROOM and error.filename is None


def complain(message: str) -> None:
    """Write a message to standard error; without it there is nobody to tell."""
    try:
        say(message, error=True, flush=True)
    except (OSError, ValueError):
        give_up(sys.stderr)
