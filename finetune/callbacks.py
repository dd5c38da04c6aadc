"""What a person watches of a training: its log, a line per logged step, and a stop where nothing is left to learn.

:class:`Journal` and :class:`CollapseStop` are callbacks of transformers' ``Trainer``, so that SFT and RL share them.
The log is the run's memory: one JSON object per line of ``log.jsonl``, with the step, the seconds since the run began,
and every finite number that the trainer logged. It outlives the process: a run that is resumed from a checkpoint cuts
what it is about to do again, and its clock goes on from there.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from pathlib import Path
from time import monotonic
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from echo_agent.errors import DataError
from echo_agent.finetune.config import CollapseConfig
from echo_agent.finetune.plots import draw_curves

LOG = "log.jsonl"
CURVES = "curves.png"
LINES = 8
"""Logged steps that the time left is told from: a run that has encoded its recordings is faster than before."""
SUMMARY = "train_runtime"
"""Key of the line that the trainer logs when it ends; a run that is resumed from there has not ended."""
SHOWN = {
    "loss": "loss {:.3g}",
    "train_loss": "mean loss {:.3g}",
    "eval_loss": "validation loss {:.3g}",
    "mean_token_accuracy": "tokens right {:.0%}",
    "eval_mean_token_accuracy": "tokens right {:.0%}",
    "reward": "reward {:.3g}",
    "rollout/right": "right {:.0%}",
    "rollout/listened": "listened {:.0%}",
    "rollout/seconds_heard": "heard {:.1f} s",
    "entropy": "entropy {:.3g}",
}
"""What is reported of a logged step, in this order, and how."""


class Journal(TrainerCallback):
    """Keeps the log and the curves of a run in its folder, and reports each logged step as a line.

    Args:
        folder: Folder of the run; ``log.jsonl`` and ``curves.png`` are written there by the main process.
        steps: Optimiser steps of the whole run.
        report: Told what was logged, a line at a time.
    """

    def __init__(self, folder: Path, steps: int, report: Callable[[str], None]) -> None:
        self.folder = folder
        self.steps = steps
        self.report = report
        self._rows: list[dict[str, float]] = []
        self._first = 0
        self._drawn = -1
        """Lines of the log that the curves show."""
        self._before = 0.0
        self._began = monotonic()
        self._pace: deque[tuple[int, float]] = deque(maxlen=LINES)
        """Steps that were logged last, and when, in seconds since this process began."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Cut the log at the step that the run is resumed from.

        Raises:
            DataError: A line that is to be kept is damaged.
        """
        if state.is_world_process_zero:
            self._rows = _cut(self.folder / LOG, state.global_step)
            self._first = state.global_step
            self._before = self._rows[-1]["seconds"] if self._rows else 0.0
            self._began = monotonic()
            self._pace.clear()
            self._drawn = -1

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a line of the log, and report it."""
        if not state.is_world_process_zero:
            return
        numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, Real)}
        elapsed = monotonic() - self._began
        row: dict[str, float] = {"step": state.global_step, "seconds": round(self._before + elapsed, 3)}
        row |= {key: float(value) for key, value in numbers.items() if isfinite(value)}
        self._rows.append(row)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = ", ".join(words.format(numbers[key]) for key, words in SHOWN.items() if key in numbers)
        place = f"step {state.global_step} of {self.steps}"
        if SUMMARY in numbers or state.global_step >= self.steps:
            place += f", {_words(row['seconds'])} in all"
        elif (left := self._left(state.global_step, elapsed)) is not None:
            place += f", about {_words(left)} left"
        self.report(f"{place}: {shown}" if shown else place)

    def _left(self, step: int, elapsed: float) -> float | None:
        """Seconds that the remaining steps may take, at the pace of the last lines; None where that is not known yet.

        The first step of a process does not count: it loads and encodes what later ones find there.
        """
        if step == self._first:
            return None
        if not self._pace or step > self._pace[-1][0]:
            self._pace.append((step, elapsed))
        (before, then), (now, at) = self._pace[0], self._pace[-1]
        return (at - then) / (now - before) * (self.steps - step) if now > before else None

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the curves, unless there is nothing new to show: it takes a second."""
        lines = sum(SUMMARY not in row for row in self._rows)
        if state.is_world_process_zero and lines != self._drawn:
            draw_curves(self._rows, self.folder / CURVES, self.folder.resolve().name)
            self._drawn = lines

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the curves."""
        self.on_save(args, state, control)


