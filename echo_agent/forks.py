"""What a forked process needs, so that nothing waits there for threads that are not there.

A fork copies the memory of a process, but of its threads only the one that forks. Two things wait for the others:

- a lock that another thread held is held for ever in the child. :class:`Lock` is replaced there. What it guards must
  bear that: its holder stopped between any two steps, and nobody ends its work;
- torch hands work to threads of OpenMP's that it had in the parent. Where torch has computed for us, a child computes
  in one thread, as the workers of torch's ``DataLoader`` do.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref

from echo_agent.errors import EchoAgentError

FORKED = (
    "this model was loaded in another process, from which this one was forked: its engine's thread is not here. "
    "Load the model in each process after it has begun, or start processes with the method 'spawn'"
)


class Birthplace:
    """The process that an engine was made in; those that are forked from it have the engine without its thread."""

    def __init__(self) -> None:
        self._getpid = os.getpid  # may be asked for at the end of Python, when modules are empty
        self._process = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this process was forked from that one."""
        return self._getpid() != self._process

    def check(self) -> None:
        """Refuse a process that was forked from that one; raises EchoAgentError there."""
        if self.forked:
            raise EchoAgentError(FORKED)


class Lock:
    """A lock to be held by ``with``; in a child it is open, whoever held it in the parent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        """Take the lock."""
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        """Let go of it."""
        self._lock.release()


def torch_computes() -> None:
    """Note that torch computes in this process from now on."""
    global _computes
    _computes = True


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()
_computes = False


def _in_child() -> None:
    """Set right what the fork has broken: this is the only thread."""
    for lock in list(_locks):
        lock._lock = threading.Lock()
    if _computes:
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
