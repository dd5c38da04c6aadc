"""The command line: ``ask``, ``report``, ``models``, ``eval``, ``serve``, ``mcp``, ``studio`` and ``finetune``.

Everything heavy is imported inside the commands, so that ``--help`` answers at once. What a user got wrong is one line
on stderr and exit code 2, never a traceback.

Exit codes: 0 done (for ``ask``: answered), 1 anything unexpected (a full disk behind standard output, for one), 2 usage
or bad input, 3 no answer could be read, 4 the model does not understand the question, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from echo_agent.cli import streams
from echo_agent.errors import EchoAgentError, InterruptedWorkError
from echo_agent.exit_codes import BAD_INPUT, INTERRUPTED, UNEXPECTED
from echo_agent.shipped import DEFAULT
from echo_agent.terminal import guarded, printable, say

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
    str,
    typer.Option(
        help="echo-small, echo-nano, a model on the hub, a folder, or openai:NAME@URL; see `echo-agent models`."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ... or mps.")]
Server = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL", help="Where `vllm serve --enable-scale-out` runs the model; may be repeated."
    ),
]
ServedAs = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model's name there, if it is another.")
]
Quantise = Annotated[
    str, typer.Option(help="Hold the decoder of a large model in fewer bits: 4bit, 8bit or int8.")
]
DeviceMap = Annotated[
    str, typer.Option(help="Put weights that do not fit on the device into other memory: auto.")
]
MaxRelistens = Annotated[int, typer.Option(min=0, help="How often the model may listen again.")]
Temperature = Annotated[
    float, typer.Option(min=0.0, max=100.0, help="Of sampling; 0 takes the likeliest token.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of every random choice.")]
Guided = Annotated[
    bool,
    typer.Option("--guided/--free", help="Whether the answer is limited to the choices."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"echo-agent {version('echo-agent')}")
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
    model: Model = DEFAULT,
    device: Device = "auto",
    server: Server = None,
    served_as: ServedAs = None,
    quantise: Quantise = "",
    device_map: DeviceMap = "",
    max_relistens: MaxRelistens = 8,
    no_relisten: Annotated[bool, typer.Option("--no-relisten", help="Answer from the first listen.")] = False,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    guided: Guided = True,
    json: Json = False,
    trace: Annotated[
        str | None, typer.Option(metavar="OUT.json", help="Write every step of the run.")
    ] = None,
    plot: Annotated[
        str | None, typer.Option(metavar="RUN.png", help="Draw the run, as png, svg, pdf or html.")
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(metavar="RUN.html", help="Write a page that shows and plays the run, sound included."),
    ] = None,
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
        server=server or (),
        served_as=served_as,
        placed={"quantise": quantise, "device_map": device_map},
        max_relistens=max_relistens,
        relisten=not no_relisten,
        temperature=temperature,
        seed=seed,
        guided=guided,
        as_json=json,
        trace=trace,
        plot=plot,
        report=report,
        thread=thread,
    )


@app.command("report")
def _report(
    trace: Annotated[str, typer.Argument(metavar="TRACE.json", help="What `ask --trace` wrote.")],
    page: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN.html]", help="The page; beside the trace by default.", show_default=False
        ),
    ] = None,
    audio: Annotated[
        str | None, typer.Option(metavar="FILE", help="The recording, where it was moved or renamed.")
    ] = None,
) -> None:
    """Make a page of a run that was kept: where the model listened, to look at and to play."""
    from echo_agent.cli.report import run

    run(trace, page, audio)


@app.command("serve")
def _serve(
    host: Annotated[
        str, typer.Option(help="Address to be reached at; other than this machine's own it takes a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    model: Model = DEFAULT,
    device: Device = "auto",
    allow_host: Annotated[
        list[str], typer.Option(metavar="HOST", help="Fetch recordings from this host; may be given again.")
    ] = [],  # noqa: B006 - typer makes a list of its own
    max_megabytes: Annotated[int, typer.Option(min=1, max=1024, help="Of one request.")] = 32,
    max_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Of one recording; what the model can hear by default.")
    ] = None,
    max_relistens: Annotated[int, typer.Option(min=0, help="Most that a client may ask for.")] = 16,
    running: Annotated[int, typer.Option(min=1, max=1024, help="Runs at once.")] = 32,
    waiting: Annotated[int, typer.Option(min=0, max=4096, help="Requests that wait; more are refused.")] = 64,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one request may take.")] = 120.0,
) -> None:
    """Serve the model to clients of OpenAI's chat completions; $ECHO_AGENT_KEY is the key they must send."""
    from echo_agent.cli.serve import run

    run(
        host,
        port,
        model=model,
        device=device,
        allow_host=allow_host,
        max_megabytes=max_megabytes,
        max_seconds=max_seconds,
        max_relistens=max_relistens,
        running=running,
        waiting=waiting,
        timeout=timeout,
    )


