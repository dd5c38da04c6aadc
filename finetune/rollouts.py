"""Rollouts: sampled runs of the listening graph on a batch of questions, with what rewards and the trainer need.

All runs of a batch go through the same compiled graph and the same engine at once; the engine decodes whatever is
waiting as one batch and computes a group's common prompt once. A run depends only on its question, the seed and its
number, so it does not matter what else is in the batch, or whether training was resumed.

A rollout is read from its trajectory: ids exactly as they were sampled, their origins and log-probabilities. Runs that
break off are rollouts too. A run that fails with one of our errors (a context that is too long, a recording that cannot
be read) has no reward, and does not end the batch.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from echo_agent.answers import ANSWER, ANSWER_END
from echo_agent.audio.recording import AudioRef
from echo_agent.chat import ChatLALM
from echo_agent.controls import Control
from echo_agent.errors import ContextError, QuestionError, RecordingError
from echo_agent.families.base import Family
from echo_agent.finetune.config import RolloutConfig
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.rewards import Judged, needs_counterfactual, turn_tags
from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state
from echo_agent.results import EchoResult, result_of
from echo_agent.stores import RecordingStore
from echo_agent.trajectory import Segment, Trajectory

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """One run to make."""

    sample: Sample
    recording: AudioRef
    run: int
    """Its number: with the seed, it decides the sampling noise."""


@dataclass(frozen=True)
class Rollout:
    """One run, as rewards and the trainer see it."""

    task: Task
    trajectory: Trajectory
    judged: Judged | None
    """None where the run failed: there is nothing to reward."""
    broken: str = ""
    """Why it broke off: ``budget``, ``unparsed``, ``edited``, ``mixed`` (the weights were exchanged meanwhile) or the
    error; empty where it ended well."""
    failed_calls: int = 0
    """Calls for which nothing was heard."""


class Rollouts:
    """Makes rollouts with a model, in an event loop of its own that serves any number of batches."""

    def __init__(
        self, model: ChatLALM, recordings: RecordingStore, part: RolloutConfig, counterfactual: bool = False
    ) -> None:
        """Run ``model`` as ``part`` says.

        Args:
            model: The policy; its engine decodes.
            recordings: Where the samples of recordings are.
            part: Budget, sampling, and whether the policy may listen again.
            counterfactual: Run each rollout that listened and was right a second time without the crop: the same
                tokens up to the first call, which is answered by the request for the answer.
        """
        self._model, self._recordings, self._part = model, recordings, part
        self._counterfactual = counterfactual
        self._graph = build_listening_graph()
        self._budget = Budget(
            max_relistens=part.max_relistens,
            max_seconds=part.max_seconds,
            max_new_tokens=part.max_new_tokens,
            answer_tokens=part.answer_tokens,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="echo-agent-rollouts", daemon=True
        )
        self._thread.start()

    def weights_changed(self) -> None:
        """Drop what was computed with older weights."""
        self._model.engine.weights_changed()

    def run(self, tasks: Sequence[Task], seed: int) -> list[Rollout]:
        """Make all runs at once; returns their rollouts, in order.

        Raises:
            DataError: Features cannot be kept: the disk is full.
            EchoAgentError: This process was forked after the model was loaded.
        """
        self._model.engine.check_process()
        control: Control = "on" if self._part.listen else "off"
        try:
            return self._wait(self._all(tasks, seed, control))
        except ExceptionGroup as group:  # a mistake of ours, or a full disk: the first is as good as any
            raise group.exceptions[0] from None

    def close(self) -> None:
        """End the event loop, and the runs in it that nobody waits for any more: those of an interrupted batch.

        In a forked process there is no loop to end.
        """
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # an interrupt of the caller: nobody wants the runs any more
            future.cancel()
            raise

    async def _all(self, tasks: Sequence[Task], seed: int, control: Control) -> list[Rollout]:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(self._one(task, seed, control)) for task in tasks]
        return [done.result() for done in running]

    async def _one(self, task: Task, seed: int, control: Control) -> Rollout:
        try:
            result = await self._result(task, seed, control)
            judged = judge(result, task, self._model.family)
            if self._counterfactual and needs_counterfactual(judged):
                without = await self._result(task, seed, "off")
                judged = replace(judged, correct_without=task.sample.is_right(without.answer))
        except (ContextError, RecordingError, QuestionError) as error:
            return self._failed(task, str(error))
        if result.mixed:
            return self._failed(task, "mixed")
        broken = "edited" if result.trajectory.rerendered else ""
        broken = broken or ("unparsed" if result.answer is None else "budget" * judged.forced)
        return Rollout(task, result.trajectory, judged, broken, result.failed_calls)

    async def _result(self, task: Task, seed: int, control: Control) -> EchoResult:
        sample, part = task.sample, self._part
        context = ListeningContext(
            model=self._model,
            recordings=self._recordings,
            budget=self._budget,
            control=control,
            seed=seed,
            temperature=part.temperature,
            top_p=part.top_p,
            guided=False,
            stream_tokens=False,
        )
        state: Any = initial_state(sample.question, [task.recording], sample.choices, run=task.run)
        done = await self._graph.ainvoke(state, context=context)
        return result_of(done, self._model.family)

    def _failed(self, task: Task, why: str) -> Rollout:
        """A rollout to train nothing on: two ends of turn, without audio, since that may be what failed."""
        end = (self._model.family.eos_ids[0],)
        nothing = Trajectory().append(Segment(origin="prompt", ids=end), Segment(origin="tool", ids=end))
        return Rollout(task, nothing, None, why)


async def _end_others() -> None:
    """Cancel all other tasks of this loop, and wait until they have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def judge(result: EchoResult, task: Task, family: Family) -> Judged:
    """What rewards look at in one run."""
    sample = task.sample
    correct = sample.is_right(result.answer)
    return Judged(
        text=result.text,
        correct=correct,
        forced=result.budget_exhausted,
        confidence=answer_confidence(result.trajectory, family, sample.right[0], correct),
        asked=tuple((record.start, record.end) for record in result.relistens),
        seconds_heard=result.seconds_heard,
        gold_spans=sample.gold_spans,
        correct_without=None,
        tags=turn_tags(family),
    )


