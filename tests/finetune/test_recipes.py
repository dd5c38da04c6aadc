"""Recipes on tiny random models of the same architectures: two steps each, the rest as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo_agent.families.loading import load_family
from echo_agent.finetune.callbacks import read_log
from echo_agent.finetune.config import RLRecipe, SFTRecipe, read_recipe, recipe_names
from echo_agent.finetune.rl import train_rl
from echo_agent.finetune.sft import train_sft
from tests.finetune.small_dataset import saved
from tests.scripted import UNSURE, scripted_family
from tests.small.tiny_small import tiny_small
from tests.tiny import QWEN_KINDS

KIND = {"omni": "qwen2.5-omni", "qwen2": "qwen2-audio", "paper": "qwen2.5-omni"}
"""Architecture by the first word of a recipe's name."""
GPU = [name for name in recipe_names() if name.split("-")[0] in KIND]
SMALL = {
    "sft": ["optimiser.steps=2", "optimiser.warmup=1", "optimiser.batch=2", "optimiser.accumulation=2"],
    "rl": ["optimiser.steps=2", "optimiser.warmup=0", "optimiser.batch=2", "rollout.questions=2", "rollout.group=2"]
    + ["rollout.max_new_tokens=40", "rollout.max_relistens=2", "watch.save_every=2", "rollout.broken=train"],
}  # fmt: skip
"""What is made small: the number of steps and sequences, and the length of rollouts."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: saved(scripted_family(UNSURE, kind), folder / kind) for kind in QWEN_KINDS}


def small(name: str, models: dict[str, str]) -> SFTRecipe | RLRecipe:
    """A recipe made small."""
    stage = name.rpartition("-")[2]
    overrides = [f"model.name={models[KIND[name.split('-')[0]]]}", "model.device=cpu", "watch.log_every=1"]
    overrides += SMALL[stage]
    if stage == "rl":
        updates = read_recipe(name).rollout.updates  # pyright: ignore[reportAttributeAccessIssue]
        overrides.append(f"optimiser.accumulation={2 // updates}")
    return read_recipe(name, overrides)


def test_there_are_recipes_for_every_family_and_the_paper() -> None:
    assert set(GPU) == {
        f"{who}-{stage}" for who in ("omni-7b", "qwen2-audio-7b", "paper") for stage in ("sft", "rl")
    }
    assert {"small-sft", "small-rl"} <= set(recipe_names())


@pytest.mark.slow
@pytest.mark.parametrize("name", GPU)
def test_two_steps(name: str, dataset: Path, models: dict[str, str], tmp_path: Path) -> None:
    """In bfloat16, with checkpointed activations, adapters or a trained encoder, as the recipe says."""
    recipe = small(name, models)
    assert recipe.optimiser.precision == "bfloat16" and recipe.optimiser.gradient_checkpointing
    if isinstance(recipe, SFTRecipe):
        made = train_sft(recipe, dataset, tmp_path / "run", report=lambda _: None)
    else:
        made = train_rl(recipe, dataset, tmp_path / "run", report=lambda _: None)
    rows = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert rows[-1]["step"] == 2 and all(row["grad_norm"] >= 0 for row in rows)
    family = load_family(str(made), "cpu")
    assert family.kind == KIND[name.split("-")[0]]
    old = load_family(recipe.model.name, "cpu").model.state_dict()
    changed = {key for key, value in family.model.state_dict().items() if not value.equal(old[key])}
    encoder = tuple(f"{module}." for module in family.frozen_modules)
    assert bool([key for key in changed if key.startswith(encoder)]) == recipe.model.train_encoder


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_two_steps_of_echo_small(stage: str, plain_dataset: Path, tmp_path: Path) -> None:
    """Its recipes as they stand, on questions in plain English about scenes."""
    base = saved(tiny_small(), tmp_path / "base")
    parts = [f"model.name={base}", *SMALL[stage], "watch.log_every=1", "watch.evaluate=0"]
    recipe = read_recipe(f"small-{stage}", [*parts, "optimiser.accumulation=2"])
    train = train_sft if isinstance(recipe, SFTRecipe) else train_rl
    made = train(recipe, plain_dataset, tmp_path / "run", report=lambda _: None)  # pyright: ignore[reportArgumentType]
    rows = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert rows[-1]["step"] == 2
    old, new = (load_family(name, "cpu").model.state_dict() for name in (base, str(made)))
    changed = {key for key, value in new.items() if not value.equal(old[key])}
    assert changed and not [key for key in changed if key.startswith(("model.whisper", "model.ears"))]