@app.command("studio")
def _studio(
    host: Annotated[
        str, typer.Option(help="Address to be reached at; other than this machine's own it takes a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    model: Model = DEFAULT,
    device: Device = "auto",
) -> None:
    """Open a page to try the model: drop a recording, ask, watch it listen, and listen yourself."""
    from echo_agent.cli.studio import run

    run(host, port, model=model, device=device)


@app.command("models")
def _models(json: Json = False) -> None:
    """List the models that can be named, and what each needs."""
    from echo_agent.cli.models import run

    run(as_json=json)


class _Evaluations(typer.core.TyperGroup):
    """The verbs of ``eval``; what is none of them is a file of questions or a benchmark, for the verb ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        verb = args[:1]
        return super().parse_args(
            ctx, args if verb and verb[0] in (*self.commands, "--help") else ["run", *args]
        )


evaluations = typer.Typer(
    cls=_Evaluations,
    help="Ask every question of a file or a benchmark, and score the answers.",
    epilog="`echo-agent eval FILE ...` is short for `echo-agent eval run FILE ...`.",
)
app.add_typer(evaluations, name="eval")


@evaluations.command("run")
def _evaluate(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.jsonl|BENCHMARK",
            help="Questions, one JSON object per line; or mmau, mmau-pro, mmar, mmsu, air-bench-foundation, "
            "air-bench-chat, lat-bench, voice-giraffe, echobench.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where the benchmark's files are, as it is published."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of the benchmark: test-mini, test, core, ...")] = None,
    controls: Annotated[
        str, typer.Option(help="Any of on, off, wrong-crop, silence, oracle, no-audio, separated by commas.")
    ] = "on",
    model: Model = DEFAULT,
    device: Device = "auto",
    server: Server = None,
    served_as: ServedAs = None,
    quantise: Quantise = "",
    device_map: DeviceMap = "",
    max_relistens: MaxRelistens = 8,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="With how many seeds, from --seed on.")] = 1,
    guided: Guided = True,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="How many runs at once.")] = 32,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask only this many questions, the first ones.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="3/8", help="Ask only this part; `eval merge` joins what comes of all."),
    ] = None,
    json: Json = False,
    out: Annotated[
        str | None,
        typer.Option(metavar="RESULTS.jsonl", help="Write each result as it comes; run again to go on."),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(metavar="PAGE.html", help="Write a page, and its tables as Markdown beside it."),
    ] = None,
    submission: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write predictions in the benchmark's own format.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Keep encoded recordings here, for other models and later runs."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="PROVIDER:MODEL", help="A chat model that judges open answers, such as openai:gpt-5."
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER:MODEL", help="An embedding model, for MMAU-Pro's official rule."),
    ] = None,
) -> None:
    """Ask every question of a file or a benchmark, and score the answers."""
    from echo_agent.cli.evaluate import Outputs, Settings, run

    run(
        file,
        data=data,
        split=split,
        controls=controls,
        model=model,
        device=device,
        server=server or (),
        served_as=served_as,
        placed={"quantise": quantise, "device_map": device_map},
        settings=Settings(max_relistens, temperature, seed, seeds, guided),
        batch=batch,
        limit=limit,
        shard=shard,
        as_json=json,
        out=out,
        outputs=Outputs(report, submission),
        features=features,
        judge=judge,
        embedder=embedder,
    )


@app.command("mcp")
def _mcp(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The recordings that may be asked about.")],
    model: Model = DEFAULT,
    device: Device = "auto",
    max_relistens: MaxRelistens = 8,
    http: Annotated[
        bool,
        typer.Option("--http", help="Serve streamable HTTP on this machine, not standard input and output."),
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of HTTP; 0 takes a free one.")] = 8765,
) -> None:
    """Let MCP clients ask about the recordings of a folder."""
    from echo_agent.cli.mcp import run

    run(folder, model=model, device=device, max_relistens=max_relistens, port=port if http else None)


@evaluations.command("compare")
def _compare(
    first: Annotated[str, typer.Argument(metavar="A.jsonl", help="Results of `eval --out`.")],
    second: Annotated[str, typer.Argument(metavar="B.jsonl", help="Those of another model or setting.")],
    json: Json = False,
) -> None:
    """Compare two evaluations of the same questions, question by question."""
    from echo_agent.cli.results import compare

    compare(first, second, as_json=json)


@evaluations.command("merge")
def _merge(
    out: Annotated[str, typer.Argument(metavar="RESULTS.jsonl", help="Where all results go.")],
    shards: Annotated[list[str], typer.Argument(metavar="SHARD.jsonl...", help="Results of `eval --shard`.")],
) -> None:
    """Join the results of shards; what does not belong together is refused."""
    from echo_agent.cli.results import merge

    merge(out, shards)


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
    streams.prepare()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with guarded():
        code = _run(arguments)
        if problem := streams.flush():
            return _fail(f"the output could not be written: {problem}", code or UNEXPECTED)
        return code


def _run(arguments: list[str]) -> int:
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions and not os.environ.get(DEBUG):
                warnings.simplefilter("ignore")  # of dependencies, about themselves
            code = app(args=arguments or ["--help"], prog_name="echo-agent", standalone_mode=False)
        if code == INTERRUPTED:
            return _fail("interrupted", INTERRUPTED)
        return code if isinstance(code, int) and arguments else 0 if arguments else BAD_INPUT
    except typer.TyperException as error:  # usage
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "echo-agent"
        return _fail(f"{printable(error.format_message().rstrip('.'))} (see `{command} --help`)", BAD_INPUT)
    except InterruptedWorkError as error:
        return _fail(str(error), INTERRUPTED)
    except EchoAgentError as error:
        return _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has gone, `head` for one
        streams.give_up(sys.stdout)
        return UNEXPECTED
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        if isinstance(error, typer.Abort) and error.__cause__ is not None:
            error = (
                error.__cause__
            )  # typer takes the end of any file for Ctrl-D at a prompt, and there are no prompts
        while isinstance(error, ExceptionGroup):  # of runs that were made together
            error = error.exceptions[0]
        if isinstance(error, OSError) and streams.is_no_room(error):
            return _fail(f"the output could not be written: {error.strerror}", UNEXPECTED)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return _fail(f"unexpected {reason} (set {DEBUG}=1 for the traceback)", UNEXPECTED)


def _fail(message: str, code: int) -> int:
    streams.complain(f"echo-agent: {message}")
    return code