def answer_confidence(trajectory: Trajectory, family: Family, right: str, correct: bool) -> float | None:
    """Probability of the answer's first token; of a wrong one, of the first token that is not the right answer's.

    From the log-probabilities recorded while sampling (Echo, arXiv 2602.11909, the accuracy term of its released code).
    None where no answer was opened, or nothing was sampled after that.
    """
    sampled = [
        (token, logprob)
        for segment in trajectory.segments
        if segment.origin != "prompt"
        for token, logprob in zip(
            segment.ids, segment.logprobs or (math.nan,) * len(segment.ids), strict=True
        )
    ]
    ids = [token for token, _ in sampled]
    first = _after(ids, ANSWER, family)
    if first is None:
        return None
    wanted = family.tokenize(family.written(f"{ANSWER}{right}{ANSWER_END}"))
    wanted = wanted[_after(wanted, ANSWER, family) or 0 :]
    written = sampled[first:]
    apart = (
        0 if correct else next((i for i, (token, _) in enumerate(written) if [token] != wanted[i : i + 1]), 0)
    )
    if not written or math.isnan(written[apart][1]):
        return None
    return math.exp(written[apart][1])


def _after(ids: Sequence[int], tag: str, family: Family) -> int | None:
    """Index of the first token after the last ``tag`` in the text of ``ids``."""
    before = family.detokenize(ids).rpartition(tag)
    if not before[1]:
        return None
    size = len(before[0]) + len(tag)
    low, high = 0, len(ids)
    while low < high:  # the text grows with the ids
        middle = (low + high) // 2
        if len(family.detokenize(ids[:middle])) < size:
            low = middle + 1
        else:
            high = middle
    return low
