"""The engine's thread: it lets requests in, computes their contexts, decodes them together, and hands out results.

All model calls are made here, in one thread, one step after another:

1. requests that were cancelled leave; after a change of weights, everything computed with the old ones is dropped;
2. waiting runs are let in, in the order in which they came, up to ``max_batch``: what is cached of their contexts is
   found, and crops that are not stored are encoded as one batch;
3. one padded forward pass over contexts of requests that were let in (``prefill``), if there are any;
4. one token for every live request (``batch``);
5. requests that ended leave, their keys and values are kept for their next turn, and their callers are woken.

A mistake in one request ends that request with the error and no other. The thread is the only user of the caches, which
need no lock: callers reach it through its inbox (``inbox``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from echo_agent.engine.batch import LiveBatch
from echo_agent.engine.embeddings import AudioFeatures
from echo_agent.engine.eval_mode import EvalMode
from echo_agent.engine.generation import Generation
from echo_agent.engine.inbox import CLOSED, Inbox
from echo_agent.engine.kv import KV
from echo_agent.engine.prefill import Job, compute, next_batch, plan
from echo_agent.engine.prefix_cache import PrefixCache, Symbols
from echo_agent.engine.request import Request, SampledToken
from echo_agent.errors import EchoAgentError
from echo_agent.forks import torch_computes

if TYPE_CHECKING:
    from echo_agent.engine.feature_files import FeatureFiles
    from echo_agent.families.base import Family
    from echo_agent.stores import RecordingStore


class Scheduler:
    """The state of an engine and the loop that runs it."""

    def __init__(
        self,
        family: Family,
        recordings: RecordingStore,
        *,
        kv_bytes: int,
        feature_bytes: int,
        live_bytes: int,
        max_batch: int,
        prefill_tokens: int,
        files: FeatureFiles | None,
    ) -> None:
        """See :class:`echo_agent.engine.torch_engine.TorchEngine`."""
        self._family = family
        self._max_batch = max_batch
        self._live_bytes = live_bytes
        self._budget = prefill_tokens
        self.prefixes = PrefixCache(kv_bytes)
        self.audio = AudioFeatures(family, recordings, feature_bytes, files)
        self.live = LiveBatch(family, max_batch)
        self._jobs: list[Job] = []
        self._outcomes: list[tuple[Request, Generation | BaseException]] = []
        self._mode = EvalMode(family)
        self.counts = {
            "runs": 0,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "prefilled_tokens": 0,
            "prefill_batches": 0,
            "decoded_tokens": 0,
            "decode_steps": 0,
        }
        self._open: set[Request] = set()
        """Requests that have been let in and have not been answered."""
        self._share = 0.0
        """Seconds of decoding per live request, added up since the start."""

        self.inbox = Inbox()
        torch_computes()
        self._thread = threading.Thread(target=self._main, name="echo-agent-engine", daemon=True)
        self._thread.start()

    # --- called from any thread ---------------------------------------------------------------------------------

    def weights_changed(self) -> None:
        """Drop what belongs to the old weights; returns once that is done."""
        done = self.inbox.weights_changed()
        if not self.in_thread:
            done.wait()

    def close(self) -> None:
        """End the thread; what has not ended fails. In a forked process there is no thread to end."""
        if self.inbox.forked:
            return
        self.inbox.close()
        if not self.in_thread:
            self._thread.join()

    @property
    def in_thread(self) -> bool:
        """Whether the caller is the engine's own thread (a callback)."""
        return threading.current_thread() is self._thread

    # --- the thread ---------------------------------------------------------------------------------------------

    def _main(self) -> None:
        """Run the loop; whatever ends it reaches every caller."""
        error: BaseException = EchoAgentError(CLOSED)
        try:
            with torch.no_grad():
                self._loop()
        except (
            BaseException
        ) as problem:  # a mistake of ours, or the interpreter going down: nobody may wait for ever
            error = problem
        self._mode.restore()
        waiting = self.inbox.end(error)
        self._wake()
        for request in [*self._open, *waiting]:
            request.resolve(error)
        self._jobs, self._open = [], set()
        self.live.clear()
        self.prefixes.clear()
        self.audio.clear()

    def _loop(self) -> None:
        while (news := self.inbox.look(busy=self._busy)) is not None:
            if news.cancellations:
                self._remove([row for row, request in enumerate(self.live.requests) if request.dead])
                self._open = {request for request in self._open if not request.dead}
            if news.changes:
                try:
                    self._drop_old()
                finally:
                    for done in news.changes:
                        done.set()
            arrived = self._arrivals()
            if arrived:
                self._mode.enter()
                self._admit(arrived)
            if self._jobs:
                self._prefill()
            if self.live.requests:
                self._decode()
            if not self._busy and not self.inbox:
                self._mode.restore()  # before anyone is woken, who may want to train
            self._wake()

    @property
    def _busy(self) -> bool:
        """Whether there is something to compute."""
        return bool(self._jobs or self.live.requests)

    def _arrivals(self) -> list[Request]:
        """Take requests from the queue, first come first served, while there is room for them."""
        arrived = [] if self._jobs else self.inbox.take(self._fits)
        self._open.update(arrived)
        return arrived

    def _fits(self, arrived: Sequence[Request], request: Request) -> bool:
        """Whether there is room for a request beside what is live and what has just arrived."""
        if len(self.live.requests) + len(arrived) >= self._max_batch:
            return False
        alone = not self.live.requests and not arrived
        return alone or self.live.bytes_with([*arrived, request]) <= self._live_bytes

    def _admit(self, requests: Sequence[Request]) -> None:
        """Find what is cached, encode what is not stored, and lay out the rest of the contexts as jobs."""
        try:
            matched = [(request, self.prefixes.match(request.symbols()[:-1])) for request in requests]
            self._encode([(request, sum(part.tokens for part in parts)) for request, parts in matched])
            self._jobs = plan(
                [(request, parts) for request, parts in matched if not request.dead], self._budget
            )
        except Exception as error:
            self._jobs = []
            for request in requests:
                self._fail(request, error)
            return
        first_time = {request for request in requests if not request.sampled}
        for request, parts in matched:
            if request in first_time:
                request.cached_tokens = sum(part.tokens for part in parts)
        for job in self._jobs:
            for request in first_time.intersection(job.sharing[1:]):
                request.cached_tokens += job.end - job.start
        self.counts["runs"] += len(first_time)
        self.counts["prompt_tokens"] += sum(len(request.ids) for request in first_time)
        self.counts["cached_tokens"] += sum(request.cached_tokens for request in first_time)

    def _encode(self, requests: Sequence[tuple[Request, int]]) -> None:
        """Get the embeddings of all audio that runs need after their cached prefixes (given as lengths)."""
        wanted = {request: request.audio_after(start) for request, start in requests}
        users = [request for request, refs in wanted.items() if refs]
        if not users:
            return
        began, batches = time.perf_counter(), self.audio.frozen.batches
        found = self.audio.embeddings([ref for request in users for ref in wanted[request]])
        seconds = time.perf_counter() - began if self.audio.frozen.batches > batches else 0.0
        for request in users:
            request.encode += seconds / len(users)
            for ref in wanted[request]:
                embeds = found[ref.key()]
                if isinstance(embeds, Exception):
                    self._fail(request, embeds)
                    break
                request.embeds[ref.key()] = embeds

    def _prefill(self) -> None:
        """Compute one batch of jobs; where that fails, each of them alone, to find the one at fault."""
        self._jobs = [job for job in self._jobs if not all(request.dead for request in job.sharing)]
        batch = next_batch(self._jobs, self._budget)
        if batch and not self._compute(batch):
            for job in batch:
                self._compute([job])

    def _compute(self, jobs: Sequence[Job]) -> bool:
        """Compute jobs; requests whose contexts are complete get their first token and join the live batch.

        Says whether that was possible; a job that fails alone fails its requests.
        """
        began = time.perf_counter()
        try:
            scores, kv = compute(self._family, jobs)
            ready = [
                (row, request)
                for row, job in enumerate(jobs)
                for request in job.finishing
                if not request.dead
            ]
            chosen: list[SampledToken] = []
            if ready:
                rows = torch.tensor([row for row, _ in ready], device=scores.device)
                chosen = self.live.choose(scores.index_select(0, rows), [request for _, request in ready])
        except Exception as error:
            if len(jobs) > 1:
                return False
            for request in jobs[0].sharing:
                self._fail(request, error)
            return True
        parts = [[*job.prefix(), own] for job, own in zip(jobs, kv, strict=True)]
        for job, own, held in zip(jobs, kv, parts, strict=True):
            job.kv = own
            self._jobs.remove(job)
            self._keep(job.symbols[: job.end], held)
        seconds = (time.perf_counter() - began) / sum(len(job.sharing) for job in jobs)
        for job in jobs:
            for request in job.sharing:
                request.prefill += seconds
        for (row, request), choice in zip(ready, chosen, strict=True):
            request.embeds.clear()
            if self._accept(request, choice):
                self._end(request)
            else:
                self._join(request, parts[row])
        self.counts["prefill_batches"] += 1
        self.counts["prefilled_tokens"] += sum(job.end - job.start for job in jobs)
        return True

    def _decode(self) -> None:
        """One step of the live batch."""
        began = time.perf_counter()
        requests = list(self.live.requests)
        try:
            chosen = self.live.step()
        except Exception as error:  # which row it was cannot be known, and a step cannot be taken back
            for request in requests:
                self._fail(request, error)
            self._remove(range(len(requests)))
            return
        ended = [row for row, choice in enumerate(chosen) if self._accept(requests[row], choice)]
        self.counts["decode_steps"] += 1
        self.counts["decoded_tokens"] += len(requests)
        self._share += (time.perf_counter() - began) / len(requests)
        if ended:
            for row in ended:
                if not requests[row].dead:
                    self._keep(requests[row].symbols()[:-1], [self.live.kv(row)])
            self._remove(ended)
            for row in ended:
                self._end(requests[row])

    def _join(self, request: Request, parts: Sequence[KV]) -> None:
        """Put a request whose first token was sampled into the live batch."""
        try:
            self.live.join(request, parts)
        except Exception as error:
            self._fail(request, error)
        else:
            request.joined_at = self._share

    def _remove(self, rows: Sequence[int]) -> None:
        """Take rows out of the live batch."""
        for row in rows:
            request = self.live.requests[row]
            request.decode += self._share - request.joined_at
        self.live.leave(rows)

    def _keep(self, symbols: Symbols, parts: Sequence[KV]) -> None:
        """Keep KV for whoever continues from there; where memory is short, do without all that is kept."""
        try:
            self.prefixes.insert(symbols, parts)
        except torch.OutOfMemoryError:
            self.prefixes.clear()

    def _accept(self, request: Request, choice: SampledToken) -> bool:
        """Give a request its next token; says whether it has ended, well or not."""
        try:
            return request.accept(choice)
        except BaseException as error:  # of the caller's callback, or scores that are not numbers
            self._fail(request, error)
            return True

    def _end(self, request: Request) -> None:
        """Note the result of a request that has ended."""
        if request.dead:
            return
        try:
            self._outcomes.append((request, request.generation()))
        except Exception as error:
            self._fail(request, error)

    def _fail(self, request: Request, error: BaseException) -> None:
        """Note that a request has ended with an error."""
        if not request.dead:
            request.dead = True
            self._outcomes.append((request, error))

    def _wake(self) -> None:
        """Hand out what has ended."""
        outcomes, self._outcomes = self._outcomes, []
        for request, outcome in outcomes:
            self._open.discard(request)
            request.resolve(outcome)

    def _drop_old(self) -> None:
        """Drop what was computed with old weights; requests that have begun continue from their tokens, recomputed."""
        self.prefixes.clear()
        self.audio.weights_changed()
        begun = list(self.live.requests)
        begun += [request for job in self._jobs for request in job.finishing]
        self._remove(range(len(self.live.requests)))
        self._jobs = []
        for request in begun:
            request.embeds.clear()
        self.inbox.put_back(begun)
