"""The engine that runs a family's transformers model in this process.

Callers are any number of threads and event loops; they hand in whole contexts and get back what was sampled after them.
Behind it one thread makes all model calls (:mod:`echo_agent.engine.scheduler`), so callers share its batches and its
caches without knowing of each other, and what a run gets depends on its own context, parameters and seed only.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from echo_agent.engine.generation import Generation, SamplingParams
from echo_agent.engine.guides import Guides
from echo_agent.engine.runs import OnToken, Run, StopStringsCache
from echo_agent.engine.scheduler import Scheduler
from echo_agent.errors import EchoAgentError, QuestionError

if TYPE_CHECKING:
    from torch import Tensor

    from echo_agent.families.base import Family
    from echo_agent.feature_files import FeatureFiles
    from echo_agent.recording import AudioRef
    from echo_agent.stores import RecordingStore

GREEDY = SamplingParams()


class TorchEngine:
    """Continues contexts with a family's model; see the module's docstring.

    Example:
        >>> with TorchEngine(family, recordings) as engine:  # doctest: +SKIP
        ...     ids, audio = family.render(family.question_pieces([ref], "What rings?", None))
        ...     engine.generate(ids, audio, SamplingParams(stop=("</seg>", "</answer>"))).text
    """

    def __init__(
        self,
        family: Family,
        recordings: RecordingStore,
        *,
        kv_bytes: int = 1 << 30,
        feature_bytes: int = 512 << 20,
        live_bytes: int = 4 << 30,
        max_batch: int = 64,
        prefill_tokens: int = 4096,
        files: FeatureFiles | None = None,
    ) -> None:
        """Start the engine's thread.

        Args:
            family: The model. While the engine has runs, its modules are in evaluation mode.
            recordings: Where the samples of audio references come from.
            kv_bytes: Most bytes of keys and values that are kept for contexts that may be continued, on the model's
                device.
            feature_bytes: Most bytes of audio features and embeddings that are kept.
            live_bytes: No run is let in that would make the live batch larger than this: one row per run, as long
                as the longest. One run is let in whatever it takes, and runs that have been let in may grow.
            max_batch: Most runs that are decoded together; others wait in the order in which they came.
            prefill_tokens: Most tokens, padding included, of one forward pass over contexts.
            files: Features of the frozen encoder on disk, for runs that come after each other (training).
        """
        for name, value, least in (
            ("kv_bytes", kv_bytes, 0),
            ("feature_bytes", feature_bytes, 0),
            ("live_bytes", live_bytes, 0),
            ("max_batch", max_batch, 1),
            ("prefill_tokens", prefill_tokens, 1),
        ):
            if value < least:
                raise QuestionError(f"{name} must be at least {least}, not {value}")
        self.family = family
        self.recordings = recordings
        self._stops = StopStringsCache(family)
        self._guides = Guides(family)
        self._scheduler = Scheduler(
            family,
            recordings,
            kv_bytes=kv_bytes,
            feature_bytes=feature_bytes,
            live_bytes=live_bytes,
            max_batch=max_batch,
            prefill_tokens=prefill_tokens,
            files=files,
        )
        # The thread knows the scheduler only: an engine that nobody holds any more ends its thread.
        self._finalizer = weakref.finalize(self, self._scheduler.close)

    def submit(
        self,
        ids: Sequence[int],
        audio: Sequence[AudioRef] = (),
        params: SamplingParams = GREEDY,
        on_token: OnToken | None = None,
    ) -> Future[Generation]:
        """Put a run into the queue.

        Args:
            ids: The whole context, placeholders included.
            audio: What its runs of placeholders stand for, in order.
            params: How to sample.
            on_token: Called in the engine's thread with newly sampled ids and their text, in whole characters; all
                pieces together are the result. It must be quick: every run waits for it. If it raises, its run fails.

        Returns:
            A future; cancelling it takes the run out of the batch. What is wrong with the context is raised from it.
        """
        try:
            stops = self._stops.of(params.stop)
            run = Run(ids, audio, params, on_token, self.family, stops, self._guides)
        except EchoAgentError as error:
            failed: Future[Generation] = Future()
            failed.set_exception(error)
            return failed
        self._scheduler.submit(run)
        return run.future

    def generate(
        self,
        ids: Sequence[int],
        audio: Sequence[AudioRef] = (),
        params: SamplingParams = GREEDY,
        on_token: OnToken | None = None,
    ) -> Generation:
        """Continue one context and wait for the result; arguments as for :meth:`submit`."""
        if self._scheduler.in_thread:
            raise EchoAgentError(
                "generate would wait for its own thread: use submit in a callback of the engine"
            )
        future = self.submit(ids, audio, params, on_token)
        try:
            return future.result()
        except BaseException:  # an interrupt of the caller: the run is not wanted any more
            future.cancel()
            raise

    async def agenerate(
        self,
        ids: Sequence[int],
        audio: Sequence[AudioRef] = (),
        params: SamplingParams = GREEDY,
        on_token: OnToken | None = None,
    ) -> Generation:
        """Continue one context from any event loop; cancelling the caller takes the run out of the batch."""
        return await asyncio.wrap_future(self.submit(ids, audio, params, on_token))

    def features(self, refs: Sequence[AudioRef]) -> list[dict[str, Tensor]]:
        """Outputs of the frozen modules for listens, in order: those that runs were given, or encoded now.

        Any thread may ask; what is wrong with a listen is raised.
        """
        return self._scheduler.audio.frozen.get(refs)

    def weights_changed(self) -> None:
        """Drop keys, values and embeddings of the old weights; outputs of frozen modules stay.

        To be called after every optimiser step, before anything is submitted again. Returns once it is done. Runs
        that have begun go on from the tokens they have, which are computed anew with the new weights.
        """
        self._scheduler.weights_changed()

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and memory in use, in bytes; plain JSON."""
        scheduler = self._scheduler
        kept = asdict(scheduler.prefixes.store.stats)
        return {
            **scheduler.counts,
            "waiting_runs": scheduler.waiting,
            "live_runs": len(scheduler.live.runs),
            "live_bytes": scheduler.live.nbytes,
            "encoded_crops": scheduler.audio.frozen.encoded,
            "encoder_batches": scheduler.audio.frozen.batches,
            "kv": {name: kept[name] for name in ("nbytes", "limit", "items", "evictions")},
            "features": asdict(scheduler.audio.frozen.kept.stats),
            "embeds": asdict(scheduler.audio.embeds.stats),
        }

    def close(self) -> None:
        """End the engine's thread; runs that have not ended fail with an error that says so."""
        self._finalizer()

    def __enter__(self) -> Self:
        """The engine itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()
