"""Runs a program on the file of a stranger, within limits of memory and time; what it writes comes as a stream.

The program writes into pipes only, so it ends with us: when nobody reads any more, it cannot write.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from time import monotonic
from typing import IO

__all__ = ["MEMORY", "run_limited"]

MEMORY = 1 << 30
"""Bytes of memory that the program may take (on Linux, which alone can limit a program that runs)."""
PATIENCE = 30.0
"""Seconds that it may take for nothing, such as to look at a file."""
SLOWEST = 16_000
"""Bytes a second that it must write after that: sound of 8 kHz as it is played."""
_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 12


def run_limited(
    command: Sequence[str], take: Callable[[bytes], None], hear: Callable[[str], None]
) -> tuple[int, str | None]:
    """Run a program to its end.

    Args:
        command: The program and its arguments.
        take: Called with each piece of what it writes to its standard output. What it raises ends the program.
        hear: Called, in another thread, with each line that it says on standard error; of long ones, the beginning.

    Returns:
        Its exit code, and why it was stopped, None if it was not.

    Raises:
        OSError: The program does not start.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    _limit_memory(process.pid)
    watch = _Watch(process)
    threads = [
        Thread(target=_listen, args=(process.stderr, hear), daemon=True),
        Thread(target=watch.run, daemon=True),
    ]
    held = bytearray()
    try:
        for thread in threads:
            thread.start()
        while piece := process.stdout.read1(_BLOCK):  # pyright: ignore[reportAttributeAccessIssue]
            watch.given += len(piece)
            held += piece
            if len(held) >= _BLOCK:
                take(bytes(held))
                held.clear()
        process.wait()
        if held:
            take(bytes(held))
    finally:
        process.kill()  # does nothing to one that has ended
        process.wait()
        watch.ended.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        process.stdout.close()
        process.stderr.close()
    return process.returncode, watch.why


class _Watch:
    """Kills a program that takes longer than it may."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Watch a program that has just been started."""
        self._process, self._began = process, monotonic()
        self.given = 0
        """Bytes that it has written."""
        self.ended = Event()
        """Set when it need not be watched any more."""
        self.why: str | None = None
        """Why it was killed."""

    def run(self) -> None:
        """Watch it; in a thread."""
        while not self.ended.wait(min(1.0, PATIENCE / 4)):
            if monotonic() - self._began > PATIENCE + self.given / SLOWEST:
                self.why = (
                    f"it was stopped after {monotonic() - self._began:.0f} s, in which it gave "
                    f"{self.given / 1e6:.1f} MB"
                )
                self._process.kill()
                return


def _limit_memory(pid: int) -> None:
    if sys.platform == "linux":
        import resource

        with suppress(OSError):  # it has ended, or its limit is lower
            resource.prlimit(pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))


def _listen(stream: IO[bytes], hear: Callable[[str], None]) -> None:
    goes_on = False
    while line := stream.readline(_LONGEST_LINE):
        if not goes_on:
            # bytes of file names that are no UTF-8 come as Python has them in names
            for part in line.decode("utf-8", "surrogateescape").replace("\r", "\n").splitlines():
                hear(part)
        goes_on = not line.endswith(b"\n")
