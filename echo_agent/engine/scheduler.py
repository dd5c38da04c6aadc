"""The engine's thread: it lets runs in, computes their contexts, decodes them together, and hands out results.

All model calls are made here, in one thread, one step after another:

1. runs that were cancelled leave; after a change of weights, everything computed with the old ones is dropped;
2. waiting runs are let in, in the order in which they came, up to ``max_batch``: what is cached of their contexts is
   found, and crops that are not stored are encoded as one batch;
3. one padded forward pass over contexts of runs that were let in (``prefill``), if there are any;
4. one token for every live run (``batch``);
5. runs that ended leave, their keys and values are kept for their next turn, and their callers are woken.

A mistake in one run ends that run with the error and no other. The thread is the only user of the caches, so nothing
but the queue needs a lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from echo_agent.engine.batch import LiveBatch
from echo_agent.engine.features import AudioFeatures
from echo_agent.engine.generation import Generation
from echo_agent.engine.prefill import Job, compute, next_batch, plan
from echo_agent.engine.prefixes import PrefixCache, Symbols, tokens_in
from echo_agent.engine.runs import Choice, Run
from echo_agent.errors import EchoAgentError

if TYPE_CHECKING:
    from echo_agent.families.base import Family
    from echo_agent.feature_files import FeatureFiles
    from echo_agent.stores import RecordingStore

CLOSED = "the engine was closed: make a new one"


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
        self._outcomes: list[tuple[Run, Generation | BaseException]] = []
        self._mode = _EvalMode(family)
        self.counts = {
            "runs": 0,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "prefilled_tokens": 0,
            "prefill_batches": 0,
            "decoded_tokens": 0,
            "decode_steps": 0,
        }
        self._open: set[Run] = set()
        """Runs that have been let in and have not been answered."""
        self._share = 0.0
        """Seconds of decoding per live run, added up since the start."""

        self._signal = threading.Condition()
        # Guarded by the condition:
        self._queue: deque[Run] = deque()
        self._closed = False
        self._changes: list[threading.Event] = []
        self._cancellations = False
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="echo-agent-engine", daemon=True)
        self._thread.start()

    # --- called from any thread ---------------------------------------------------------------------------------

    def submit(self, run: Run) -> None:
        """Put a run into the queue."""
        run.future.add_done_callback(lambda future: self._cancelled(run) if future.cancelled() else None)
        with self._signal:
            if self._broken is not None:
                raise EchoAgentError(f"the engine's thread has ended: {self._broken}") from self._broken
            if self._closed:
                raise EchoAgentError(CLOSED)
            self._queue.append(run)
            self._signal.notify()

    def weights_changed(self) -> None:
        """Drop what belongs to the old weights; returns once that is done."""
        done = threading.Event()
        with self._signal:
            if self._closed or self._broken is not None:
                return
            self._changes.append(done)
            self._signal.notify()
        if not self.in_thread:
            done.wait()

    def close(self) -> None:
        """End the thread; what has not ended fails."""
        with self._signal:
            self._closed = True
            self._signal.notify()
        if not self.in_thread:
            self._thread.join()

    @property
    def in_thread(self) -> bool:
        """Whether the caller is the engine's own thread (a callback)."""
        return threading.current_thread() is self._thread

    @property
    def waiting(self) -> int:
        """Runs in the queue."""
        return len(self._queue)

    def _cancelled(self, run: Run) -> None:
        """A caller does not wait any more."""
        run.dead = True
        run.abandon()
        with self._signal:
            self._cancellations = True
            self._signal.notify()

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
        with self._signal:
            if not self._closed:
                self._broken = error
            waiting = [*self._open, *self._queue]
            self._queue.clear()
            changes, self._changes = self._changes, []
        self._mode.restore()
        self._wake()
        for run in waiting:
            run.resolve(error)
        for done in changes:
            done.set()
        self._jobs, self._open = [], set()
        self.live.clear()
        self.prefixes.clear()
        self.audio.clear()

    def _loop(self) -> None:
        while True:
            with self._signal:
                while not (self._queue or self._closed or self._changes or self._cancellations or self._busy):
                    self._signal.wait()
                if self._closed:
                    return
                changes, self._changes = self._changes, []
                cancellations, self._cancellations = self._cancellations, False
            if cancellations:
                self._remove([row for row, run in enumerate(self.live.runs) if run.dead])
                self._open = {run for run in self._open if not run.dead}
            if changes:
                self._drop_old()
                for done in changes:
                    done.set()
            arrived = self._arrivals()
            if arrived:
                self._mode.enter()
                self._admit(arrived)
            if self._jobs:
                self._prefill()
            if self.live.runs:
                self._decode()
            if not self._busy and not self._queue:
                self._mode.restore()  # before anyone is woken, who may want to train
            self._wake()

    @property
    def _busy(self) -> bool:
        """Whether there is something to compute."""
        return bool(self._jobs or self.live.runs)

    def _arrivals(self) -> list[Run]:
        """Take runs from the queue, first come first served, while there is room for them."""
        if self._jobs:
            return []
        arrived: list[Run] = []
        with self._signal:
            while self._queue and len(self.live.runs) + len(arrived) < self._max_batch:
                run = self._queue[0]
                if not run.dead:
                    alone = not self.live.runs and not arrived
                    if not alone and self.live.bytes_with([*arrived, run]) > self._live_bytes:
                        break
                    arrived.append(run)
                self._queue.popleft()
        self._open.update(arrived)
        return arrived

    def _admit(self, runs: Sequence[Run]) -> None:
        """Find what is cached, encode what is not stored, and lay out the rest of the contexts as jobs."""
        try:
            matched = [(run, self.prefixes.match(run.symbols()[:-1])) for run in runs]
            self._encode([(run, sum(map(tokens_in, parts))) for run, parts in matched])
            self._jobs = plan([(run, parts) for run, parts in matched if not run.dead], self._budget)
        except Exception as error:
            self._jobs = []
            for run in runs:
                self._fail(run, error)
            return
        first_time = {run for run in runs if not run.sampled}
        for run, parts in matched:
            if run in first_time:
                run.cached_tokens = sum(map(tokens_in, parts))
        for job in self._jobs:
            for run in first_time.intersection(job.sharing[1:]):
                run.cached_tokens += job.end - job.start
        self.counts["runs"] += len(first_time)
        self.counts["prompt_tokens"] += sum(len(run.ids) for run in first_time)
        self.counts["cached_tokens"] += sum(run.cached_tokens for run in first_time)

    def _encode(self, runs: Sequence[tuple[Run, int]]) -> None:
        """Get the embeddings of all audio that runs need after their cached prefixes (given as lengths)."""
        wanted = {run: run.audio_after(start) for run, start in runs}
        users = [run for run, refs in wanted.items() if refs]
        if not users:
            return
        began, batches = time.perf_counter(), self.audio.frozen.batches
        found = self.audio.embeddings([ref for run in users for ref in wanted[run]])
        seconds = time.perf_counter() - began if self.audio.frozen.batches > batches else 0.0
        for run in users:
            run.encode += seconds / len(users)
            for ref in wanted[run]:
                embeds = found[ref.key()]
                if isinstance(embeds, Exception):
                    self._fail(run, embeds)
                    break
                run.embeds[ref.key()] = embeds

    def _prefill(self) -> None:
        """Compute one batch of jobs; where that fails, each of them alone, to find the one at fault."""
        self._jobs = [job for job in self._jobs if not all(run.dead for run in job.sharing)]
        batch = next_batch(self._jobs, self._budget)
        if batch and not self._compute(batch):
            for job in batch:
                self._compute([job])

    def _compute(self, jobs: Sequence[Job]) -> bool:
        """Compute jobs; runs whose contexts are complete get their first token and join the live batch.

        Says whether that was possible; a job that fails alone fails its runs.
        """
        began = time.perf_counter()
        try:
            scores, kv = compute(self._family, jobs)
            ready = [(row, run) for row, job in enumerate(jobs) for run in job.finishing if not run.dead]
            chosen: list[Choice] = []
            if ready:
                rows = torch.tensor([row for row, _ in ready], device=scores.device)
                chosen = self.live.choose(scores.index_select(0, rows), [run for _, run in ready])
        except Exception as error:
            if len(jobs) > 1:
                return False
            for run in jobs[0].sharing:
                self._fail(run, error)
            return True
        parts = [[*job.prefix(), own] for job, own in zip(jobs, kv, strict=True)]
        for job, own, held in zip(jobs, kv, parts, strict=True):
            job.kv = own
            self._jobs.remove(job)
            self._keep(job.symbols[: job.end], held)
        seconds = (time.perf_counter() - began) / sum(len(job.sharing) for job in jobs)
        for job in jobs:
            for run in job.sharing:
                run.prefill += seconds
        for (row, run), choice in zip(ready, chosen, strict=True):
            run.embeds.clear()
            if self._accept(run, choice):
                self._end(run)
            else:
                self._join(run, parts[row])
        self.counts["prefill_batches"] += 1
        self.counts["prefilled_tokens"] += sum(job.end - job.start for job in jobs)
        return True

    def _decode(self) -> None:
        """One step of the live batch."""
        began = time.perf_counter()
        runs = list(self.live.runs)
        try:
            chosen = self.live.step()
        except Exception as error:  # which row it was cannot be known, and a step cannot be taken back
            for run in runs:
                self._fail(run, error)
            self._remove(range(len(runs)))
            return
        ended = [row for row, choice in enumerate(chosen) if self._accept(runs[row], choice)]
        self.counts["decode_steps"] += 1
        self.counts["decoded_tokens"] += len(runs)
        self._share += (time.perf_counter() - began) / len(runs)
        if ended:
            for row in ended:
                if not runs[row].dead:
                    self._keep(runs[row].symbols()[:-1], [self.live.kv(row)])
            self._remove(ended)
            for row in ended:
                self._end(runs[row])

    def _join(self, run: Run, parts: Sequence[Tensor]) -> None:
        """Put a run whose first token was sampled into the live batch."""
        try:
            self.live.join(run, parts)
        except Exception as error:
            self._fail(run, error)
        else:
            run.joined_at = self._share

    def _remove(self, rows: Sequence[int]) -> None:
        """Take rows out of the live batch."""
        for row in rows:
            run = self.live.runs[row]
            run.decode += self._share - run.joined_at
        self.live.leave(rows)

    def _keep(self, symbols: Symbols, parts: Sequence[Tensor]) -> None:
        """Keep KV for whoever continues from there; where memory is short, do without all that is kept."""
        try:
            self.prefixes.insert(symbols, parts)
        except torch.OutOfMemoryError:
            self.prefixes.clear()

    def _accept(self, run: Run, choice: Choice) -> bool:
        """Give a run its next token; says whether it has ended, well or not."""
        try:
            return run.accept(choice)
        except BaseException as error:  # of the caller's callback, or scores that are not numbers
            self._fail(run, error)
            return True

    def _end(self, run: Run) -> None:
        """Note the result of a run that has ended."""
        if run.dead:
            return
        try:
            self._outcomes.append((run, run.generation()))
        except Exception as error:
            self._fail(run, error)

    def _fail(self, run: Run, error: BaseException) -> None:
        """Note that a run has ended with an error."""
        if not run.dead:
            run.dead = True
            self._outcomes.append((run, error))

    def _wake(self) -> None:
        """Hand out what has ended."""
        outcomes, self._outcomes = self._outcomes, []
        for run, outcome in outcomes:
            self._open.discard(run)
            run.resolve(outcome)

    def _drop_old(self) -> None:
        """Drop what was computed with old weights; runs that have begun go on from their tokens, computed anew."""
        self.prefixes.clear()
        self.audio.weights_changed()
        begun = list(self.live.runs)
        begun += [run for job in self._jobs for run in job.finishing]
        self._remove(range(len(self.live.runs)))
        self._jobs = []
        for run in begun:
            run.embeds.clear()
        with self._signal:
            self._queue.extendleft(reversed(begun))


class _EvalMode:
    """Puts the model's modules into evaluation mode for a while, and those back that were not."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._changed: list[torch.nn.Module] = []
        self._active = False

    def enter(self) -> None:
        """Evaluation mode for every module; nothing to do where that has been done."""
        if not self._active:
            self._active = True
            self._changed = [module for module in self._family.model.modules() if module.training]
            for module in self._changed:
                module.training = False

    def restore(self) -> None:
        """Training mode for the modules that were in it."""
        for module in self._changed:
            module.training = True
        self._changed = []
        self._active = False