class CollapseStop(TrainerCallback):
    """Stops RL once all rollouts have become alike, which leaves no advantage to learn from.

    Every process decides for itself: what it looks at is gathered, and so the same in all of them. A run that is
    resumed from a checkpoint counts from the trainer's history, as if it had never been broken off.

    Args:
        limits: When to stop. A limit at its default is not looked at, so that none of rounding can cross it.
    """

    def __init__(self, limits: CollapseConfig) -> None:
        self.patience = limits.patience
        self.reason: str | None = None
        """Why the run was stopped, with what to change; None while it was not."""
        share, nats = "{:.1%} of the rollouts", "{:.3g} nats per token"
        every = {
            "listened_below": _Limit(
                "rollout/listened", limits.listened_below, False, f"the policy listened in less than {share}",
                "raise rewards.relisten or loss.entropy, or lower optimiser.learning_rate",
            ),
            "listened_above": _Limit(
                "rollout/listened", limits.listened_above, True, f"the policy listened in more than {share}",
                "lower rewards.relisten, raise rewards.price or loss.entropy, or lower optimiser.learning_rate",
            ),
            "entropy_below": _Limit(
                "entropy", limits.entropy_below, False, f"the entropy was less than {nats}",
                "raise loss.entropy or rollout.temperature, or lower optimiser.learning_rate",
            ),
        }  # fmt: skip
        fields = CollapseConfig.model_fields
        self._limits = [limit for name, limit in every.items() if limit.value != fields[name].default]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count what was logged before the checkpoint that the run is resumed from."""
        self.reason = None
        for limit in self._limits:
            limit.beyond = 0
            for logs in state.log_history:
                limit.count(logs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Count, and stop when the patience is at its end."""
        for limit in self._limits:
            limit.count(logs or {})
            if limit.beyond >= self.patience and self.reason is None:
                control.should_training_stop = True
                self.reason = (
                    f"collapsed at step {state.global_step}: for {limit.beyond} logged steps in a row "
                    f"{limit.words.format(limit.value)} (last: {limit.last:.3g}); {limit.advice}"
                )


@dataclass
class _Limit:
    """One limit, and for how many logged steps in a row it has been crossed."""

    key: str
    value: float
    above: bool
    """Whether it is crossed from below."""
    words: str
    advice: str
    beyond: int = 0
    last: float = 0.0

    def count(self, logs: Mapping[str, Any]) -> None:
        """Look at one logged step; one without the value (of a validation, or of no rollouts) does not count."""
        value = logs.get(self.key)
        if isinstance(value, Real) and isfinite(value):
            self.last = float(value)
            crossed = self.last > self.value if self.above else self.last < self.value
            self.beyond = self.beyond + 1 if crossed else 0


def read_log(folder: Path) -> list[dict[str, float]]:
    """Read the log of a run, a dict per logged step; all have ``step`` and ``seconds``.

    Raises:
        DataError: There is none, or a line of it is damaged.
    """
    path = folder / LOG
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(
            f"cannot read the log {path} ({error.strerror}): name the folder of a training run that has logged a step"
        ) from None
    return _parse(text.removesuffix("\n").split("\n"), path)


def last_row(folder: Path) -> dict[str, float]:
    """The last step that was logged with its loss, without the trainer's summary of the whole."""
    return next((row for row in reversed(read_log(folder)) if "loss" in row), {})


def _parse(lines: Sequence[str], path: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not {"step", "seconds"} <= row.keys() or not _numeric(row):
            raise DataError(
                f"{path}:{number}: damaged: a JSON object of numbers, step and seconds among them, is expected; "
                "remove the line"
            )
        rows.append(row)
    return rows


def _numeric(row: Mapping[str, Any]) -> bool:
    return all(type(value) in (int, float) for value in row.values())


def _cut(path: Path, step: int) -> list[dict[str, float]]:
    """Leave in a log what an unbroken run would have written up to a step; returns it.

    A last line without its end was being written when the process died, and goes too.
    """
    if step == 0 or not path.exists():
        path.unlink(missing_ok=True)
        return []
    whole = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
    rows = [row for row in _parse(whole.split("\n"), path) if row["step"] <= step and SUMMARY not in row]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    partial.replace(path)
    return rows


def _words(seconds: float) -> str:
    """A duration, as exactly as a person wants it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
