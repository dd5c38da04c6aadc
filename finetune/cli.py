"""``echo-agent finetune``: data, supervised fine-tuning, reinforcement learning; and how echo-nano is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from echo_agent.finetune.data.cli import app as data
from echo_agent.terminal import say

app = typer.Typer(
    help="Make data, and train.", add_completion=False, no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data, name="data")

Recipe = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's name (see `recipes`), or a YAML file.")
]
Dataset = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Folder that `data build` or `data bench` wrote.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run; one that was begun is resumed.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A value in place of the recipe's: key=value, such as optimiser.steps=100; may be repeated.",
    ),
]
Features = Annotated[
    Path | None, typer.Option(help="Where encoded audio is kept; in the dataset's folder by default.")
]


@app.command()
def recipes(
    name: Annotated[str, typer.Argument(metavar="[RECIPE]", help="Print this one.")] = "",
) -> None:
    """List the recipes that ship with the package, or print one."""
    from echo_agent.finetune.config import RECIPES, read_recipe, recipe_names

    if name:
        read_recipe(name)
        path = RECIPES / f"{name}.yaml"
        say((path if path.exists() else Path(name)).read_text(encoding="utf-8"), end="")
        return
    for known in recipe_names():
        lines = (RECIPES / f"{known}.yaml").read_text(encoding="utf-8").splitlines()
        about = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        say(f"{known:20} {about.partition('. ')[0].rstrip('.')}.")


@app.command()
def sft(recipe: Recipe, dataset: Dataset, run: Run, set: Set = None, features: Features = None) -> None:
    """Supervised fine-tuning: teach a policy to listen again, from examples of it; ends with a folder for --model."""
    from echo_agent.errors import DataError
    from echo_agent.finetune.config import SFTRecipe, read_recipe

    chosen = read_recipe(recipe, set or ())
    if not isinstance(chosen, SFTRecipe):
        raise DataError(f"the recipe {recipe} is of the stage rl: use `echo-agent finetune rl`")
    _tell(f"{recipe}: loading")
    from echo_agent.finetune.sft import train_sft
    from echo_agent.finetune.training_setup import leave_processes

    _quiet()
    made = train_sft(chosen, dataset, run, features=features, report=_tell)
    leave_processes()
    say(f"{made}: ready for --model")


@app.command()
def rl(recipe: Recipe, dataset: Dataset, run: Run, set: Set = None, features: Features = None) -> None:
    """Reinforcement learning: reward a policy for runs of the listening graph; ends with a folder for --model."""
    from echo_agent.errors import DataError
    from echo_agent.finetune.config import RLRecipe, read_recipe

    chosen = read_recipe(recipe, set or ())
    if not isinstance(chosen, RLRecipe):
        raise DataError(f"the recipe {recipe} is of the stage sft: use `echo-agent finetune sft`")
    _tell(f"{recipe}: loading")
    from echo_agent.finetune.rl import train_rl
    from echo_agent.finetune.training_setup import leave_processes

    _quiet()
    made = train_rl(chosen, dataset, run, features=features, report=_tell)
    leave_processes()
    say(f"{made}: ready for --model")


@app.command()
def demo(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write to; one that was begun is resumed.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """Data, SFT, RL and evaluation of a small task, in three to ten minutes; ends with a model and a page."""
    from echo_agent.finetune.demo import run_demo

    _quiet()
    say(f"{run_demo(out, seed=seed, report=_tell)}: ready for --model")


@app.command()
def merge(
    adapters: Annotated[
        Path, typer.Argument(metavar="ADAPTERS", help="Folder that a training with adapters wrote.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the whole model to.")],
    dtype: Annotated[
        str, typer.Option(help="Precision: float32, bfloat16 or float16; auto is float32.")
    ] = "auto",
    push: Annotated[str, typer.Option(help="Also upload it to the hub under this id.")] = "",
) -> None:
    """Merge adapters into the weights of the model that they were trained on."""
    from echo_agent.finetune.policy import merge

    merge(adapters, out, dtype=dtype, push=push, report=_report)


def _tell(text: str) -> None:
    say(text, error=True)


def _report(text: str) -> None:
    say(text, flush=True)


def _quiet() -> None:
    """Trainings speak through their own lines; what libraries say is for their developers, but for errors."""
    import logging

    for name in ("transformers", "trl", "accelerate", "datasets", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


MOST_SHARDS = 99_999
"""The number of the next is that of the first shard that is held out."""
Bank = Annotated[
    Path,
    typer.Argument(metavar="BANK", help="Folder of the sound bank (see `echo-agent finetune data bank`)."),
]


@app.command()
def testset(
    bank: Bank,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write recordings and questions to.")],
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """Mix the three test sets (core, unseen-package, unseen-voice) for `echo-agent eval`."""
    from echo_agent.finetune.nano.testset import SETS, build_testset

    for test in SETS:
        say(f"{build_testset(bank, out, test, seed=seed)}: {test.questions} questions")


@app.command()
def nano(
    bank: Bank,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder of the run; one that is there already is resumed.")
    ],
    shards: Annotated[
        int, typer.Option(min=1, max=MOST_SHARDS, help="Training shards, 320 s of audio each.")
    ] = 160,
    branch_epochs: Annotated[int, typer.Option(min=1, max=100_000, help="Epochs of the sound branch.")] = 15,
    steps: Annotated[
        int, typer.Option(min=4, max=100_000_000, help="Steps of supervised fine-tuning.")
    ] = 12000,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """Train an echo-nano: encode tiles, train the sound branch, then the decoder; ends with a folder for --model."""
    from echo_agent.finetune.nano.train import NanoRecipe, train_nano

    recipe = NanoRecipe(shards=shards, branch_epochs=branch_epochs, steps=steps, seed=seed)
    say(f"{train_nano(bank, out, recipe, report=_report)}: ready for --model")
