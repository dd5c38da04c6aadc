"""Evaluation with controls: the same questions with re-listening on, off, with a wrong crop, or without audio.

Accuracy alone does not say whether listening again helped, or whether anything was heard. So each row is asked once per
control and seed:

- ``on``: the agent as it is;
- ``off``: the first call is answered with the request for the answer;
- ``wrong-crop``: what is delivered is another stretch of the same length and transform, which overlaps neither with a
  gold span nor with what was asked for, and is not silent;
- ``silence``: what is delivered is as much silence;
- ``oracle``: what is delivered is a gold span, wherever the policy wanted to listen; rows without one are not asked;
- ``no-audio``: the recording itself is as long, and silent: what can be guessed from the question alone.

All controls of a row but ``no-audio`` are one run until the policy first calls, which is made once; from there each
goes its own way (:meth:`EchoAgent.acontrols <echo_agent.agent.EchoAgent.acontrols>`). Rows run concurrently, so that
the engine decodes them as one batch. Results are written as they come, and what is already there is not run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, SerializeAsAny

from echo_agent.answers import as_written
from echo_agent.audio.files import FileStamp, sha256_of
from echo_agent.audio.recording import Recording
from echo_agent.controls import Condition, Control
from echo_agent.errors import DataError, EchoAgentError, QuestionError, RecordingError
from echo_agent.results_file import Key, Results
from echo_agent.rows import Question
from echo_agent.scores import Outcome

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent, EchoResult

SILENT_RATE = 8000
"""Samples per second of a silent recording, in Hz."""
CONDITIONS = get_args(Condition)


class Failure(BaseModel):
    """A row that could not be run."""

    model_config = ConfigDict(frozen=True)

    row: SerializeAsAny[Question]
    control: Condition
    seed: int = 0
    message: str


def parse_controls(text: str) -> tuple[Condition, ...]:
    """Read a list such as ``on,off,wrong-crop``; raises QuestionError where it names something else."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in CONDITIONS:
            raise QuestionError(f"--controls: {name!r} is not a control; there are {', '.join(CONDITIONS)}")
    if not names:
        raise QuestionError(f"--controls is empty; there are {', '.join(CONDITIONS)}")
    return tuple(name for name in CONDITIONS if name in names)


def can_be_asked(row: Question, control: Condition) -> bool:
    """Whether a row is asked under a control: under ``oracle`` only where it is known what must be heard."""
    return control != "oracle" or bool(row.gold_spans)


def questions_hash(rows: Sequence[Question]) -> str:
    """A hash of questions, to tell whether two evaluations are about the same ones."""
    asked = [row.model_dump(mode="json", exclude={"audio"}) for row in rows]
    return _hash({"questions": asked})


async def evaluate(
    agent: EchoAgent,
    rows: Sequence[Question],
    results: Results,
    *,
    controls: Sequence[Condition] = ("on",),
    seed: int = 0,
    seeds: int = 1,
    max_relistens: int = 8,
    temperature: float = 0.0,
    guided: bool = True,
    concurrency: int = 32,
    questions: str = "",
    progress: Callable[[Outcome | None], None] | None = None,
) -> list[Failure]:
    """Ask every row once per control and seed.

    Args:
        agent: The agent to ask.
        rows: The questions, from :func:`~echo_agent.rows.read_rows` or a benchmark's reader.
        results: Takes each outcome as it comes; what it already holds is not run again. At the end its lines are put
            in order.
        controls: Under which conditions each row is asked.
        seed: Of sampling and of the choice of wrong crops. Runs are numbered by the ids of their rows, so that what
            comes of a row depends neither on the order nor on the other rows.
        seeds: How many seeds each row is asked with, ``seed`` being the first.
        max_relistens: Budget of calls.
        temperature: 0 for greedy decoding.
        guided: Nothing but one of the choices may be written as the answer; False leaves the policy free.
        concurrency: Most runs at once.
        questions: Hash of the whole file of questions (:func:`questions_hash`), of which ``rows`` may be a part.
        progress: Called after each run with its outcome, None where it failed, and at once with each outcome that was
            already there.

    Returns:
        The rows that could not be run (an unreadable recording, one that is too long), in the order of the rows and,
        for one row, of the controls, whichever run broke off first.

    Raises:
        DataError: ``results`` holds outcomes of another run, or cannot be written any more; what was written is kept.
    """
    options = {"max_relistens": max_relistens, "temperature": temperature, "guided": guided}
    made_by = {"model": agent.fingerprint, "version": version("echo-agent"), **options}
    runs = await _runs(rows, controls, range(seed, seed + seeds), made_by)
    todo = [run for run in runs if not results.has(run.key, run.hash)]
    if progress:
        for run in runs:
            if (known := results.outcomes.get(run.key)) is not None:
                progress(known)
    common = _hash(made_by | {"questions": questions})
    failures: dict[Key, Failure] = {}
    queue = deque(_together(todo))

    def book(run: _Run, outcome: Outcome | None) -> None:
        if outcome is not None:
            results.add(outcome)
        if progress:
            progress(outcome)

    async def worker() -> None:
        while queue:
            several = queue.popleft()
            try:
                found = await _ask(agent, several, options)
            except EchoAgentError as error:
                if len(several) > 1:  # it may be one of them that fails: each by itself
                    queue.extendleft([run] for run in reversed(several))
                    continue
                failures[several[0].key] = several[0].failed(error)
                book(several[0], None)
            else:
                for run, result in zip(several, found, strict=True):
                    book(run, run.outcome(result, common))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(todo))):
                group.create_task(worker())
    except BaseExceptionGroup as several:
        full, others = several.split(DataError)
        if full is None or others is not None:
            raise
        raise full.exceptions[0] from None
    results.arrange()
    return [failures[run.key] for run in todo if run.key in failures]


