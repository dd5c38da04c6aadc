"""Supervised fine-tuning: it learns what the policy writes, for every family, whatever the batch, and goes on."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from echo_agent import EchoAgent
from echo_agent.errors import DataError, MissingExtraError
from echo_agent.families.loading import load_family
from echo_agent.finetune.callbacks import read_log
from echo_agent.finetune.data.dataset import read_samples
from echo_agent.finetune.examples import check_reasoning
from echo_agent.finetune.sft import train_sft
from tests.finetune.small_dataset import saved, write_small_dataset
from tests.finetune.training import apart, killed_at, same_logs, weights
from tests.finetune.training import sft_recipe as recipe
from tests.tiny import KINDS, tiny_family

SENTENCES = (
    "I hear the bell around second 3; I listen there again <seg>2, 5</seg> and hear a dog. So: a dog.",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: saved(tiny_family(kind), folder / kind) for kind in KINDS}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}], ids=["full", "lora"])
def test_every_family_learns_and_its_folder_is_loaded(
    kind: str, lora: Any, dataset: Path, models: dict[str, str], tmp_path: Path
) -> None:
    """The right parts of the weights change, and the policy can be asked."""
    made = train_sft(recipe(models[kind], lora=lora), dataset, tmp_path / "run", report=lambda _: None)
    before, after = load_family(models[kind], "cpu"), load_family(str(made), "cpu")
    old, new = before.model.state_dict(), after.model.state_dict()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert any(name.startswith(before.projector_module) for name in changed)
    assert any(name.startswith(before.decoder_module) for name in changed)
    frozen = tuple(f"{name}." for name in before.frozen_modules)
    assert not [name for name in changed if name.startswith(frozen)]
    with EchoAgent(after) as agent:
        result = agent.ask(str(dataset / "audio/0.flac"), "What barks?", ["a dog", "a cat"], max_new_tokens=8)
    assert result.status in ("answered", "unparsed")
    log = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert [row["step"] for row in log] == [1, 2] and all(row["loss"] > 0 for row in log)


def test_the_loss_goes_down_and_validation_is_watched(
    dataset: Path, models: dict[str, str], tmp_path: Path
) -> None:
    train_sft(
        recipe(
            models["echo-nano"],
            optimiser={"steps": 40, "batch": 8, "learning_rate": 1e-2},
            watch={"log_every": 5, "validate_every": 20},
        ),
        dataset,
        tmp_path / "run",
        report=lambda _: None,
    )
    log = read_log(tmp_path / "run")
    losses = [row["loss"] for row in log if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    assert [row["step"] for row in log if "eval_loss" in row] == [20, 40]
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", KINDS)
def test_batch_and_accumulation_give_the_same(
    kind: str, dataset: Path, models: dict[str, str], tmp_path: Path
) -> None:
    """Eight at once, one at a time, or with activations computed again: loss and weights are the same."""
    found = {}
    for name, sizes in {
        "whole": {"batch": 8, "accumulation": 1},
        "single": {"batch": 1, "accumulation": 8},
        "recomputed": {"batch": 8, "accumulation": 1, "gradient_checkpointing": True},
        "twin": {"batch": 8, "accumulation": 1, "learning_rate": 2e-3},
    }.items():
        made = train_sft(
            recipe(models[kind], optimiser=sizes, group_by_length=False),
            dataset,
            tmp_path / name,
            report=lambda _: None,
        )
        found[name] = weights(made), [row["loss"] for row in read_log(tmp_path / name) if "loss" in row]
    for name in ("single", "recomputed"):
        assert found["whole"][1] == pytest.approx(found[name][1], rel=1e-4)
        assert apart(found["whole"][0], found[name][0]) < 1e-4
    assert apart(found["whole"][0], found["twin"][0]) > 5e-4


def test_a_folder_is_gone_on_with_by_the_same_recipe_only(
    dataset: Path, models: dict[str, str], tmp_path: Path
) -> None:
    made = recipe(models["echo-nano"])
    train_sft(made, dataset, tmp_path / "run", report=lambda _: None)
    with pytest.raises(DataError, match="has ended"):
        train_sft(made, dataset, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(DataError, match="optimiser.learning_rate was 0.001, now 0.5"):
        train_sft(recipe(models["echo-nano"], optimiser={"learning_rate": 0.5}), dataset, tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        train_sft(made, dataset, tmp_path / "file")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    dataset: Path, models: dict[str, str], tmp_path: Path
) -> None:
    from echo_agent.finetune.config import write_recipe

    made = recipe(models["echo-nano"], optimiser={"steps": 30}, watch={"save_every": 3, "log_every": 3})
    unbroken = train_sft(made, dataset, tmp_path / "unbroken", report=lambda _: None)
    write_recipe(made, tmp_path / "recipe.yaml")
    run = tmp_path / "killed"
    # In the middle of a pass over the data, the fifth: each is of two steps.
    killed_at(run, 9, ["finetune", "sft", str(tmp_path / "recipe.yaml"), str(dataset), str(run)])
    resumed = train_sft(made, dataset, run, report=lambda _: None)
    # Not to the last bit: the killed process may add in another order. A step too many or too few is 1e-3 away.
    assert apart(weights(unbroken), weights(resumed)) < 1e-5
    losses = [
        [row["loss"] for row in read_log(tmp_path / name) if "loss" in row] for name in ("unbroken", "killed")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_package_that_is_missing_is_named(
    dataset: Path, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    made = recipe(models["echo-nano"], watch={"report_to": ["wandb"]})
    with pytest.raises(MissingExtraError, match="report_to: wandb needs: pip install wandb"):
        train_sft(made, dataset, tmp_path / "run", report=lambda _: None)


def test_a_run_that_never_saved_may_be_begun_anew(
    dataset: Path, models: dict[str, str], tmp_path: Path
) -> None:
    """A mistake in a recipe is mended and given again; only what was computed is held to its recipe."""
    wrong = recipe(models["echo-nano"], data={"categories": ["song"]})
    with pytest.raises(DataError, match=r"data.categories: .* no song"):
        train_sft(wrong, dataset, tmp_path / "run", report=lambda _: None)
    assert (tmp_path / "run" / "recipe.yaml").exists(), "it was begun"
    made = train_sft(recipe(models["echo-nano"]), dataset, tmp_path / "run", report=lambda _: None)
    assert (made / "config.json").exists()


def test_splits_that_are_not_there_are_said_before_the_model_is_loaded(dataset: Path, tmp_path: Path) -> None:
    for part, match in (
        ({"train": "dev"}, r"no split 'dev' \(data.train\); there are train, validation"),
        ({"validation": "dev"}, r"no split 'dev' \(data.validation\).*watch.validate_every=0"),
    ):
        made = recipe("/no/such/model", data=part, watch={"validate_every": 1})
        with pytest.raises(DataError, match=match):
            train_sft(made, dataset, tmp_path / "run", report=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_files_of_others_is_left_alone(
    dataset: Path, models: dict[str, str], tmp_path: Path
) -> None:
    mine = tmp_path / "recipe.yaml"
    mine.write_text("# my notes\n")
    with pytest.raises(DataError, match=r"is not empty and holds no run \(recipe.yaml\).*new or empty"):
        train_sft(recipe(models["echo-nano"]), dataset, tmp_path, report=lambda _: None)
    assert mine.read_text() == "# my notes\n"


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_saves_and_the_same_command_ends_with_the_same_weights(
    dataset: Path, models: dict[str, str], tmp_path: Path
) -> None:
    """So does its log: half of its second line was added up before the run was stopped."""
    made = recipe(models["echo-nano"], optimiser={"steps": 5}, watch={"log_every": 2})
    unbroken = train_sft(made, dataset, tmp_path / "unbroken", report=lambda _: None)
    said: list[str] = []

    def press(line: str) -> None:
        said.append(line)
        if line.startswith("step 2 of 5"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_sft(made, dataset, tmp_path / "run", report=press)
    assert said[0] == "starting at step 1 of 5"
    assert said[-1] == "stopped after step 3 of 5; the same command resumes at step 4"
    assert not (tmp_path / "run" / "model").exists()
    resumed = train_sft(made, dataset, tmp_path / "run", report=said.append)
    assert "resuming at step 4 of 5" in said
    same_logs(tmp_path / "unbroken", tmp_path / "run")
    assert apart(weights(unbroken), weights(resumed)) < 1e-6
    assert not list((tmp_path / "run").rglob("README.md"))
    modes = {path.stat().st_mode & 0o777 for path in resumed.iterdir()}
    assert len(modes) == 1, "weights can be read by whom other files can be read by"


def test_the_policy_is_asked_before_and_after(dataset: Path, models: dict[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    made = recipe(models["echo-nano"], watch={"evaluate": 3})
    train_sft(made, dataset, tmp_path / "run", report=said.append)
    assert "before training: asking 3 questions of 'validation'" in said
    assert any(
        re.fullmatch(r"validation: \d+% right, .* before, \d+% right, .* after", line) for line in said
    )
    found = json.loads((tmp_path / "run" / "run.json").read_text())["validation"]
    assert found["before"]["questions"] == found["after"]["questions"] == 3
    for stage in ("before", "after"):
        rows = (tmp_path / "run" / "validation" / f"{stage}.jsonl").read_text().splitlines()
        right = sum(json.loads(row)["correct"] for row in rows)
        assert found[stage]["accuracy"] == pytest.approx(right / 3)


def test_sentences_are_not_for_echo_nano(models: dict[str, str], tmp_path: Path) -> None:
    dataset = write_small_dataset(tmp_path / "data", reasonings=SENTENCES)
    with pytest.raises(DataError, match="knows no language.*--reasoning terse"):
        train_sft(recipe(models["echo-nano"]), dataset, tmp_path / "run", report=lambda _: None)
    samples = read_samples(dataset, "train")
    check_reasoning(samples, tiny_family("qwen2-audio"))
    terse = [
        sample.model_copy(update={"reasoning": "bell 3, 5 dog.<seg>4, 8</seg> dog."}) for sample in samples
    ]
    check_reasoning(terse, tiny_family("echo-nano"))
