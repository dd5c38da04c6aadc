"""The log of a run, through a real trainer: what is written and said, that it outlives a crash, and what stops RL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.image import imread
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from echo_agent.errors import DataError
from echo_agent.finetune import callbacks as watch
from echo_agent.finetune.callbacks import CURVES, LOG, CollapseStop, Journal, read_log
from echo_agent.finetune.config import CollapseConfig

STEPS = 12


class Line(torch.nn.Module):
    """Learns two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        guess = x @ self.weight
        return {"loss": (guess - labels).square().mean(), "logits": guess}


class Broken(Exception):
    """What a crash raises."""


class Crash(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise Broken


class Stop(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


class Speaking(Trainer):
    """Logs more, as TRL's trainers do."""

    def __init__(self, extra: dict[int, dict[str, Any]], **settings: Any) -> None:
        super().__init__(**settings)
        self.extra = extra

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.extra.get(self.state.global_step, {}))
        super().log(logs, start_time)


def train(
    folder: Path,
    *callbacks: TrainerCallback,
    extra: dict[int, dict[str, Any]] | None = None,
    resume: bool = False,
    steps: int = STEPS,
    **settings: Any,
) -> Speaking:
    """Train the line; checkpoints after every fourth step."""
    torch.manual_seed(0)
    rows = [{"x": [float(i % 3), float(i % 5)], "labels": float(i % 3 + 2 * (i % 5))} for i in range(40)]
    arguments = TrainingArguments(
        str(folder / "checkpoints"), max_steps=steps, per_device_train_batch_size=4, learning_rate=0.1, use_cpu=True,
        logging_steps=1, save_steps=4, report_to="none", disable_tqdm=True, dataloader_pin_memory=False, **settings,
    )  # fmt: skip
    trainer = Speaking(
        extra or {}, model=Line(), args=arguments, train_dataset=rows, eval_dataset=rows[:8], callbacks=list(callbacks)
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def silent(line: str) -> None:
    """Report to nobody."""


def test_a_line_for_each_logged_step(tmp_path: Path) -> None:
    said: list[str] = []
    trainer = train(tmp_path, Journal(tmp_path, STEPS, said.append), eval_strategy="steps", eval_steps=6)
    rows = read_log(tmp_path)
    steps = [*range(1, 7), 6, *range(7, 13), 12, 12]
    assert [row["step"] for row in rows] == steps and len(said) == len(steps)
    for row, logged in zip(rows, trainer.state.log_history, strict=True):
        assert row == {**logged, "seconds": row["seconds"]}  # all of these are numbers
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds) and 0 <= seconds[0] < seconds[-1] < 60
    assert "loss" in rows[0] and "eval_loss" in rows[6] and "train_runtime" in rows[-1]
    assert re.fullmatch(r"step 1 of 12: loss [\d.]+", said[0])
    assert re.fullmatch(r"step 6 of 12, about \d+ s left: validation loss [\d.]+", said[6])
    assert re.fullmatch(r"step 12 of 12, \d+ s in all: mean loss [\d.]+", said[-1])
    assert imread(tmp_path / CURVES).ndim == 3


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    """None and text are left out of log and line; what is not finite is reported, but has no place in JSON."""
    said: list[str] = []
    odd = {"rollout/right": None, "kl": float("nan"), "entropy": float("inf"), "note": "text"}
    train(tmp_path, Journal(tmp_path, 1, said.append), extra={1: odd}, steps=1)
    assert not odd.keys() & read_log(tmp_path)[0].keys()
    assert said[0].endswith("entropy inf") and "right" not in said[0]
    for line in (tmp_path / LOG).read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_what_is_reported_of_rl(tmp_path: Path) -> None:
    said: list[str] = []
    rl = {
        "rollout/right": 0.5,
        "rollout/listened": 0.625,
        "rollout/seconds_heard": 3.44,
        "reward": 1.25,
        "entropy": 0.0512,
    }
    train(tmp_path, Journal(tmp_path, 3, said.append), extra={2: rl}, steps=3)
    assert said[1].endswith(", reward 1.25, right 50%, listened 62%, heard 3.4 s, entropy 0.0512")
    assert "reward" not in said[0] + said[2]


@pytest.mark.usefixtures("undrawn")
def test_a_resumed_log_equals_an_unbroken_one(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(whole, Journal(whole, STEPS, silent))
    with pytest.raises(Broken):
        train(parts, Journal(parts, STEPS, silent), Crash(7))
    assert [row["step"] for row in read_log(parts)] == list(range(1, 8))  # three of them are done again
    before = read_log(parts)[:4]
    with (parts / LOG).open("a") as file:
        file.write('{"step": 8, "sec')  # the process died while it wrote
    train(parts, Journal(parts, STEPS, silent), resume=True)
    one, other = read_log(whole), read_log(parts)
    assert other[:4] == before
    assert [row["step"] for row in one] == [row["step"] for row in other] == [*range(1, 13), 12]
    for mine, yours in zip(one[:-1], other[:-1], strict=True):
        assert mine["loss"] == pytest.approx(yours["loss"], rel=1e-6)
        assert mine.keys() == yours.keys()


@pytest.mark.usefixtures("undrawn")
def test_what_the_trainer_ends_with_is_no_step(tmp_path: Path) -> None:
    """A run that was stopped has a last line, which is not kept when it is resumed."""
    train(tmp_path, Journal(tmp_path, STEPS, silent), Stop(4))
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 3, 4, 4]
    assert "train_runtime" in read_log(tmp_path)[-1]
    train(tmp_path, Journal(tmp_path, STEPS, silent), resume=True)
    assert [row["step"] for row in read_log(tmp_path)] == [*range(1, 13), 12]


def test_a_new_run_begins_a_new_log(tmp_path: Path) -> None:
    """A run that died before its first checkpoint starts again, whatever its log holds."""
    (tmp_path / LOG).write_text('{"step": 0, "seconds": 5.0}\nnonsense\n')
    train(tmp_path, Journal(tmp_path, 2, silent), steps=2)
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2, 2]


