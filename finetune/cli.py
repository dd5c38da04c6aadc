"""``echo-agent finetune``: data, supervised fine-tuning, reinforcement learning; and how echo-nano is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from echo_agent.finetune.data.cli import app as data

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
Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of the run; one that was begun is gone on with.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Another value: key=value, such as optimiser.steps=100.")
]
Features = Annotated[
    Path | None, typer.Option(help="Where encoded audio is kept; in the dataset's folder if none is named.")
]


@app.command()
def recipes(
    name: Annotated[str, typer.Argument(metavar="[RECIPE]", help="Print this one whole.")] = "",
) -> None:
    """List the recipes that ship with the package, or print one."""
    from echo_agent.finetune.config import RECIPES, read_recipe, recipe_names

    if name:
        read_recipe(name)
        path = RECIPES / f"{name}.yaml"
        typer.echo((path if path.exists() else Path(name)).read_text(encoding="utf-8"), nl=False)
        return
    for known in recipe_names():
        lines = (RECIPES / f"{known}.yaml").read_text(encoding="utf-8").splitlines()
        about = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        typer.echo(f"{known:20} {about.partition('. ')[0].rstrip('.')}.")


@app.command()
def sft(recipe: Recipe, dataset: Dataset, run: Run, set: Set = None, features: Features = None) -> None:
    """Teach a policy to listen again, from reasoning that does; ends with a folder for --model."""
    from echo_agent.errors import DataError
    from echo_agent.finetune.config import SFTRecipe, read_recipe

    chosen = read_recipe(recipe, set or ())
    if not isinstance(chosen, SFTRecipe):
        raise DataError(f"the recipe {recipe} is of the stage rl: use `echo-agent finetune rl`")
    from echo_agent.finetune.sft import train_sft

    _quiet()
    made = train_sft(chosen, dataset, run, features=features, report=_tell)
    typer.echo(f"{made}: ready for --model")


@app.command()
def rl(recipe: Recipe, dataset: Dataset, run: Run, set: Set = None, features: Features = None) -> None:
    """Reward a policy for runs of the listening graph; ends with a folder for --model."""
    from echo_agent.errors import DataError
    from echo_agent.finetune.config import RLRecipe, read_recipe

    chosen = read_recipe(recipe, set or ())
    if not isinstance(chosen, RLRecipe):
        raise DataError(f"the recipe {recipe} is of the stage sft: use `echo-agent finetune sft`")
    from echo_agent.finetune.rl import train_rl

    _quiet()
    made = train_rl(chosen, dataset, run, features=features, report=_tell)
    typer.echo(f"{made}: ready for --model")


@app.command()
def demo(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder to write to; one that was begun is gone on with.")
    ],
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """See the whole way in some minutes: data, SFT, RL and evaluation of a small task; ends with a model and a page."""
    from echo_agent.finetune.demo import run_demo

    _quiet()
    typer.echo(f"{run_demo(out, seed=seed, report=_tell)}: ready for --model")


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
    """Put adapters into the weights of the model that they were trained on."""
    from echo_agent.finetune.policy import merge

    merge(adapters, out, dtype=dtype, push=push, report=typer.echo)


def _tell(text: str) -> None:
    typer.echo(text, err=True)


def _quiet() -> None:
    """Trainings speak through their own lines; what libraries say is for their developers, but for errors."""
    import logging

    for name in ("transformers", "trl", "accelerate", "datasets", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


Bank = Annotated[
    Path, typer.Argument(metavar="BANK", help="Folder of the sound bank (see `echo-agent finetune bank`).")
]


@app.command()
def fetch(
    debs: Annotated[
        Path, typer.Argument(metavar="DEBS", help="Folder to download and unpack the sound packages into.")
    ],
) -> None:
    """Download the free sound packages (Debian; about 1.2 GB) and unpack them, without installing them."""
    from echo_agent.finetune.data.packages import fetch

    fetch(debs)


@app.command()
def bank(
    debs: Annotated[
        Path, typer.Argument(metavar="DEBS", help="Folder of the unpacked packages (see `fetch`).")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the sound bank to.")],
) -> None:
    """Build the sound bank: labelled, split clips, spoken digits and words, notes of instruments."""
    from echo_agent.finetune.data.bank import build_bank

    rows = build_bank(debs, out)
    typer.echo(f"{out}: {len(rows)} clips")


@app.command()
def testset(
    bank: Bank,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write recordings and questions to.")],
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """Mix the three test sets (core, unseen-package, unseen-voice) for `echo-agent eval`."""
    from echo_agent.finetune.data.testset import SETS, build_testset

    for test in SETS:
        typer.echo(f"{build_testset(bank, out, test, seed=seed)}: {test.questions} questions")


@app.command()
def nano(
    bank: Bank,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder of the run; one that is there already is resumed.")
    ],
    shards: Annotated[int, typer.Option(min=1, help="Training shards, 320 s of audio each.")] = 160,
    branch_epochs: Annotated[int, typer.Option(min=1, help="Epochs of the sound branch.")] = 15,
    steps: Annotated[int, typer.Option(min=4, help="Steps of supervised fine-tuning.")] = 12000,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """Train an echo-nano: encode tiles, train the sound branch, then the decoder; ends with a folder for --model."""
    from echo_agent.finetune.nano import NanoRecipe, train_nano

    recipe = NanoRecipe(shards=shards, branch_epochs=branch_epochs, steps=steps, seed=seed)
    typer.echo(f"{train_nano(bank, out, recipe, report=typer.echo)}: ready for --model")
