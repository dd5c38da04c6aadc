"""What callers leave for the engine's thread: requests, changes of weights, cancellations, and the wish that it ends.

Callers are any threads of this process. In a process that was forked from it the thread is missing: they are refused
there before they touch a lock, which may be held for ever.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from echo_agent.engine.request import Request
from echo_agent.errors import EchoAgentError
from echo_agent.forks import Birthplace

CLOSED = "the engine was closed: make a new one"


class News(NamedTuple):
    """What the thread has to see to before anything else."""

    changes: Sequence[threading.Event]
    """The weights have changed: to be set when what was computed with the old ones is dropped."""
    cancellations: bool
    """Some requests are not wanted any more; they are dead."""


class Inbox:
    """Filled by callers, and emptied by the engine's thread; see the module."""

    def __init__(self) -> None:
        """Nothing is waiting."""
        self._home = Birthplace()
        self._signal = threading.Condition()
        # Guarded by the condition:
        self._queue: deque[Request] = deque()
        self._closed = False
        self._changes: list[threading.Event] = []
        self._cancellations = False
        self._broken: BaseException | None = None

    # --- called from any thread ---------------------------------------------------------------------------------

    @property
    def forked(self) -> bool:
        """Whether this process was forked from the engine's."""
        return self._home.forked

    def check_process(self) -> None:
        """Refuse a process that was forked from the engine's; raises EchoAgentError there."""
        self._home.check()

    def submit(self, request: Request) -> None:
        """Put a request into the queue."""
        self.check_process()
        request.future.add_done_callback(
            lambda future: self._cancelled(request) if future.cancelled() else None
        )
        with self._signal:
            if self._broken is not None:
                raise EchoAgentError(f"the engine's thread has ended: {self._broken}") from self._broken
            if self._closed:
                raise EchoAgentError(CLOSED)
            self._queue.append(request)
            self._signal.notify()

    def weights_changed(self) -> threading.Event:
        """Have the thread drop what belongs to the old weights; the event is set once that is done."""
        self.check_process()
        done = threading.Event()
        with self._signal:
            if self._closed or self._broken is not None:
                done.set()
            else:
                self._changes.append(done)
                self._signal.notify()
        return done

    def close(self) -> None:
        """Have the thread end."""
        with self._signal:
            self._closed = True
            self._signal.notify()

    def _cancelled(self, request: Request) -> None:
        """A caller does not wait any more; in a forked process, nobody computes for it."""
        if self.forked:
            return
        request.dead = True
        request.abandon()
        with self._signal:
            self._cancellations = True
            self._signal.notify()

    def __len__(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    # --- called from the engine's thread ------------------------------------------------------------------------

    def look(self, *, busy: bool) -> News | None:
        """What has come in since the last look, waiting for something unless there is work; None at the end."""
        with self._signal:
            while not (busy or self._queue or self._closed or self._changes or self._cancellations):
                self._signal.wait()
            if self._closed:
                return None
            news = News(self._changes, self._cancellations)
            self._changes, self._cancellations = [], False
            return news

    def take(self, fits: Callable[[Sequence[Request], Request], bool]) -> list[Request]:
        """Take requests in the order in which they came, as long as the next fits beside those before it."""
        taken: list[Request] = []
        with self._signal:
            while self._queue and (self._queue[0].dead or fits(taken, self._queue[0])):
                request = self._queue.popleft()
                if not request.dead:
                    taken.append(request)
        return taken

    def put_back(self, requests: Sequence[Request]) -> None:
        """Put requests in front of all others, in their order."""
        with self._signal:
            self._queue.extendleft(reversed(requests))

    def end(self, error: BaseException) -> list[Request]:
        """Take nothing more: the thread has ended, with an error unless it was closed. What has waited in vain."""
        with self._signal:
            if not self._closed:
                self._broken = error
            waiting = list(self._queue)
            self._queue.clear()
            changes, self._changes = self._changes, []
        for done in changes:
            done.set()
        return waiting
