"""The command line: ``ask`` one question, list ``models``, ``eval``uate a file of questions, ``finetune``.

Everything heavy is imported inside the commands, so that ``--help`` answers at once. What a user got wrong is one line
on stderr and exit code 2, never a traceback.

Exit codes: 0 done (for ``ask``: answered), 1 anything unexpected, 2 usage or bad input, 3 no answer could be read.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from echo_agent.errors import EchoAgentError

UNEXPECTED, BAD_INPUT, UNPARSED, INTERRUPTED = 1, 2, 3, 130
DEBUG = "ECHO_AGENT_DEBUG"
"""Environment variable that asks for the traceback of an unexpected error."""

app = typer.Typer(
    name="echo-agent",
    help="Ask a recording a question: the model that answers can listen again before it does.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Model = Annotated[
    str, typer.Option(help="echo-nano, a model on the hub, or a folder; see `echo-agent models`.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ... or mps.")]
MaxRelistens = Annotated[int, typer.Option(min=0, help="How often the model may listen again.")]
Temperature = Annotated[
    float, typer.Option(min=0.0, max=100.0, help="Of sampling; 0 takes the likeliest token.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of every random choice.")]
Guided = Annotated[
    bool,
    typer.Option(
        "--guided/--free", help="Whether nothing but one of the choices may be written as the answer."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"echo-agent {version('echo-agent')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit."),
    ] = False,
) -> None: ...


@app.command("ask")
def _ask(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The recording: wav, flac, ogg, mp3, m4a, mp4, webm, ...")
    ],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What you want to know.")],
    choices: Annotated[str | None, typer.Option(help='What to choose from: "a bell|a dog|a car".')] = None,
    model: Model = "echo-nano",
    device: Device = "auto",
    max_relistens: MaxRelistens = 8,
    no_relisten: Annotated[bool, typer.Option("--no-relisten", help="Answer from the first listen.")] = False,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    guided: Guided = True,
    json: Json = False,
    trace: Annotated[
        str | None, typer.Option(metavar="OUT.json", help="Write every step of the run.")
    ] = None,
    plot: Annotated[str | None, typer.Option(metavar="RUN.png", help="Draw the run.")] = None,
    thread: Annotated[
        str | None, typer.Option(help="Keep the run under this name, and go on with it.")
    ] = None,
) -> None:
    """Ask a recording a question."""
    from echo_agent.cli.ask import run

    run(
        file,
        question,
        choices=None if choices is None else [choice.strip() for choice in choices.split("|")],
        model=model,
        device=device,
        max_relistens=max_relistens,
        relisten=not no_relisten,
        temperature=temperature,
        seed=seed,
        guided=guided,
        as_json=json,
        trace=trace,
        plot=plot,
        thread=thread,
    )


@app.command("models")
def _models(json: Json = False) -> None:
    """List the models that can be named, and what each needs."""
    from echo_agent.cli.models import run

    run(as_json=json)


@app.command("eval")
def _evaluate(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="Questions, one JSON object per line.")],
    controls: Annotated[
        str, typer.Option(help="Any of on, off, wrong-crop, silence, separated by commas.")
    ] = "on",
    model: Model = "echo-nano",
    device: Device = "auto",
    max_relistens: MaxRelistens = 8,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    guided: Guided = True,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="How many runs at once.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first so many questions only.")] = None,
    json: Json = False,
    out: Annotated[
        str | None,
        typer.Option(metavar="RESULTS.jsonl", help="Write each result as it comes; run again to go on."),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Keep encoded recordings here, for other models and later runs."),
    ] = None,
) -> None:
    """Ask every question of a file, and score the answers."""
    from echo_agent.cli.evaluate import run

    run(
        file,
        controls=controls,
        model=model,
        device=device,
        max_relistens=max_relistens,
        temperature=temperature,
        seed=seed,
        guided=guided,
        batch=batch,
        limit=limit,
        as_json=json,
        out=out,
        features=features,
    )


@app.command(
    "finetune",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def _finetune(context: typer.Context) -> None:
    """Make data, and train: see `echo-agent finetune --help`."""
    from echo_agent.finetune.cli import app as verbs

    code = verbs(args=context.args, prog_name="echo-agent finetune", standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a terminal that cannot show a character is no reason to fail
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions and not os.environ.get(DEBUG):
                warnings.simplefilter("ignore")  # of dependencies, about themselves
            code = app(args=arguments or ["--help"], prog_name="echo-agent", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:
            return _fail("interrupted", INTERRUPTED)
        return code if isinstance(code, int) and arguments else 0 if arguments else BAD_INPUT
    except typer.TyperException as error:  # usage
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "echo-agent"
        return _fail(f"{error.format_message().rstrip('.')} (see `{command} --help`)", BAD_INPUT)
    except EchoAgentError as error:
        return _fail(str(error), BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has gone, `head` for one
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return UNEXPECTED
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        while isinstance(error, ExceptionGroup):  # of runs that were made together
            error = error.exceptions[0]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(f"unexpected {reason} (set {DEBUG}=1 for the traceback)", UNEXPECTED)


def _fail(message: str, code: int) -> int:
    print(f"echo-agent: {message}", file=sys.stderr)
    return code
