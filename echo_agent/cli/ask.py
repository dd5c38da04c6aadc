"""``echo-agent ask``: one recording, one question.

In a terminal the run is shown as it happens. Elsewhere only the answer goes to stdout, or with ``--json`` one object.
Whatever can be checked without the model is checked before it is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from echo_agent.answers import check_question
from echo_agent.audio.outline import clock, described
from echo_agent.audio.picture_files import PICTURES
from echo_agent.audio.recording import Recording
from echo_agent.cli.status import StatusLine
from echo_agent.console import console
from echo_agent.disk import real_path, write_whole
from echo_agent.errors import DataError, QuestionError
from echo_agent.exit_codes import NOT_UNDERSTOOD, UNPARSED
from echo_agent.families.understanding import Doubt, doubt
from echo_agent.shipped import NANO, SHIPPED, SMALL
from echo_agent.terminal import printable, say, say_json

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent, EchoResult
    from echo_agent.cli.show import Screen


def run(
    file: str,
    question: str,
    *,
    choices: Sequence[str] | None,
    model: str,
    device: str,
    server: Sequence[str],
    served_as: str | None,
    placed: dict[str, str],
    as_json: bool,
    trace: str | None,
    plot: str | None,
    report: str | None,
    **options: Any,
) -> None:
    """Ask, print what came of it, and write what was asked for.

    The exit code is 3 where no answer could be read, and 4 where the model does not understand the question.
    """
    check_question(question, choices)
    for name, path in (("--trace", trace), ("--plot", plot), ("--report", report)):
        check_output(name, path, file)
    check_picture(plot)
    check_page("--report", report)
    with StatusLine() as status:
        status.say(f"opening {printable(Path(file).name)}")
        with quiet_decoders():
            recording = Recording.open(file)
        known = doubt(model, model, question, choices) if model in SHIPPED else None
        if known is not None and not known.asked:
            status.clear()
            answer_nothing(model, known, as_json=as_json)
        screen = _screen(recording, status) if not as_json else None
        with load_agent(model, device, status, server=server, served_as=served_as, **placed) as agent:
            from echo_agent.traces import trace_of

            result = _asked(agent, recording, question, choices, options, status, screen)
            written = _Written()
            if trace is not None:
                with written.keep():
                    data = trace_of(agent, recording, question, choices, options, result).to_json()
                    write_whole(Path(trace), json.dumps(data, indent=1, ensure_ascii=False).encode())
            if plot is not None:
                with written.keep():
                    status.say(f"drawing {printable(plot)}")
                    draw(recording, plot, question, choices, result)
            if report is not None:
                from echo_agent.pages.report import write_report

                with written.keep():
                    status.say(f"writing {printable(report)}")
                    run_of = trace_of(agent, recording, question, choices, options, result)
                    write_report(run_of, recording, Path(report))
    if as_json:
        say_json(result.model_dump(mode="json"), compact=True)
    elif screen is not None:
        screen.answer(result)
    elif result.answer is not None:
        say(result.answer)
        if result.forced and not result.budget_exhausted:
            sure = "" if result.confidence is None else f" (confidence {result.confidence:.0%})"
            say(f"echo-agent: the answer was forced to a choice{sure}", error=True)
    for note in result.notes:
        about = "" if known is not None and note == known.note else f"{printable(recording.name)}: "
        say(f"echo-agent: {about}{printable(note)}", error=True)
    written.check()
    if result.status == "not_understood":
        raise typer.Exit(NOT_UNDERSTOOD)
    if result.answer is None:
        if screen is None:
            say("echo-agent: no answer could be read", error=True)
        raise typer.Exit(UNPARSED)


def answer_nothing(model: str, known: Doubt, *, as_json: bool) -> NoReturn:
    """Say why a question is not put to a model, which is not loaded then; exit code 4."""
    from echo_agent.results import not_understood

    if as_json:
        say_json(not_understood(model, known.note).model_dump(mode="json"), compact=True)
    help = f" (it knows few; {SMALL} takes plain English)" if model == NANO else ""
    say(f"echo-agent: {printable(known.note)}{help}", error=True)
    raise typer.Exit(NOT_UNDERSTOOD)


def _screen(recording: Recording, status: StatusLine) -> Screen | None:
    """What shows the run on stdout; None where that is no terminal."""
    shown = console()
    if not shown.is_terminal:
        return None
    from echo_agent.cli.show import Screen

    screen = Screen(shown, recording)
    status.clear()
    screen.head()
    return screen


def _asked(
    agent: EchoAgent,
    recording: Recording,
    question: str,
    choices: Sequence[str] | None,
    options: dict[str, Any],
    status: StatusLine,
    screen: Screen | None,
) -> EchoResult:
    """Ask, and show what happens as it does."""
    seen: list[dict[str, Any]] = []

    def show(event: dict[str, Any]) -> None:
        seen.append(event)
        if screen is not None:
            status.clear()
            screen.event(event)
        elif event["type"] in ("relisten", "search") and event["start"] is not None:
            again = "again " if event["type"] == "relisten" else ""
            status.say(f"listening {again}to {clock(event['start'])} – {clock(event['end'])}")
        elif event["type"] == "token" and event["origin"] == "sampled":
            status.say("reasoning")

    status.say(f"listening to {clock(recording.duration)}")
    live = screen is not None or status.shown
    result = agent.ask(recording, question, choices, on_event=show if live else None, **options)
    status.clear()
    if screen is not None and not seen:
        screen.replay(result)
    return result


class _Written:
    """The files of a run: one that cannot be written is no reason to lose the answer, or the other file."""

    def __init__(self) -> None:
        self._errors: list[DataError] = []

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Keep what is wrong with a file for later."""
        try:
            yield
        except DataError as error:
            self._errors.append(error)

    def check(self) -> None:
        """Raise what was kept."""
        if self._errors:
            raise DataError(*self._errors)


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


