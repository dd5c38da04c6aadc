"""Evaluation with controls: the same questions with re-listening on, off, and with a wrong crop.

Accuracy alone does not say whether listening again helped. So each row is asked once per control:

- ``on``: the agent as it is;
- ``off``: the first call is answered with the request for the answer;
- ``wrong-crop``: what is delivered is another stretch of the same length and transform, which overlaps neither with a
  gold span nor with what was asked for, and is not silent;
- ``silence``: what is delivered is as much silence.

Rows run concurrently, so that the engine decodes them as one batch; all controls of a row run together, so that the
recording is encoded once. Results are written as they come, and what is already there is not run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from echo_agent.errors import DataError, EchoAgentError, QuestionError
from echo_agent.rows import Row
from echo_agent.scores import Control, Outcome, is_correct

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent


LINE_START = b'{"id":'
"""How each line of results begins: a torn last line is known by it."""


class Failure(BaseModel):
    """A row that could not be run; it is not scored."""

    model_config = ConfigDict(frozen=True)

    row: Row
    control: Control
    message: str


def parse_controls(text: str) -> tuple[Control, ...]:
    """Read a list such as ``on,off,wrong-crop``; raises QuestionError where it names something else."""
    known = get_args(Control)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise QuestionError(f"--controls: {name!r} is not a control; there are {', '.join(known)}")
    if not names:
        raise QuestionError(f"--controls is empty; there are {', '.join(known)}")
    return tuple(name for name in known if name in names)


class Results:
    """``results.jsonl``: one line per row and control, written as it goes, so that a killed evaluation goes on."""

    def __init__(self, path: str | Path | None) -> None:
        """Open a file of results.

        Args:
            path: File to go on with or to begin; None keeps them in memory only.

        Raises:
            DataError: The file is not one of results.
        """
        self.path = Path(path) if path is not None else None
        self.outcomes: dict[tuple[str, Control], Outcome] = {}
        if self.path is None:
            return
        whole = b""
        try:
            if self.path.exists():
                whole = self._load(self.path)
            self._file = self.path.open("r+b" if self.path.exists() else "wb")
            self._file.truncate(len(whole))
            self._file.seek(len(whole))
        except OSError as error:
            raise DataError(f"cannot write results to {self.path}: {error.strerror}") from None

    def _load(self, path: Path) -> bytes:
        """Read finished lines; what a killed run left behind after the last of them is dropped."""
        whole = path.read_bytes()
        whole, torn = whole[: whole.rfind(b"\n") + 1], whole[whole.rfind(b"\n") + 1 :]
        if not torn.startswith(LINE_START[: len(torn)]):
            raise DataError(f"{path} is not a file of results; name another file for --out")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                outcome = Outcome.model_validate_json(line)
            except ValidationError:
                raise DataError(
                    f"{path}:{number}: not a line of results; name another file for --out"
                ) from None
            self.outcomes[outcome.id, outcome.control] = outcome
        return whole

    def has(self, row: Row, control: Control, run: str) -> bool:
        """Whether this row has been run; raises DataError where it was, but with other settings."""
        known = self.outcomes.get((row.id, control))
        if known is not None and known.run != run:
            raise DataError(
                f"{self.path} holds results of another run (row {row.id!r}: another question, model, seed or setting); "
                "name another file for --out, or remove this one"
            )
        return known is not None

    def add(self, outcome: Outcome) -> None:
        """Keep and write one outcome."""
        self.outcomes[outcome.id, outcome.control] = outcome
        if self.path is not None:
            self._file.write(outcome.model_dump_json().encode() + b"\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self.path is not None:
            self._file.close()


async def evaluate(
    agent: EchoAgent,
    rows: Sequence[Row],
    results: Results,
    *,
    controls: Sequence[Control] = ("on",),
    seed: int = 0,
    max_relistens: int = 8,
    temperature: float = 0.0,
    guided: bool = True,
    concurrency: int = 32,
    progress: Callable[[], None] | None = None,
) -> list[Failure]:
    """Ask every row once per control.

    Args:
        agent: The agent to ask.
        rows: The questions, from :func:`~echo_agent.rows.read_rows`.
        results: Takes each outcome as it comes; what it already holds is not run again.
        controls: Under which conditions each row is asked.
        seed: Of sampling and of the choice of wrong crops. Runs are numbered by the ids of their rows, so that what
            comes of a row depends neither on the order nor on the other rows.
        max_relistens: Budget of calls.
        temperature: 0 for greedy decoding.
        guided: Nothing but one of the choices may be written as the answer; False leaves the policy free.
        concurrency: Most runs at once.
        progress: Called after each run, and at once for each that was already there.

    Returns:
        The rows that could not be run (an unreadable recording, one that is too long), in the order of the rows and,
        for one row, of the controls, whichever run broke off first.

    Raises:
        DataError: ``results`` holds outcomes of another run.
    """
    settings = {
        "model": agent.fingerprint,
        "seed": seed,
        "max_relistens": max_relistens,
        "temperature": temperature,
        "guided": guided,
    }
    todo: list[tuple[Row, Control, str]] = []
    for row in rows:
        for control in controls:
            run = _hash(settings | row.model_dump(mode="json") | {"control": control})
            if not results.has(row, control, run):
                todo.append((row, control, run))
            elif progress:
                progress()
    failures: list[Failure] = []
    queue = iter(todo)

    async def worker() -> None:
        for row, control, run in queue:
            try:
                result = await agent.aask(
                    row.audio,
                    row.question,
                    row.choices,
                    control=control,
                    gold_spans=row.gold_spans,
                    seed=seed,
                    run=int(_hash({"id": row.id})[:8], 16),
                    max_relistens=max_relistens,
                    temperature=temperature,
                    guided=guided,
                )
            except EchoAgentError as error:
                failures.append(Failure(row=row, control=control, message=str(error)))
            else:
                results.add(
                    Outcome(
                        id=row.id,
                        control=control,
                        answer=result.answer,
                        correct=is_correct(row, result.answer),
                        status=result.status,
                        relistens=tuple(record.model_dump(mode="json") for record in result.relistens),
                        tokens=dict(result.tokens),
                        seconds_heard=result.seconds_heard,
                        budget_exhausted=result.budget_exhausted,
                        run=run,
                    )
                )
            if progress:
                progress()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(todo))):
            group.create_task(worker())
    order = {(row.id, control): i for i, (row, control, _) in enumerate(todo)}
    return sorted(failures, key=lambda failure: order[failure.row.id, failure.control])


def _hash(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
