"""Recipes: those that ship are valid, overrides do what they say, and what cannot be is refused in one line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from echo_agent.errors import DataError
from echo_agent.finetune.config import (
    RLRecipe,
    SFTRecipe,
    parse_recipe,
    read_recipe,
    recipe_names,
    write_recipe,
)

NAMES = recipe_names()
SFT: dict[str, Any] = {"stage": "sft", "optimiser": {"steps": 100}}
RL: dict[str, Any] = {
    "stage": "rl",
    "optimiser": {"steps": 100, "batch": 8, "accumulation": 8},
    "rewards": {"accuracy": 1.0},
}


def changed(recipe: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A recipe with other values: ``optimiser__steps=3``."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    for name, value in changes.items():
        part, inside, key = name.partition("__")
        if inside:
            data.setdefault(part, {})[key] = value
        else:
            data[part] = value
    return data


def refused(data: Mapping[str, Any], *words: str) -> None:
    with pytest.raises(DataError) as error:
        parse_recipe(data, "mine.yaml")
    assert_one_line(error.value, "mine.yaml: ", *words)


def assert_one_line(error: DataError, *words: str) -> None:
    text = str(error)
    assert "\n" not in text and "Traceback" not in text
    assert [word for word in words if word not in text] == [], text


# --- those that ship ------------------------------------------------------------------------------------------------


def test_there_are_recipes_of_both_stages() -> None:
    assert {"nano-sft", "nano-rl", "paper-sft", "paper-rl"} <= set(NAMES)
    assert {read_recipe(name).stage for name in NAMES} == {"sft", "rl"}


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_that_ships_is_valid(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.stage == name.rpartition("-")[2]
    assert type(recipe) is {"sft": SFTRecipe, "rl": RLRecipe}[recipe.stage]
    if name.startswith("nano"):  # a run on a CPU, of what comes with the package
        assert recipe.model.name == "echo-nano" and recipe.lora is None and not recipe.model.train_encoder
    if isinstance(recipe, RLRecipe):
        assert recipe.processes == (8 if name == "paper-rl" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_is_written_reads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name, ["data.categories=[order, count]", "data.longest=12.5", "seed=7"])
    write_recipe(recipe, tmp_path / "recipe.yaml")
    again = read_recipe(tmp_path / "recipe.yaml")
    assert again == recipe and again.data.categories == ("order", "count")
    assert read_recipe(tmp_path / "recipe.yaml", ["seed=8"]) != recipe


def test_the_papers_control_differs_from_its_twin_in_its_listens_only() -> None:
    assert read_recipe("nano-once-sft", ["listens=heard"]) == read_recipe("nano-sft")
    assert read_recipe("nano-once-sft") != read_recipe("nano-sft")


# --- overrides ------------------------------------------------------------------------------------------------------


def test_overrides_take_the_place_of_values() -> None:
    recipe = read_recipe(
        "omni-7b-sft", ["optimiser.steps=100", "lora=null", "model.dtype=auto", "data.categories=[order]"]
    )
    assert (recipe.optimiser.steps, recipe.lora, recipe.data.categories) == (100, None, ("order",))
    assert recipe.optimiser.batch == read_recipe("omni-7b-sft").optimiser.batch  # what stands beside it stays
    last = read_recipe("nano-sft", ["seed=1", "seed=2"])
    assert last.seed == 2


def test_overrides_make_the_keys_that_are_not_there_yet() -> None:
    assert read_recipe("nano-sft").lora is None
    recipe = read_recipe("nano-sft", ["lora.rank=8", "data.limit=10", "model.name=a=b"])
    assert recipe.lora is not None and (recipe.lora.rank, recipe.lora.alpha) == (8, 32)
    assert (recipe.data.limit, recipe.model.name) == (10, "a=b")
    again = read_recipe("omni-7b-sft", ["lora=null", "lora.rank=4"])
    assert again.lora is not None and (again.lora.rank, again.lora.alpha) == (4, 32)


def test_small_numbers_are_read_however_they_are_written() -> None:
    """For YAML 1.1 ``1e-4`` is a text."""
    assert isinstance(yaml.safe_load("1e-4"), str)
    assert read_recipe("nano-sft", ["optimiser.learning_rate=1e-4"]).optimiser.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimiser.steps", ("--set optimiser.steps", "key=value")),
        ("=3", ("--set =3", "key=value")),
        ("listens.never=1", ("--set listens.never=1", "listens holds a value")),
        ("optimiser.steps.most=1", ("--set optimiser.steps.most=1", "steps holds a value")),
        ("model.name={", ("--set model.name={", "is not YAML")),
        ("model.name=2024-02-30", ("--set model.name=2024-02-30", "is not YAML")),
        ("model.name=", ("model.name: ",)),
        ("optimiser.steps=many", ("optimiser.steps: ",)),
        ("optimiser..steps=3", ("optimiser.: there is no such key",)),
        ("optimizer.steps=3", ("optimizer: there is no such key",)),
    ],
)
def test_overrides_that_cannot_be_are_named(override: str, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as error:
        read_recipe("nano-sft", [override])
    assert_one_line(error.value, *words)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ("stage",)),
        (changed(SFT, stage="dpo"), ("'dpo'", "'sft', 'rl'")),
        (changed(SFT, stage=None), ("stage", "'sft', 'rl'")),
        ({"stage": "sft"}, ("optimiser: ",)),
        (changed(SFT, optimiser__step=1), ("optimiser.step: there is no such key",)),
        (changed(SFT, sft={"steps": 3}), ("sft: there is no such key",)),
        (changed(SFT, rl=3), ("rl: there is no such key",)),
        (changed(SFT, rollout={}), ("rollout: there is no such key",)),
        (changed(RL, listens="heard"), ("listens: there is no such key",)),
        (changed(RL, rewards={}), ("rewards: ",)),
        (changed(RL, rewards__speed=1), ("rewards.speed: there is no such key",)),
        (changed(SFT, lora__modules=["q_proj", 3]), ("lora.modules.1: ",)),
        ({**SFT, 1: 2}, ("1: ",)),
    ],
)
def test_unknown_keys_and_kinds_are_named(data: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(data, *words)


def test_several_faults_are_named_at_once() -> None:
    data = changed(
        SFT, optimiser__steps=0, optimiser__learning_rate=-1, seed=-1, listens="loud", watch__keep=0
    )
    refused(data, "optimiser.steps: ", "optimiser.learning_rate: ", "seed: ", "listens: ", "watch.keep: ")


@pytest.mark.parametrize(
    ("data", "mended", "words"),
    [
        (
            changed(SFT, model__train_encoder=True, lora={}),
            changed(SFT, model__train_encoder=True),
            ("model.train_encoder", "lora"),
        ),
        (changed(SFT, model__listen_tokens=20, lora={}), changed(SFT, lora={}), ("lora", "model.listen_tokens")),
        (
            changed(SFT, model__tokens_per_second=3, lora={}),
            changed(SFT, model__tokens_per_second=3),
            ("lora", "model.tokens_per_second"),
        ),
        (
            changed(SFT, watch__validate_every=5, data__validation=""),
            changed(SFT, data__validation=""),
            ("watch.validate_every", "data.validation"),
        ),
        (
            changed(SFT, watch__validate_every=5, data__train="core", data__validation="core"),
            changed(SFT, watch__validate_every=5, data__train="core"),
            ("watch.validate_every", "data.validation", "data.train"),
        ),
        (
            changed(SFT, optimiser__warmup=100),
            changed(SFT, optimiser__warmup=99),
            ("optimiser.warmup (100)", "optimiser.steps (100)"),
        ),
        (
            changed(RL, rewards__confidence=1),
            changed(RL, rewards={"confidence": 1}),
            ("rewards.accuracy", "rewards.confidence"),
        ),
        (
            changed(RL, rewards={"format": 1}),
            changed(RL, rewards={"format": 1, "accuracy": 0.1}),
            ("rewards", "accuracy", "confidence"),
        ),
        (
            changed(RL, optimiser__batch=6),
            changed(RL, optimiser__batch=2),
            ("rollout.questions", "(64)", "optimiser.batch", "(48)"),
        ),
        (
            changed(RL, rollout__updates=2, optimiser__batch=4, watch__save_every=15),
            changed(RL, rollout__updates=2, optimiser__batch=4, watch__save_every=14),
            ("watch.save_every", "rollout.updates"),
        ),
    ],
)  # fmt: skip
def test_keys_that_contradict_each_other_are_named(
    data: dict[str, Any], mended: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused(data, *words)
    parse_recipe(mended, "mine.yaml")  # with one of them changed it can be


def _floats(model: type[BaseModel], at: str = "") -> list[str]:
    """Paths of all numbers with a point in a recipe."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        parts = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if parts:
            found += _floats(parts[0], f"{at}{name}__")
        elif any("float" in str(kind) for kind in kinds):
            found.append(f"{at}{name}")
    return found


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_every_number_is_a_number_and_not_negative(value: float) -> None:
    paths = _floats(RLRecipe)
    assert {
        "optimiser__learning_rate",
        "data__longest",
        "loss__clip_high",
        "rewards__price",
        "lora__dropout",
    } <= set(paths)
    for path in paths:
        refused(changed(RL, **{path: value}), path.replace("__", "."))