def check_output(option: str, path: str | None, given: str) -> None:
    """Refuse a file that cannot be written, before anything is run; a file that exists is overwritten at the end.

    The recording itself, ``given``, never is.
    """
    if path is None:
        return
    try:
        target = real_path(path)
        if target.exists() and Path(given).exists() and target.samefile(given):
            raise DataError(f"{option} {path}: this is the recording; name another file")
        if target.is_dir():
            raise DataError(f"{option} {path}: this is a folder; name a file")
        if not target.parent.is_dir():
            raise DataError(f"{option} {path}: there is no folder {target.parent}")
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise DataError(f"{option} {path}: this cannot be written to: {_why_not(target)}")
    except (OSError, ValueError) as error:
        raise DataError(f"{option} {path}: {getattr(error, 'strerror', None) or error}") from None


def _why_not(target: Path) -> str:
    """Why a file cannot be written: on a disk that is read-only, or without the right to."""
    place = target if target.exists() else target.parent
    read_only = bool(os.statvfs(place).f_flag & os.ST_RDONLY) if hasattr(os, "statvfs") else False
    return "the disk is read-only" if read_only else f"no permission for {place}"


def check_picture(path: str | None) -> None:
    """Refuse a picture of a kind that cannot be drawn, by its suffix."""
    if path is not None and Path(path).suffix.lower() not in PICTURES:
        *most, last = PICTURES
        raise DataError(f"--plot {path}: a picture is a file that ends in {', '.join(most)} or {last}")


def check_page(option: str, path: str | None) -> None:
    """Refuse a page that no browser would take for one, by its suffix."""
    if path is not None and Path(path).suffix.lower() not in PAGES:
        raise DataError(f"{option} {path}: a page is a file that ends in {' or '.join(PAGES)}")


PAGES = (".html", ".htm")


def load_agent(
    model: str,
    device: str,
    status: StatusLine,
    *,
    features: str | None = None,
    server: Sequence[str] = (),
    served_as: str | None = None,
    **placed: str,
) -> EchoAgent:
    """Load a model, with a word about it in a terminal; the bars of downloads are all that else is shown."""
    if served_as is not None and not server:
        raise QuestionError("--served-as is the name of a model on a server: give its address too (--server)")
    if model not in SHIPPED and not Path(model).is_dir():
        status.line(f"loading {printable(model)}")
    else:
        status.say(f"loading {printable(model)}")
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()  # it tells of each of its tries; what came of them is in the error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    (enable_progress_bars if status.shown else disable_progress_bars)()
    if model.startswith("openai:"):
        from echo_agent.chat_agent import ChatAgent

        if server or features is not None:
            raise QuestionError(f"{model} is on a server by its name: leave out --server, and --features too")
        return ChatAgent.from_pretrained(model)
    from echo_agent.agent import EchoAgent

    served: dict[str, Any] = {"server": list(server), "served_as": served_as} if server else {}
    return EchoAgent.from_pretrained(model, device=device, features=features, **placed, **served)


def draw(
    recording: Recording, path: str, question: str, choices: Sequence[str] | None, result: EchoResult
) -> None:
    """Draw a run, with what was written after each re-listen beside it."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps its caches is nobody's concern
    from echo_agent.audio.picture import Listen, draw_run, steps
    from echo_agent.graphs.calls import replies_of

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
