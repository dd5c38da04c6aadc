"""``echo-agent finetune data``: banks of sounds, scenes, datasets of questions, pictures of them, and EchoBench."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from echo_agent.finetune.data.questions import ReasoningStyle
from echo_agent.provenance import given_command
from echo_agent.terminal import say

app = typer.Typer(
    help="Make questions that need listening again: from own clips, annotated corpora, or free packages.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Seed = Annotated[int, typer.Option(min=0, help="Of every random choice.")]
Workers = Annotated[int, typer.Option(min=1, max=1024, help="Processes that work at once.")]
Out = Annotated[
    Path, typer.Argument(metavar="OUT", help="Folder to write to; a build that was begun there is resumed.")
]
Style = Annotated[
    ReasoningStyle,
    typer.Option(
        "--reasoning",
        help="Reasoning in sentences, for models that know language; or terse, as echo-nano writes.",
    ),
]
MOST = 1_000_000
"""Most scenes or questions that are asked for: the list of what is left to do is held in memory."""
FORMS = "clips, bank, jsonl, jams, audioset, desed, musicbench, avqa"


@app.command()
def bank(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder with one folder of clips per label, or a CSV (path,label)."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the sound bank to.")],
    free: Annotated[
        bool,
        typer.Option(
            "--free", help="Make it of free packages (Debian; 1.2 GB), which are fetched into SOURCE."
        ),
    ] = False,
) -> None:
    """Build a sound bank: clips that are cut, levelled, rid of copies and split by where they come from."""
    if free:
        say(f"{out}: {_free_bank(source, out)} clips")
        return
    from echo_agent.finetune.data.bank.user_clips import bank_from_folder

    _, report = bank_from_folder(source, out)
    say(f"{out}: {report}")


@app.command()
def scenes(
    bank: Annotated[Path, typer.Argument(metavar="BANK", help="Folder of a sound bank.")],
    out: Out,
    count: Annotated[int, typer.Option(min=1, max=MOST, help="How many scenes.")] = 100,
    split: Annotated[
        str, typer.Option(help="Split of the bank that clips and voices are taken from.")
    ] = "train",
    shortest: Annotated[float, typer.Option(min=10, max=600, help="Seconds.")] = 20.0,
    longest: Annotated[float, typer.Option(min=10, max=600, help="Seconds.")] = 120.0,
    jams: Annotated[
        bool, typer.Option("--jams", help="Write a JAMS file next to each recording, too.")
    ] = False,
    seed: Seed = 0,
    workers: Workers = 2,
) -> None:
    """Mix scenes with exact ground truth: FLAC, and a table of what is in them."""
    from pydantic import ValidationError

    from echo_agent.errors import DataError
    from echo_agent.finetune.data.corpora import write_jams
    from echo_agent.finetune.data.records import Record
    from echo_agent.finetune.data.scenes.mixer import SceneSettings
    from echo_agent.finetune.data.scenes.render import mix_scenes
    from echo_agent.finetune.data.stages import read_rows

    try:
        settings = SceneSettings(duration=(shortest, longest))
    except ValidationError as error:
        raise DataError(f"--shortest, --longest: {error.errors()[0]['msg']}") from None
    with _progress() as progress:
        path = mix_scenes(
            bank,
            out,
            settings,
            count=count,
            seed=seed,
            splits=[split],
            workers=workers,
            progress=progress("mixing"),
        )
    if jams:
        for row in read_rows(path):
            record = Record.model_validate(row)
            write_jams((out / record.audio).with_suffix(".jams"), record)
    say(f"{path}: {count} scenes")


@app.command()
def build(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Own clips, a sound bank, or annotations of recordings.")
    ],
    out: Out,
    form: Annotated[
        str, typer.Option(help=f"What SOURCE is: {FORMS}; told by itself where that can be.")
    ] = "",
    audio: Annotated[
        Path | None, typer.Option(help="Folder of the recordings that the annotations name.")
    ] = None,
    questions: Annotated[
        int, typer.Option(min=1, max=MOST, help="How many, where scenes are mixed for them.")
    ] = 1000,
    categories: Annotated[
        str, typer.Option(help="Categories that are asked, with commas between; all of them if empty.")
    ] = "",
    writer: Annotated[
        str, typer.Option(help="Let a language model write the questions: provider:model.")
    ] = "",
    reviewer: Annotated[str, typer.Option(help="Let a language model judge them: provider:model.")] = "",
    listener: Annotated[
        str, typer.Option(help="Let a model note what it hears, for these: see `models`.")
    ] = "",
    base_url: Annotated[str, typer.Option(help="Server of writer and reviewer, if not the provider's.")] = "",
    open_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of questions without choices.")
    ] = 0.2,
    rl_share: Annotated[float, typer.Option(min=0, max=1, help="Share without reasoning, left to RL.")] = 0.3,
    reasoning: Style = "sentences",
    keep_blind: Annotated[
        bool, typer.Option("--keep-blind", help="Keep what can be answered without the audio.")
    ] = False,
    embed: Annotated[
        bool, typer.Option("--embed", help="Put the recordings into the Parquet files.")
    ] = False,
    seed: Seed = 0,
    workers: Workers = 2,
) -> None:
    """Make a dataset of questions with reasoning that listens again; ends with a folder for `load_dataset`."""
    from echo_agent.errors import DataError
    from echo_agent.finetune.data.build import BuildOptions
    from echo_agent.finetune.data.build import build as make
    from echo_agent.finetune.data.sources import Form, form_of

    if form and form not in list(Form):
        raise DataError(f"--form {form!r}: there are {FORMS}")
    options = BuildOptions(
        form=Form(form) if form else form_of(source),
        audio=audio,
        questions=questions,
        categories=tuple(name.strip() for name in categories.split(",") if name.strip()),
        writer=writer,
        reviewer=reviewer,
        listener=listener,
        base_url=base_url,
        open_share=open_share,
        rl_share=rl_share,
        reasoning=reasoning,
        keep_blind=keep_blind,
        embed=embed,
        seed=seed,
        workers=workers,
        command=given_command(),
    )
    with _progress() as progress:
        made = make(source, out, options, report=_tell, progress=progress)
    say(made)


@app.command()
def inspect(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder that `build` or `bench` wrote.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Picture (.png) or page (.html) to write.")],
    rows: Annotated[int, typer.Option(min=1, help="How many rows, drawn at random.")] = 6,
    split: Annotated[str, typer.Option(help="Only of this split.")] = "",
    category: Annotated[str, typer.Option(help="Only of this category.")] = "",
    ids: Annotated[str, typer.Option(help="These rows, with commas between.")] = "",
    seed: Seed = 0,
) -> None:
    """Draw rows: waveform, events, what must be heard and what is heard again, question, choices, reasoning."""
    from echo_agent.finetune.data.show.browse import inspect_rows

    chosen = tuple(name.strip() for name in ids.split(",") if name.strip())
    count = inspect_rows(dataset, out, rows=rows, split=split, category=category, ids=chosen, seed=seed)
    say(f"{out}: {count} rows")


@app.command()
def bench(
    out: Out,
    bank: Annotated[
        Path | None, typer.Option(help="Sound bank to mix from; fetched and built in OUT if none.")
    ] = None,
    scenes: Annotated[int, typer.Option(min=1, max=MOST, help="Scenes of the training set.")] = 6000,
    seed: Seed = 0,
    reasoning: Style = "sentences",
    asked: Annotated[
        int, typer.Option(min=1, max=MOST, help="Most questions per recording of the training set.")
    ] = 8,
    hours: Annotated[
        bool,
        typer.Option(
            "--hours", help="Build hour_sparse and hour_dense too: 16 recordings of 20 to 90 minutes."
        ),
    ] = False,
    workers: Workers = 2,
) -> None:
    """Build EchoBench: train, validation and the tests core, unseen and long; ends with a folder for `load_dataset`."""
    from echo_agent.finetune.data.bank.manifest import has_bank
    from echo_agent.finetune.data.echobench import build_bench

    if bank is None:
        bank = out / "bank"
        if not has_bank(bank):
            _tell("fetching the free packages (1.2 GB) and building the sound bank")
            _tell(f"{bank}: {_free_bank(out / 'debs', bank)} clips")
    with _progress() as progress:
        made = build_bench(
            bank,
            out,
            scenes=scenes,
            seed=seed,
            reasoning=reasoning,
            asked=asked,
            hours=hours,
            workers=workers,
            command=given_command(),
            report=_tell,
            progress=progress,
        )
    say(made)


def _free_bank(packages: Path, bank: Path) -> int:
    """Fetch the free packages, those that are not there yet, and build a bank of them; returns how many clips."""
    from echo_agent.finetune.data.bank.bank import build_bank, refuse_bank
    from echo_agent.finetune.data.bank.packages import fetch

    refuse_bank(bank)
    fetch(packages)
    return len(build_bank(packages, bank))


def _tell(text: str) -> None:
    say(text, error=True)


@contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Bars on stderr, one per stage; nothing where stderr is no terminal."""
    from echo_agent.console import progress

    with progress("{task.description}") as bar:

        def stage(name: str) -> Callable[[int, int], None]:
            task: Any = bar.add_task(name, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield stage