# --- processes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("questions", "group", "updates", "batch", "accumulation", "processes"),
    [(8, 8, 1, 8, 8, 1), (64, 8, 2, 4, 8, 8), (8, 8, 1, 16, 1, 4), (3, 4, 3, 2, 1, 2), (1, 2, 1, 1, 1, 2)],
)
def test_processes_share_a_generation(
    questions: int, group: int, updates: int, batch: int, accumulation: int, processes: int
) -> None:
    recipe = parse_recipe(
        changed(
            RL,
            rollout={"questions": questions, "group": group, "updates": updates},
            optimiser={"steps": 9, "batch": batch, "accumulation": accumulation},
            watch={"save_every": 6},
        ),
        "mine.yaml",
    )
    assert isinstance(recipe, RLRecipe) and recipe.processes == processes
    assert processes * batch * accumulation * updates == questions * group


def test_only_rewards_that_have_a_weight_are_given() -> None:
    recipe = read_recipe("nano-rl", ["rewards.format=0", "rewards.price=0.5"])
    assert isinstance(recipe, RLRecipe)
    assert recipe.rewards.weights == {"accuracy": 2.0, "overlap": 0.1, "price": 0.5, "counterfactual": 0.5}


# --- files ----------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    for name in ("nano", str(tmp_path / "none.yaml"), str(tmp_path), ""):
        with pytest.raises(DataError) as error:
            read_recipe(name)
        assert_one_line(error.value, f"no recipe {name}", *NAMES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"stage: {", ("is not YAML",)),
        (b"stage: sft\n\tsteps: 3\n", ("is not YAML",)),
        (b"seed: 2024-02-30", ("is not YAML",)),
        (b"", ("is no recipe", "stage")),
        (b"- stage: sft", ("is no recipe", "stage")),
        (b"sft", ("is no recipe", "stage")),
        (b"stage: \xff\xfe", ("UTF-8",)),
    ],
)
def test_files_that_hold_no_recipe_are_named(text: bytes, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
    with pytest.raises(DataError) as error:
        read_recipe(path)
    assert_one_line(error.value, str(path), *words)


def test_a_file_of_ones_own_is_read_with_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SFT))
    assert read_recipe(path) == parse_recipe(SFT, "mine.yaml")
    assert read_recipe(str(path), ["optimiser.steps=3"]).optimiser.steps == 3


def test_keys_of_older_recipes_are_read(tmp_path: Path) -> None:
    written = tmp_path / "old.yaml"
    text = yaml.safe_dump(
        SFT | {"optimiser": SFT["optimiser"] | {"rate": 3e-4}, "data": {"families": ["order"]}}
    )
    written.write_text(text)
    recipe = read_recipe(written)
    assert (recipe.optimiser.learning_rate, recipe.data.categories) == (3e-4, ("order",))
    assert read_recipe(written, ["optimiser.learning_rate=1e-3"]).optimiser.learning_rate == 1e-3
    assert read_recipe(written, ["optimiser.rate=1e-3"]).optimiser.learning_rate == 1e-3
