"""What the tests of training share: small recipes, weights that are compared, a run that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from echo_agent.families.loading import load_family
from echo_agent.finetune.callbacks import SUMMARY, read_log
from echo_agent.finetune.config import RLRecipe, SFTRecipe, parse_recipe

STEPS = 2
"""Of a recipe of SFT."""


def sft_recipe(name: str, **changes: Any) -> SFTRecipe:
    """Two steps of four on the CPU."""
    values = {
        "stage": "sft",
        "model": {"name": name, "device": "cpu", "dtype": "float32"},
        "optimiser": {"steps": STEPS, "batch": 4, "learning_rate": 1e-3, "schedule": "constant"},
        "watch": {"log_every": 1, "save_every": 100, "evaluate": 0},
    }
    made = parse_recipe(_changed(values, changes), "test")
    assert isinstance(made, SFTRecipe)
    return made


def rl_recipe(name: str, **changes: Any) -> RLRecipe:
    """One step of two questions with four rollouts each."""
    values = {
        "stage": "rl",
        "model": {"name": name, "device": "cpu", "dtype": "float32"},
        "optimiser": {"steps": 1, "batch": 8, "learning_rate": 1e-3, "schedule": "constant"},
        "rollout": {
            "questions": 2,
            "group": 4,
            "max_relistens": 2,
            "max_new_tokens": 40,
            "answer_tokens": 4,
            "broken": "train",
        },
        "rewards": {"format": 0.2, "accuracy": 2.0, "overlap": 0.5, "price": 0.1},
        "watch": {"log_every": 1, "save_every": 100, "evaluate": 0},
    }
    made = parse_recipe(_changed(values, changes), "test")
    assert isinstance(made, RLRecipe)
    return made


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The values with some changed; within a part, those that are not named stay."""
    parts = {
        key: {**values.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    return values | parts


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_family(str(folder), "cpu").model.state_dict()


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one if one[name].is_floating_point())


TIMES = ("seconds", "step_time", SUMMARY, "train_samples_per_second", "train_steps_per_second")
"""What is measured by the clock."""


def same_logs(one: Path, other: Path, rel: float = 1e-4) -> None:
    """The logs of two runs are the same line by line, but for times; both have come to their end."""
    logs = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in read_log(run)] for run in (one, other)
    ]
    assert "train_loss" in logs[0][-1] and [row["num_tokens"] for row in logs[0] if "loss" in row]
    for mine, yours in zip(*logs, strict=True):
        assert mine == pytest.approx(yours, rel=rel, abs=1e-5, nan_ok=True)


KILLED = """
import os, signal, sys
from transformers.trainer_callback import CallbackHandler

from echo_agent.cli import main

saved = CallbackHandler.on_save


def then_killed(self, args, state, control):
    control = saved(self, args, state, control)
    if state.global_step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return control


CallbackHandler.on_save = then_killed
sys.exit(main(sys.argv[2:]))
"""


def killed_at(folder: Path, step: int, command: Sequence[str]) -> None:
    """Run a training in a process of its own that is killed once the checkpoint of a step is whole."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, "-c", KILLED, str(step), *command], env=environment)
    assert process.returncode == -signal.SIGKILL, "it never came to that step"
    assert (folder / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").exists()
    assert not (folder / "run.json").exists(), "it ended before it was killed"
