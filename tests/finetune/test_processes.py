"""Trainings across processes and interruptions: two give what one gives, a killed one goes on as if nothing were."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from echo_agent.cli import main
from echo_agent.families.loading import load_family
from echo_agent.finetune.callbacks import read_log
from echo_agent.finetune.config import RLRecipe, read_recipe, write_recipe
from echo_agent.finetune.rl import train_rl
from echo_agent.finetune.training_setup import leave_processes
from tests.finetune.small_dataset import saved
from tests.finetune.training import apart, killed_at, weights
from tests.finetune.training import rl_recipe as recipe
from tests.scripted import UNSURE, scripted_family

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(scripted_family(UNSURE, "echo-nano"), tmp_path_factory.mktemp("policy") / "model")


def launched(made: RLRecipe, dataset: Path, out: Path, processes: int) -> None:
    """Run a recipe in accelerate processes (DDP, gloo), on the CPU."""
    write_recipe(made, out.with_suffix(".yaml"))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)),
        *("-m", "echo_agent.cli", "finetune", "rl", str(out.with_suffix(".yaml")), str(dataset), str(out)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("questions", [2, 1], ids=["an example each", "an example in one of them"])
def test_two_processes_give_what_one_gives(
    questions: int, dataset: Path, policy: str, tmp_path: Path
) -> None:
    """DDP on the CPU, rollouts of different lengths in each: the same rollouts, loss, and weights."""
    batch = 2 * questions
    rollout, loss = {"questions": questions, "group": 4}, {"rehearsal": 0.5}
    sizes = {"steps": 2, "batch": batch, "accumulation": 2}
    one = recipe(policy, optimiser=sizes, rollout=rollout, loss=loss)
    train_rl(one, dataset, tmp_path / "one", report=lambda _: None)
    two = recipe(policy, optimiser={"steps": 2, "batch": batch}, rollout=rollout, loss=loss)
    assert (one.processes, two.processes) == (1, 2)
    launched(two, dataset, tmp_path / "two", 2)
    logs = [[row for row in read_log(tmp_path / name) if "reward" in row] for name in ("one", "two")]
    for single, double in zip(*logs, strict=True):
        for key in ("reward", "rollout/right", "rollout/listened", "rollout/seconds_heard", "num_tokens"):
            assert double[key] == pytest.approx(single[key], rel=1e-6), key
        assert double["loss"] == pytest.approx(single["loss"], abs=1e-5)
        assert double["rehearsal"] == pytest.approx(single["rehearsal"], abs=1e-5)
        assert double["sampling/logp_gap_max"] < 1e-4
    assert apart(weights(tmp_path / "one" / "model"), weights(tmp_path / "two" / "model")) < 1e-4


def test_the_papers_recipe_runs_in_two_processes(dataset: Path, tmp_path: Path) -> None:
    """DDP with a trained encoder, two updates per generation, its four rewards, in bfloat16."""
    name = saved(scripted_family(UNSURE, "qwen2.5-omni"), tmp_path / "model")
    made = read_recipe("paper-rl", [f"model.name={name}", "model.device=cpu", "watch.log_every=1",
        "optimiser.steps=2", "optimiser.batch=2", "optimiser.accumulation=1", "watch.save_every=2",
        "rollout.questions=2", "rollout.group=4", "rollout.max_new_tokens=40", "rollout.max_relistens=2"])  # fmt: skip
    assert isinstance(made, RLRecipe) and made.processes == 2
    launched(made, dataset, tmp_path / "run", 2)
    rows = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in rows] == [1, 2] and rows[0]["rollout/listened"] > 0
    assert load_family(str(tmp_path / "run" / "model"), "cpu").kind == "qwen2.5-omni"


def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    dataset: Path, policy: str, tmp_path: Path
) -> None:
    """It is killed in the middle of the second pass over the questions: a pass is of four steps."""
    made = recipe(
        policy,
        data={"limit": 4},
        optimiser={"steps": 16, "batch": 4},
        rollout={"updates": 2},
        watch={"save_every": 2, "log_every": 2},
        loss={"rehearsal": 0.5},
    )
    unbroken = train_rl(made, dataset, tmp_path / "unbroken", report=lambda _: None)
    write_recipe(made, tmp_path / "recipe.yaml")
    run = tmp_path / "killed"
    killed_at(run, 6, ["finetune", "rl", str(tmp_path / "recipe.yaml"), str(dataset), str(run)])
    resumed = train_rl(made, dataset, run, report=lambda _: None)
    assert (
        apart(weights(unbroken), weights(resumed)) < 1e-4
    )  # batches form by time, and round by what is in them
    assert apart(weights(Path(policy)), weights(resumed)) > 1e-3
    rewards = [
        [row["reward"] for row in read_log(tmp_path / name) if "reward" in row]
        for name in ("unbroken", "killed")
    ]
    assert rewards[1] == pytest.approx(rewards[0])


def test_who_is_done_leaves_the_group_of_processes(tmp_path: Path) -> None:
    """One that ends with the group still open may be aborted in its last moment; the launcher then says it failed."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    leave_processes()
    assert not torch.distributed.is_initialized()
    leave_processes()  # there is none to leave


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_the_command_leaves_it_where_its_work_is_done(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not where it has failed: it would wait for the others."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    given = ["finetune", stage, f"nano-{stage}", str(tmp_path / "data"), str(tmp_path / "run")]
    assert main(given) == 2 and torch.distributed.is_initialized()
    monkeypatch.setattr(f"echo_agent.finetune.{stage}.train_{stage}", lambda *_, **__: tmp_path)
    assert main(given) == 0 and not torch.distributed.is_initialized()
