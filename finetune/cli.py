"""``echo-agent finetune``: fetch sounds, build the bank, make test sets, train an echo-nano."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from echo_agent.finetune.data.cli import app as data

app = typer.Typer(
    help="Make data, and train.", add_completion=False, no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data, name="data")

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