@dataclass(frozen=True)
class _Run:
    """One row under one control with one seed."""

    row: Question
    control: Condition
    seed: int
    hash: str
    """Of everything that the outcome depends on: what must be equal for a line of results to stand for it."""

    @property
    def key(self) -> Key:
        """What tells it from the others."""
        return self.row.id, self.control, self.seed

    def outcome(self, result: EchoResult, made_by: str) -> Outcome:
        """The line of results of what came of it."""
        return Outcome(
            id=self.row.id,
            control=self.control,
            seed=self.seed,
            line=self.row.line,
            answer=result.answer,
            correct=self.row.is_right(result.answer),
            status=result.status,
            prediction=as_written(result.text),
            relistens=tuple(record.model_dump(mode="json") for record in result.relistens),
            tokens=dict(result.tokens),
            seconds_heard=result.seconds_heard,
            budget_exhausted=result.budget_exhausted,
            run=self.hash,
            made_by=made_by,
        )

    def failed(self, error: EchoAgentError) -> Failure:
        """What is told of it where it could not be made."""
        return Failure(row=self.row, control=self.control, seed=self.seed, message=str(error))


async def _runs(
    rows: Sequence[Question], controls: Sequence[Condition], seeds: Sequence[int], made_by: Mapping[str, Any]
) -> list[_Run]:
    """All runs, with a hash of model, settings, question and what the recording holds (not of where it lies)."""
    paths = list(dict.fromkeys(row.audio for row in rows))
    content = dict(
        zip(paths, await asyncio.gather(*(asyncio.to_thread(_content, path) for path in paths)), strict=True)
    )
    return [
        _Run(
            row,
            control,
            seed,
            _hash({**made_by, **asked} | {"audio": content[row.audio], "control": control, "seed": seed}),
        )
        for row in rows
        for asked in [row.model_dump(mode="json")]
        for seed in seeds
        for control in controls
        if can_be_asked(row, control)
    ]


def _together(runs: Sequence[_Run]) -> list[list[_Run]]:
    """Runs that are the same until the policy calls: those of one row and seed that hear its recording."""
    found: dict[tuple[str, int, bool], list[_Run]] = {}
    for run in runs:
        found.setdefault((run.row.id, run.seed, run.control == "no-audio"), []).append(run)
    return list(found.values())


def _content(path: str) -> str:
    """Hash of a recording's bytes; its path where it cannot be read, which its run will say."""
    try:
        return sha256_of(FileStamp.of(path))
    except RecordingError:
        return path


async def _ask(agent: EchoAgent, runs: Sequence[_Run], options: Mapping[str, Any]) -> list[EchoResult]:
    """Ask one row under the controls of some runs; raises EchoAgentError where it cannot be run."""
    row = runs[0].row
    audio: Any = row.audio
    controls = [run.control for run in runs]
    if controls == ["no-audio"]:
        audio, controls = await asyncio.to_thread(_silent, row.audio), ["on"]
    found = await agent.acontrols(
        audio,
        row.question,
        row.choices,
        controls=cast("list[Control]", controls),
        gold_spans=row.gold_spans,
        run=int(_hash({"id": row.id})[:8], 16),
        seed=runs[0].seed,
        **options,
    )
    return list(found.values())


def _silent(path: str) -> Recording:
    """A recording in which nothing is heard, as long as another."""
    duration = Recording.open(path).duration
    samples = np.zeros(max(1, math.ceil(duration * SILENT_RATE)), dtype=np.float32)
    return Recording.from_array(samples, SILENT_RATE, "silence")


def _hash(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
