"""Trainings across processes and interruptions: two give what one gives, a killed one goes on as if nothing were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from echo_agent.finetune.config import RLRecipe, write_recipe
from echo_agent.finetune.rl import train_rl
from echo_agent.finetune.watch import read_log
from tests.finetune.small_dataset import saved, write_small_dataset
from tests.finetune.test_grpo import recipe
from tests.finetune.test_sft import apart, killed_at, weights
from tests.scripted import UNSURE, scripted_family

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_dataset(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(scripted_family(UNSURE, "echo-nano"), tmp_path_factory.mktemp("policy") / "model")


def launched(made: RLRecipe, dataset: Path, out: Path, processes: int) -> None:
    """Run a recipe under accelerate, on the CPU."""
    write_recipe(made, out.with_suffix(".yaml"))
    command = [
        *(
            sys.executable,
            "-m",
            "accelerate.commands.accelerate_cli",
            "launch",
            "--cpu",
            "--num_machines",
            "1",
        ),
        *("--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"),
        *("--main_process_port", "0", "--num_cpu_threads_per_process", "1", "-m", "echo_agent.cli"),
        *("finetune", "rl", str(out.with_suffix(".yaml")), str(dataset), str(out)),
    ]
    done = subprocess.run(command, env={**os.environ}, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_processes_give_what_one_gives(dataset: Path, policy: str, tmp_path: Path) -> None:
    """DDP on the CPU, rollouts of different lengths in each: the same rollouts, loss, and weights."""
    one = recipe(policy, optimiser={"steps": 2, "batch": 4, "accumulation": 2})
    train_rl(one, dataset, tmp_path / "one", report=lambda _: None)
    two = recipe(policy, optimiser={"steps": 2, "batch": 4})
    assert (one.processes, two.processes) == (1, 2)
    launched(two, dataset, tmp_path / "two", 2)
    logs = [[row for row in read_log(tmp_path / name) if "reward" in row] for name in ("one", "two")]
    for single, double in zip(*logs, strict=True):
        for key in ("reward", "rollout/right", "rollout/listened", "rollout/seconds_heard", "num_tokens"):
            assert double[key] == pytest.approx(single[key], rel=1e-6), key
        assert double["loss"] == pytest.approx(single["loss"], abs=1e-5)
        assert double["sampling/logp_gap_max"] < 1e-4
    assert apart(weights(tmp_path / "one" / "model"), weights(tmp_path / "two" / "model")) < 1e-4


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    dataset: Path, policy: str, tmp_path: Path
) -> None:
    made = recipe(
        policy,
        optimiser={"steps": 16, "batch": 4},
        rollout={"updates": 2},
        watch={"save_every": 2, "log_every": 2},
    )
    unbroken = train_rl(made, dataset, tmp_path / "unbroken", report=lambda _: None)
    write_recipe(made, tmp_path / "recipe.yaml")
    run = tmp_path / "killed"
    killed_at(run, 4, ["finetune", "rl", str(tmp_path / "recipe.yaml"), str(dataset), str(run)])
    resumed = train_rl(made, dataset, run, report=lambda _: None)
    assert apart(weights(unbroken), weights(resumed)) == 0.0
    rewards = [
        [(row["step"], row["reward"]) for row in read_log(tmp_path / name) if "reward" in row]
        for name in ("unbroken", "killed")
    ]
    assert rewards[0] == rewards[1]
