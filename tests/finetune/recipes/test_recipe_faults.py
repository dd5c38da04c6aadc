"""Faults of recipes in our words: the key, where it was given, what is expected; and never for long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.config import RLRecipe, SFTRecipe, parse_recipe, read_recipe
from echo_agent.finetune.recipes.recipe_faults import keys_of, plain, shown

PYDANTIC = re.compile(r"Input should|validation error|Extra inputs|type=|pydantic|Unable to|valid dictionary")
DOCS = Path(__file__).parents[3] / "docs" / "finetune.md"


def fault(*overrides: str, name: str = "nano-sft") -> str:
    with pytest.raises(DataError) as error:
        read_recipe(name, overrides)
    text = str(error.value)
    assert not PYDANTIC.search(text) and "\n" not in text and text.isprintable() and len(text) < 700, text
    return text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.steps=3", "optimizer: there is no such key; did you mean optimiser.steps?"),
        ("optimiser.step=3", "optimiser.step: there is no such key; did you mean optimiser.steps?"),
        ("learning_rate=3", "learning_rate: there is no such key; did you mean optimiser.learning_rate?"),
        ("batch_size=3", "batch_size: there is no such key; did you mean optimiser.batch?"),
        ("model.modules=[a]", "model.modules: there is no such key; did you mean lora.modules?"),
        ("wacth=3", "wacth: there is no such key; did you mean watch?"),
        (
            "optimiser.xyz=3",
            "optimiser.xyz: there is no such key; there are optimiser.steps, optimiser.batch",
        ),
        (
            "rewards.price=1",
            "rewards: there is no such key in a recipe of the stage sft; it is one of the stage rl",
        ),
        ("optimiser.steps=many", "optimiser.steps: a whole number is expected, not 'many'"),
        ("optimiser.steps=1.5", "optimiser.steps: a whole number is expected, not 1.5"),
        ("optimiser.steps=[1]", "optimiser.steps: a whole number is expected, not a list"),
        ("optimiser.steps=0", "optimiser.steps: at least 1 is expected, not 0"),
        ("optimiser.learning_rate=-1", "optimiser.learning_rate: more than 0 is expected, not -1"),
        ("optimiser.learning_rate=.inf", "optimiser.learning_rate: "),
        ("optimiser.learning_rate=.nan", "optimiser.learning_rate: a finite number is expected, not nan"),
        ("optimiser.schedule=cosin", "optimiser.schedule: 'cosin' is not one of 'cosine', 'constant'"),
        ("lora=3", "lora: keys are expected below it, not 3"),
        ("lora.modules=q_proj", "lora.modules: a list is expected, such as [a, b], not 'q_proj'"),
        ("lora.modules=[1]", "lora.modules.0: a text is expected, not 1"),
        ("model.train_encoder=maybe", "model.train_encoder: true or false is expected, not 'maybe'"),
        ("model.name=''", "model.name: it is empty"),
        ("model.name=2024-01-01", "model.name: a text is expected, not a date"),
        ("watch.report_to=[mlflow]", "watch.report_to.0: 'mlflow' is not one of 'tensorboard', 'wandb'"),
        ("x\x1b[31m=3", r"x\x1b[31m: there is no such key"),
    ],
)
def test_a_fault_of_an_override_is_said_to_be_of_it(override: str, said: str) -> None:
    assert fault(override).startswith(f"--set {plain(override)}: {said}")


def test_keys_that_contradict_each_other_name_what_was_given() -> None:
    given = fault("optimiser.steps=50", "seed=3")
    assert (
        given
        == "nano-sft with --set optimiser.steps=50: optimiser.warmup (100) must be less than optimiser.steps (50)"
    )
    assert fault("listens=heard", name="nano-rl").endswith(
        "in a recipe of the stage rl; it is one of the stage sft"
    )
    assert fault(name="nano-sfd").startswith(
        "there is no recipe nano-sfd (No such file or directory); did you mean nano-sft?"
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimiser.steps=10000000000000000000", "optimiser.steps: at most 1000000000 is expected"),
        (f"optimiser.steps={'9' * 5000}", "a number of thousands of digits"),
        (f"optimiser.steps=0x{'f' * 5000}", "a number of more than thirty digits"),
        (
            "optimiser.steps=1000000000",
            "optimiser.batch x optimiser.accumulation (16000000000) must be at most 20000000",
        ),
        ("watch.keep=1000000000000", "watch.keep: at most 1000000000 is expected"),
        ("optimiser.batch=20000000", "optimiser.batch: at most 10000 is expected"),
        (f"model.name={'[' * 3000}", "is nested too deeply"),
        (f"{'a.' * 3000}b=1", "there is no such key"),
    ],
)
def test_absurd_values_are_refused_at_once(override: str, said: str) -> None:
    assert said in fault(override)


@pytest.mark.parametrize(
    "text",
    [
        "optimiser: &a {steps: *a}\nstage: sft",
        "stage: sft\noptimiser: &a [*a]",
        "stage: sft\noptimiser: {steps: !!binary aGk=}",
        "[" * 3000,
        "stage: {a: " * 500,
        "stage: sft\n? [1, 2]\n: 3",
        "!!python/object:os.system x",
        "a" * (2 << 20),
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
        + "stage: *a11",
    ],
)
def test_files_that_loop_or_bloat(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert str(path) in fault(name=str(path))


def test_more_sequences_of_a_step_than_memory_holds_are_refused() -> None:
    said = fault(
        "optimiser.steps=1", "optimiser.warmup=0", "optimiser.batch=1", "optimiser.accumulation=200000"
    )
    assert "optimiser.batch x optimiser.accumulation (200000) must be at most 100000" in said


def test_more_rollouts_than_memory_holds_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"rollout.questions x rollout.group \(80000000\) must be at most 100000"
    ):
        read_recipe("nano-rl", ["rollout.group=10000000", "rollout.questions=8"])


def test_a_value_is_shown_short() -> None:
    assert shown("x" * 1000) == f"'{'x' * 40}...'" and shown({"a": 1}) == "a mapping"
    assert shown(10**40) == "a number of more than thirty digits" and shown(True) == "true"


# --- what follows the number of steps, and the table ------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "log", "save"), [(1, 1, 1), (40, 1, 4), (200, 2, 20), (5000, 50, 500)])
def test_lines_and_checkpoints_follow_the_steps(steps: int, log: int, save: int) -> None:
    made = parse_recipe({"stage": "sft", "optimiser": {"steps": steps}}, "mine")
    assert (made.log_every, made.save_every) == (log, save)
    given = {"stage": "sft", "optimiser": {"steps": steps}, "watch": {"log_every": 3, "save_every": 7}}
    made = parse_recipe(given, "mine")
    assert (made.log_every, made.save_every) == (3, 7)


def test_checkpoints_of_rl_are_taken_between_generations() -> None:
    made = read_recipe("paper-rl", ["optimiser.steps=30"])
    assert isinstance(made, RLRecipe) and made.rollout.updates == 2 and made.save_every == 4


def test_the_table_of_keys_is_that_of_the_code() -> None:
    """Every key of a recipe stands in docs/finetune.md with its default, and no other."""
    rows = dict(
        re.findall(
            r"^\| `([a-z_]+(?:\.[a-z_]+)*)` \| (?:sft|rl|both) \| (.+?) \| [^|]+ \|$", DOCS.read_text(), re.M
        )
    )
    known = keys_of(SFTRecipe) | keys_of(RLRecipe)
    assert set(rows) == set(known), sorted(set(rows) ^ set(known))
    for key, field in known.items():
        default = "required" if field.is_required() or key == "stage" else _written(field.default)
        assert rows[key] == default, key


def _written(default: object) -> str:
    """A default as the table has it."""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return f"[{', '.join(map(str, default))}]"
    return f"{default:g}" if isinstance(default, float) else str(default) or "empty"