class Clock:
    """Time that stands still unless it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watch, "monotonic", clock)
    return clock


def begin(
    callback: TrainerCallback, step: int, *, main: bool = True, history: list[dict[str, float]] | None = None
) -> Any:
    """Begin, or go on; returns a function that logs at a step and says whether the run was stopped."""
    state = TrainerState(global_step=step, is_world_process_zero=main, log_history=history or [])
    arguments: Any = None
    control = TrainerControl()
    callback.on_train_begin(arguments, state, control)

    def log(at: int, **logs: Any) -> bool:
        state.global_step = at
        callback.on_log(
            arguments, state, control, logs={key.replace("__", "/"): value for key, value in logs.items()}
        )
        return control.should_training_stop

    return log


def test_time_goes_on_and_is_told_from_this_process(tmp_path: Path, clock: Clock) -> None:
    """Seconds go on from the last line that is kept; what is left is told from the steps since."""
    said: list[str] = []
    log = begin(Journal(tmp_path, 100, said.append), 0)
    for step in (10, 20):
        clock.now += 100
        log(step, loss=1.0)
    assert [row["seconds"] for row in read_log(tmp_path)] == [100, 200]
    clock.now += 5000  # nobody trains
    log = begin(Journal(tmp_path, 100, said.append), 10)
    log(10, eval_loss=2.0)
    clock.now += 30
    log(11, loss=0.5)
    clock.now += 3000
    log(12)
    assert [row["seconds"] for row in read_log(tmp_path)] == [100, 100, 130, 3130]
    assert said == [
        "step 10 of 100: loss 1",
        "step 20 of 100, about 13 min left: loss 1",
        "step 10 of 100: validation loss 2",
        "step 11 of 100: loss 0.5",
        "step 12 of 100, about 73.3 h left",
    ]


def test_the_first_step_is_no_measure_of_the_others(tmp_path: Path, clock: Clock) -> None:
    """It loads and encodes; and the pace of later lines replaces that of earlier ones."""
    said: list[str] = []
    log = begin(Journal(tmp_path, 300, said.append), 0)
    clock.now += 60
    log(1, loss=1.0)
    for step in range(2, 12):
        clock.now += 10 if step < 4 else 1
        log(step, loss=1.0)
    assert said[0] == "step 1 of 300: loss 1"
    assert said[1] == "step 2 of 300, about 50 min left: loss 1"
    assert said[-1] == "step 11 of 300, about 5 min left: loss 1"


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / LOG).write_text('{"step": 9, "seconds": 5.0}\n')
    journal = Journal(tmp_path, 10, said.append)
    begin(journal, 0, main=False)(1, loss=1.0)
    arguments: Any = None
    for event in (journal.on_save, journal.on_train_end):
        event(arguments, TrainerState(is_world_process_zero=False), TrainerControl())
    assert not said and [row["step"] for row in read_log(tmp_path)] == [9]
    assert [path.name for path in tmp_path.iterdir()] == [LOG]
    begin(journal, 0, main=True)(1, loss=1.0)
    assert said and [row["step"] for row in read_log(tmp_path)] == [1]


def test_curves_are_drawn_at_every_save(tmp_path: Path) -> None:
    with pytest.raises(Broken):
        train(tmp_path, Journal(tmp_path, STEPS, silent), Crash(3))
    assert not (tmp_path / CURVES).exists()
    with pytest.raises(Broken):
        train(tmp_path, Journal(tmp_path, STEPS, silent), Crash(5))
    assert imread(tmp_path / CURVES).ndim == 3


def test_curves_are_drawn_once_for_each_new_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(watch, "draw_curves", lambda rows, path, title: drawn.append(rows[-1]["step"]))
    train(tmp_path, Journal(tmp_path, STEPS, silent))
    assert drawn == sorted(set(drawn)) and drawn[-1] == STEPS


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the log .*log\.jsonl \(No such file"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "", "{", "[1]", "null", '{"step": 2}', '{"seconds": 2}', '{"step": 2, "seconds": null}',
        '{"step": 2, "seconds": 1, "loss": "high"}', '{"step": 2, "seconds": 1, "loss": true}', "\x00",
    ],
)  # fmt: skip
def test_damaged_lines_are_named(tmp_path: Path, line: str) -> None:
    good = '{"step": 1, "seconds": 0.5, "loss": 2.0}\n'
    (tmp_path / LOG).write_text(good * 2)
    assert read_log(tmp_path) == [{"step": 1, "seconds": 0.5, "loss": 2.0}] * 2
    (tmp_path / LOG).write_text(good + line + "\n" + good)
    with pytest.raises(DataError, match=r"log\.jsonl:2: damaged: .*; remove the line"):
        read_log(tmp_path)
    with pytest.raises(DataError, match=r"log\.jsonl:2: damaged"):
        begin(Journal(tmp_path, 9, silent), 1)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / LOG).write_bytes(b'{"step": 1, "seconds": 0.5}\n{"\xff": 1}\n')
    with pytest.raises(DataError, match=r"log\.jsonl:2: damaged"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("limits", "bad", "good", "words"),
    [
        (
            {"listened_below": 0.05},
            {"rollout__listened": 0.01},
            {"rollout__listened": 0.05},
            "collapsed at step 9: for 3 logged steps in a row the policy listened in less than 5.0% of the rollouts "
            "(last: 0.01); raise rewards.relisten or loss.entropy, or lower optimiser.learning_rate",
        ),
        (
            {"listened_above": 0.98},
            {"rollout__listened": 1.0},
            {"rollout__listened": 0.98},
            "collapsed at step 9: for 3 logged steps in a row the policy listened in more than 98.0% of the rollouts "
            "(last: 1); lower rewards.relisten, raise rewards.price or loss.entropy, or lower optimiser.learning_rate",
        ),
        (
            {"entropy_below": 0.1},
            {"entropy": 0.0123},
            {"entropy": 0.1},
            "collapsed at step 9: for 3 logged steps in a row the entropy was less than 0.1 nats per token "
            "(last: 0.0123); raise loss.entropy or rollout.temperature, or lower optimiser.learning_rate",
        ),
    ],
)
def test_collapse(
    limits: dict[str, float], bad: dict[str, float], good: dict[str, float], words: str
) -> None:
    """Three in a row stop; a good one between resets the count; one without the value does neither."""
    stop = CollapseStop(CollapseConfig(patience=3, **limits))
    log = begin(stop, 0)
    assert not any([log(1, **bad), log(2, **bad), log(3, **good), log(4, **bad), log(5, **bad)])
    nothing = dict.fromkeys(bad)
    assert not any([log(6, eval_loss=1.0), log(7, **nothing), log(8, **dict.fromkeys(bad, float("nan")))])
    assert stop.reason is None
    assert log(9, **bad) and stop.reason == words


def test_limits_are_counted_apart() -> None:
    """Listening too much and too little in turns, or low entropy in between, is no row."""
    stop = CollapseStop(CollapseConfig(patience=2, listened_below=0.1, listened_above=0.9, entropy_below=0.1))
    log = begin(stop, 0)
    for step in range(1, 9):
        assert not log(step, rollout__listened=step % 2, entropy=0.2 * (step % 2))
    assert not log(9, rollout__listened=1, entropy=0.2) and log(10, rollout__listened=1, entropy=0.2)
    assert stop.reason is not None and "more than 90.0%" in stop.reason


def test_the_defaults_stop_nothing() -> None:
    """Nor does rounding beyond the ends of a scale."""
    stop = CollapseStop(CollapseConfig(patience=1))
    log = begin(stop, 0)
    for step, share in enumerate((0.0, 1.0, -1e-9, 1 + 1e-9) * 10, start=1):
        assert not log(step, rollout__listened=share, entropy=-1e-9)
    assert stop.reason is None


@pytest.mark.usefixtures("undrawn")
def test_collapse_stops_a_trainer_and_is_counted_over_a_resume(tmp_path: Path) -> None:
    """A run that is broken off in a row of bad steps stops where one that was not broken off does."""
    collapsed = {step: {"rollout/listened": 0.0 if step > 2 else 1.0} for step in range(1, STEPS + 1)}
    limits = CollapseConfig(patience=5, listened_below=0.5)
    stop = CollapseStop(limits)
    trainer = train(tmp_path / "whole", stop, extra=collapsed)
    assert trainer.state.global_step == 7 and stop.reason is not None
    with pytest.raises(Broken):
        train(tmp_path / "parts", CollapseStop(limits), Crash(6), extra=collapsed)
    again = CollapseStop(limits)
    trainer = train(tmp_path / "parts", again, extra=collapsed, resume=True)
    assert trainer.state.global_step == 7 and again.reason == stop.reason
