"""Who is let in: so many runs at once, so many that wait, and nobody once the server stops.

All of it happens in the server's one event loop, so that counting needs no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Full(Exception):
    """There is no place to wait."""


class Gate:
    """Counts requests; see the module."""

    def __init__(self, running: int, waiting: int) -> None:
        """Let ``running`` requests run, and ``waiting`` wait."""
        self._places = running + waiting
        self._turns = asyncio.Semaphore(running)
        self.inside = 0
        """Requests that were let in."""
        self.running = 0
        """Those of them that run."""

    @property
    def waiting(self) -> int:
        """Those that are read, decoded, or wait for their turn."""
        return self.inside - self.running

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place, from the first byte of a request on; raises Full where all are taken."""
        if self.inside >= self._places:
            raise Full
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn to run, first come first served."""
        async with self._turns:
            self.running += 1
            try:
                yield
            finally:
                self.running -= 1
