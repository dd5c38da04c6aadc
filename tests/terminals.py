"""A terminal that a command is run in, and what was drawn in it."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


@contextmanager
def opened_terminal() -> Iterator[tuple[IO[str], list[bytes]]]:
    """The terminal to write to, and the pieces that came out of it: all of them when it is closed."""
    master, slave = pty.openpty()
    pieces: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # the other end is closed
            while piece := os.read(master, 1 << 16):
                pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    with open(slave, "w", encoding="utf-8") as terminal:
        yield terminal, pieces
    reader.join()
    os.close(master)
