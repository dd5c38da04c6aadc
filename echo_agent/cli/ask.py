"""``echo-agent ask``: one recording, one question.

In a terminal the run is shown as it happens. Elsewhere only the answer goes to stdout, or with ``--json`` one object.
Whatever can be checked without the model is checked before it is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from echo_agent.answers import check_question
from echo_agent.cli import UNPARSED
from echo_agent.errors import DataError, QuestionError
from echo_agent.families.loading import EMBEDDED
from echo_agent.recording import Recording

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent, EchoResult


def run(
    file: str,
    question: str,
    *,
    choices: Sequence[str] | None,
    model: str,
    device: str,
    as_json: bool,
    trace: str | None,
    plot: str | None,
    **options: Any,
) -> None:
    """Ask, print what came of it, and write the trace and the picture; exit code 3 where no answer could be read."""
    check_question(question, choices)
    try:
        "".join([question, *(choices or ())]).encode()
    except UnicodeEncodeError:
        raise QuestionError("the question or a choice is not UTF-8 text") from None
    with quiet_decoders():
        recording = Recording.open(file)
    for name, path in (("--trace", trace), ("--plot", plot)):
        check_output(name, path)
    console = Console(highlight=False, markup=False)
    screen = None
    if console.is_terminal and not as_json:
        from echo_agent.cli.show import Screen

        screen = Screen(console, recording)
        screen.head()
    with load_agent(model, device, Console(stderr=True, highlight=False, markup=False)) as agent:
        seen: list[dict[str, Any]] = []

        def show(event: dict[str, Any]) -> None:
            seen.append(event)
            if screen is not None:
                screen.event(event)

        result = agent.ask(recording, question, choices, on_event=show if screen else None, **options)
        if as_json:
            print(result.model_dump_json())
        elif screen is not None:
            if not seen:
                screen.replay(result)
            screen.answer(result)
        elif result.answer is not None:
            print(result.answer)
        if trace is not None:
            data = traced(agent, recording, question, choices, options, result)
            Path(trace).write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
        if plot is not None:
            draw(recording, plot, question, choices, result)
    if result.answer is None:
        if screen is None:
            typer.echo("echo-agent: no answer could be read", err=True)
        raise typer.Exit(UNPARSED)


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep what C libraries write to stderr about a damaged file from it: the error that follows says it in words."""
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def check_output(option: str, path: str | None) -> None:
    """Refuse a file that cannot be written, before anything is run; a file that exists is overwritten at the end."""
    if path is None:
        return
    target = Path(path)
    try:
        if target.is_dir():
            raise DataError(f"{option} {path}: this is a folder; name a file")
        if not target.parent.is_dir():
            raise DataError(f"{option} {path}: there is no folder {target.parent}")
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise DataError(f"{option} {path}: this cannot be written to")
    except (OSError, ValueError) as error:
        raise DataError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from None


def load_agent(model: str, device: str, console: Console, features: str | None = None) -> EchoAgent:
    """Load a model, with a word about it in a terminal; the bars of downloads are all that else is shown."""
    remote = model != EMBEDDED and not Path(model).is_dir()
    if console.is_terminal and remote:
        console.print(f"loading {model}", style="dim")
    with console.status(f"loading {model}") if console.is_terminal and not remote else nullcontext():
        from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        (enable_progress_bars if console.is_terminal else disable_progress_bars)()
        from echo_agent.agent import EchoAgent

        return EchoAgent.from_pretrained(model, device=device, features=features)


def traced(
    agent: EchoAgent,
    recording: Recording,
    question: str,
    choices: Sequence[str] | None,
    options: dict[str, Any],
    result: EchoResult,
) -> dict[str, Any]:
    """Every step of a run as plain JSON: what went into the context, token by token, with where it came from."""
    from echo_agent.rendering import visible_text
    from echo_agent.trajectory import TokenDelta

    trajectory = result.trajectory
    packed = TokenDelta(prefix="", segments=trajectory.segments).to_json()["segments"]
    for segment, plain in zip(packed, trajectory.segments, strict=True):
        words = [token for token in plain.ids if token != agent.family.audio_id]
        segment["text"] = visible_text(agent.family, words)
    return {
        "echo_agent": version("echo-agent"),
        "model": agent.fingerprint,
        "recording": recording.ref().model_dump(mode="json"),
        "question": question,
        "choices": choices,
        "options": options,
        "result": result.model_dump(mode="json"),
        "segments": packed,
    }


def draw(
    recording: Recording, path: str, question: str, choices: Sequence[str] | None, result: EchoResult
) -> None:
    """Draw a run, with what was written after each re-listen beside it."""
    from echo_agent.cli.show import described
    from echo_agent.graphs.calls import replies_of
    from echo_agent.outline import clock
    from echo_agent.picture import Listen, draw_run, steps

    first, *rest = steps(result.text)
    texts = [[first]]
    replies = replies_of(result.messages)
    for i, text in enumerate(rest):
        if i < len(replies) and replies[i].outcome == "heard":
            texts.append([])
        texts[-1].append(text)
    texts += [[]] * (1 + len(result.relistens) - len(texts))
    before, *after = (" ".join(filter(None, parts)) for parts in texts)
    heard = f"  ·  {result.seconds_heard:.1f} s heard again" if result.relistens else ""
    draw_run(
        recording,
        path,
        question=question,
        answer=result.answer,
        listens=[
            Listen(record.start, record.end, text, described(record.model_dump()))
            for record, text in zip(result.relistens, after, strict=True)
        ],
        before=before,
        choices=choices,
        caption=f"{recording.name}  ·  {clock(recording.duration)}  ·  {result.model}{heard}",
    )
