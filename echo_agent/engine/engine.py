"""What every engine is to its callers: contexts in, sampled tokens out, from any thread and any event loop.

An engine says where a request is worked on (:meth:`Engine._start`); how requests are handed in, waited for and
cancelled is the same for all.
"""

from __future__ import annotations

import asyncio
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from echo_agent.engine.generation import Generation, SamplingParams
from echo_agent.engine.guides import Guides
from echo_agent.engine.request import OnToken, Request, StopStringsCache
from echo_agent.errors import EchoAgentError

if TYPE_CHECKING:
    from echo_agent.audio.recording import AudioRef
    from echo_agent.families.base import Family
    from echo_agent.stores import RecordingStore

GREEDY = SamplingParams()


class Engine(ABC):
    """Continues contexts; see the module's docstring."""

    def __init__(self, family: Family, recordings: RecordingStore, close: Callable[[], None]) -> None:
        """Take what all engines have.

        Args:
            family: The model.
            recordings: Where the samples of audio references come from.
            close: Ends the engine's thread. It must not hold the engine: one that nobody holds any more is closed.
        """
        self.family = family
        self.recordings = recordings
        self._stops = StopStringsCache(family)
        self._guides = Guides(family)
        self._finalizer = weakref.finalize(self, close)

    def submit(
        self,
        ids: Sequence[int],
        audio: Sequence[AudioRef] = (),
        params: SamplingParams = GREEDY,
        on_token: OnToken | None = None,
    ) -> Future[Generation]:
        """Put a request on its way.

        Args:
            ids: The whole context, placeholders included.
            audio: What its runs of placeholders stand for, in order.
            params: How to sample.
            on_token: Called in the engine's thread with newly sampled ids and their text, in whole characters; all
                pieces together are the result. It must be quick: every request waits for it. If it raises, its request
                fails.

        Returns:
            A future; cancelling it ends the request, in the batch or on its server. What is wrong with the context is
            raised from it.
        """
        self.check_process()
        try:
            stops = self._stops.of(params.stop)
            request = Request(ids, audio, params, on_token, self.family, stops, self._guides)
        except EchoAgentError as error:
            failed: Future[Generation] = Future()
            failed.set_exception(error)
            return failed
        return self._start(request)

    def generate(
        self,
        ids: Sequence[int],
        audio: Sequence[AudioRef] = (),
        params: SamplingParams = GREEDY,
        on_token: OnToken | None = None,
    ) -> Generation:
        """Continue one context and wait for the result; arguments as for :meth:`submit`."""
        if self._in_thread:
            raise EchoAgentError(
                "generate would wait for its own thread: use submit in a callback of the engine"
            )
        future = self.submit(ids, audio, params, on_token)
        try:
            return future.result()
        except BaseException:  # an interrupt of the caller: the request is not wanted any more
            future.cancel()
            raise

    async def agenerate(
        self,
        ids: Sequence[int],
        audio: Sequence[AudioRef] = (),
        params: SamplingParams = GREEDY,
        on_token: OnToken | None = None,
    ) -> Generation:
        """Continue one context from any event loop; cancelling the caller ends the request."""
        return await asyncio.wrap_future(self.submit(ids, audio, params, on_token))

    @abstractmethod
    def _start(self, request: Request) -> Future[Generation]:
        """Begin to work on a request."""

    @property
    @abstractmethod
    def _in_thread(self) -> bool:
        """Whether the caller is the engine's own thread."""

    @abstractmethod
    def check_process(self) -> None:
        """Refuse to work in a process that was forked after the engine was made; raises EchoAgentError there."""

    @abstractmethod
    def weights_changed(self) -> None:
        """Drop what was computed with weights that are trained; to be called before anything is submitted again."""

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """Counters since the start, as plain JSON."""

    def close(self) -> None:
        """End the engine's thread; requests that have not ended fail with an error that says so."""
        self._finalizer()

    def __enter__(self) -> Self:
        """The engine itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()
