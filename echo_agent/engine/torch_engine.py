"""The engine that runs a family's transformers model in this process.

Callers are any number of threads and event loops; they hand in whole contexts and get back what was sampled after them.
Behind it one thread makes all model calls (:mod:`echo_agent.engine.scheduler`), so callers share its batches and its
caches without knowing of each other, and what a request gets depends on its own context, parameters and seed only.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from echo_agent.engine.engine import Engine
from echo_agent.engine.scheduler import Scheduler
from echo_agent.errors import QuestionError

if TYPE_CHECKING:
    from torch import Tensor

    from echo_agent.audio.recording import AudioRef
    from echo_agent.engine.feature_files import FeatureFiles
    from echo_agent.engine.generation import Generation
    from echo_agent.engine.request import Request
    from echo_agent.families.base import Family, Note
    from echo_agent.stores import RecordingStore


class TorchEngine(Engine):
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
            family: The model. While the engine has requests, its modules are in evaluation mode.
            recordings: Where the samples of audio references come from.
            kv_bytes: Most bytes of keys and values that are kept for contexts that may be continued, on the model's
                device.
            feature_bytes: Most bytes of audio features and embeddings that are kept.
            live_bytes: No request is let in that would make the live batch larger than this: one row per request, as
                long as the longest. One request is let in whatever it takes, and those that are in may grow.
            max_batch: Most requests that are decoded together; others wait in the order in which they came.
            prefill_tokens: Most tokens, padding included, of one forward pass over contexts.
            files: Features of the frozen encoder on disk, for requests that come after each other (training).
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
        super().__init__(family, recordings, self._scheduler.close)

    def _start(self, request: Request) -> Future[Generation]:
        self._scheduler.inbox.submit(request)
        return request.future

    @property
    def _in_thread(self) -> bool:
        return self._scheduler.in_thread

    def features(self, refs: Sequence[AudioRef]) -> list[dict[str, Tensor]]:
        """Outputs of the frozen modules for listens, in order: those that runs were given, or encoded now.

        Any thread may ask; what is wrong with a listen is raised.
        """
        self.check_process()
        return self._scheduler.audio.frozen.get(refs)

    def notes(self, ref: AudioRef) -> list[Note]:
        """What the tokens of a listen say in words; any thread may ask, where the family takes notes."""
        self.check_process()
        return self.family.notes(ref, self._scheduler.audio.frozen.for_notes(ref))

    def check_process(self) -> None:
        """Refuse to work in a process that was forked after the engine was made; raises EchoAgentError there."""
        self._scheduler.inbox.check_process()

    def weights_changed(self) -> None:
        """Drop keys, values and embeddings of the old weights; outputs of frozen modules stay.

        To be called after every optimiser step, before anything is submitted again. Returns once it is done. Requests
        that have begun continue from the tokens they have, which are recomputed with the new weights.
        """
        self._scheduler.weights_changed()

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and memory in use, in bytes; plain JSON."""
        scheduler = self._scheduler
        kept = asdict(scheduler.prefixes.store.stats)
        return {
            **scheduler.counts,
            "waiting_runs": len(scheduler.inbox),
            "live_runs": len(scheduler.live.requests),
            "live_bytes": scheduler.live.nbytes,
            "encoded_crops": scheduler.audio.frozen.encoded,
            "encoder_batches": scheduler.audio.frozen.batches,
            "kv": {name: kept[name] for name in ("nbytes", "limit", "items", "evictions")},
            "features": asdict(scheduler.audio.frozen.kept.stats),
            "embeds": asdict(scheduler.audio.embeds.stats),
        }
