"""Files for what is decoded or uploaded; none of them outlives the process that made it, however that ends.

On Linux such a file has no name: the system frees it when the last process that has it open is gone, so that no signal
and no crash leaves it behind. Elsewhere it has one, in a folder of its own, which goes with the object, or when the
process ends by itself.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from echo_agent.errors import RecordingError

__all__ = ["TemporaryFile", "writing_temporarily"]

_MOST_OPEN = 256
"""Number of an open file from which on temporary files have names: others must be able to open some, too."""


class TemporaryFile:
    """An empty file that goes when this object does."""

    path: str
    """Where this process finds it, and one that is forked from it."""
    shared_path: str
    """Where a program that it starts finds it."""

    def __init__(self) -> None:
        """Make it in the folder for temporary files.

        Raises:
            OSError: There is no place for it.
        """
        if sys.platform == "linux" and os.path.exists("/proc/self/fd"):
            file = tempfile.TemporaryFile(prefix="echo-agent-")  # noqa: SIM115 - closed by the finalizer
            if file.fileno() < _MOST_OPEN:
                self.path = f"/proc/self/fd/{file.fileno()}"
                self.shared_path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
                self._finalizer = weakref.finalize(self, file.close)
                return
            file.close()
        folder = tempfile.mkdtemp(prefix="echo-agent-")
        self.path = self.shared_path = os.path.join(folder, "sound")
        self._finalizer = weakref.finalize(self, _remove, folder, os.getpid())

    def close(self) -> None:
        """Let go of it now."""
        self._finalizer()


@contextmanager
def writing_temporarily(what: str) -> Iterator[None]:
    """Turn what the disk has against a temporary file into a RecordingError: `what` cannot be written to the folder."""
    try:
        yield
    except OSError as error:
        raise RecordingError(
            f"{what} cannot be written to {tempfile.gettempdir() if tempfile.tempdir else 'a temporary folder'} "
            f"({error.strerror or error}); make room there, or set TMPDIR to a folder that has some"
        ) from error


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child holds a copy of the object, not of the file
        shutil.rmtree(folder, ignore_errors=True)
