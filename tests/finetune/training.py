"""What the tests of training share: small recipes, weights that are compared, a run that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from echo_agent.families.loading import load_family
from echo_agent.finetune.config import RLRecipe, SFTRecipe, parse_recipe

STEPS = 2
"""Of a recipe of SFT."""


def sft_recipe(name: str, **changes: Any) -> SFTRecipe:
    """Two steps of four on the CPU."""
    values = {
        "stage": "sft",
        "model": {"name": name, "device": "cpu", "dtype": "float32"},
        "optimiser": {"steps": STEPS, "batch": 4, "rate": 1e-3, "schedule": "constant"},
        "watch": {"log_every": 1, "save_every": 100},
    }
    made = parse_recipe(_changed(values, changes), "test")
    assert isinstance(made, SFTRecipe)
    return made


def rl_recipe(name: str, **changes: Any) -> RLRecipe:
    """One step of two questions with four rollouts each."""
    values = {
        "stage": "rl",
        "model": {"name": name, "device": "cpu", "dtype": "float32"},
        "optimiser": {"steps": 1, "batch": 8, "rate": 1e-3, "schedule": "constant"},
        "rollout": {
            "questions": 2,
            "group": 4,
            "max_relistens": 2,
            "max_new_tokens": 40,
            "answer_tokens": 4,
            "broken": "train",
        },
        "rewards": {"format": 0.2, "accuracy": 2.0, "overlap": 0.5, "price": 0.1},
        "watch": {"log_every": 1, "save_every": 100},
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


def killed_at(folder: Path, step: int, command: Sequence[str]) -> None:
    """Run a training in a process of its own and kill it once the checkpoint of a step is whole."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "echo_agent.cli", *command], env=environment)
    done = folder / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json"
    deadline = time.monotonic() + 240
    while not done.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert done.exists(), "it never came to that step"
    assert not (folder / "run.json").exists(), "it ended before it was killed"
