"""The studio: a page in the browser to try a model, and to see and hear where it listens.

:class:`Studio` is what the page does, free of the page: it watches runs, and listens by hand with the tool's own
options. :func:`build` puts it into a page of Gradio. While a run goes on, its picture and its reasoning are drawn anew
as they grow; in the end the page of the run takes their place, in a frame of its own. Times are seconds.
"""

from __future__ import annotations

import html
import json
import queue
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_agent.audio.picture import steps as pieces_of
from echo_agent.audio.recording import Recording, Transform
from echo_agent.errors import EchoAgentError, QuestionError
from echo_agent.families.base import TAIL
from echo_agent.pages.figure import figure
from echo_agent.pages.report import report, resource
from echo_agent.pages.steps import Step
from echo_agent.pages.story import escaped, mark_of, step_item
from echo_agent.shipped import NANO
from echo_agent.tools.relisten import check_call
from echo_agent.traces import Trace, trace_of

if TYPE_CHECKING:
    import gradio as gr

    from echo_agent.agent import EchoAgent
    from echo_agent.results import EchoResult

PAUSE = 0.15
"""Seconds between two pictures of a run that goes on."""
THREAD = "echo-agent-studio"
"""Name of the threads in which runs go on."""
BESIDE = 110
"""Pixels that a number takes at least, so that two stand side by side."""
USER = "echo"
"""Name under which one logs in where there is a key."""


@dataclass(frozen=True)
class Shown:
    """What the page shows at one moment of a run."""

    live: str
    """Picture and reasoning, as HTML."""
    trace: Trace | None = None
    """The run, once it has ended."""


class _Stopped(Exception):
    """The page does not watch any more."""


class Studio:
    """What the page does."""

    def __init__(self, agent: EchoAgent) -> None:
        """Show what an agent does."""
        self.agent = agent

    def open(self, path: str | None) -> Recording:
        """Open a recording; raises RecordingError, or QuestionError where there is none."""
        if not path:
            raise QuestionError("there is no recording: drop one, or record one")
        return Recording.open(path, self.agent.family.limits.longest_recording + TAIL)

    def watch(
        self, recording: Recording, question: str, choices: Sequence[str] | None, **options: Any
    ) -> Generator[Shown]:
        """A run as it happens; at last with its trace. Closing the iterator ends the run.

        Raises:
            EchoAgentError: As :meth:`EchoAgent.ask <echo_agent.agent.EchoAgent.ask>`.
        """
        events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        stopped = threading.Event()

        def tell(event: dict[str, Any]) -> None:
            if stopped.is_set():
                raise _Stopped
            events.put(event)

        future: Future[EchoResult] = Future()
        call = (future, self.agent, recording, question, choices, tell, options)
        thread = threading.Thread(target=_run, args=call, name=THREAD, daemon=True)
        future.add_done_callback(lambda _: events.put(None))
        run = _Live(recording, bare=self.agent.family.name == NANO)
        thread.start()
        try:
            yield Shown(run.html())
            drawn = time.monotonic()
            while (event := events.get()) is not None:
                run.add(event)
                if event["type"] != "token" or time.monotonic() - drawn > PAUSE:
                    yield Shown(run.html())
                    drawn = time.monotonic()
            trace = trace_of(self.agent, recording, question, choices, options, future.result())
            yield Shown(run.html(), trace)
        finally:
            stopped.set()

    def listen(
        self,
        recording: Recording,
        start: float,
        end: float,
        speed: float,
        low_hz: float | None,
        high_hz: float | None,
        gain_db: float,
    ) -> tuple[tuple[int, Any] | None, str]:
        """Listen as the model would: the sound (rate in Hz, int16 samples), and what the tool says of the call."""
        call = {"start": start, "end": end, "speed": speed, "gain_db": gain_db}
        call |= {name: value for name, value in (("low_hz", low_hz), ("high_hz", high_hz)) if value}
        heard = check_call(call, [recording.ref()], self.agent.family.limits)
        if heard.ref is None:
            return None, heard.observation
        rate = self.agent.family.sample_rate
        said = heard.observation or f"heard {heard.ref.start:g} to {heard.ref.end:g} s"
        samples = np.clip(recording.crop(heard.ref, rate), -1.0, 1.0)
        return (
            rate,
            np.rint(samples * 32767).astype(np.int16),
        ), said  # of floats, Gradio would change the level


def _run(
    future: Future[EchoResult],
    agent: EchoAgent,
    recording: Recording,
    question: str,
    choices: Sequence[str] | None,
    tell: Any,
    options: dict[str, Any],
) -> None:
    """Ask in a thread; whatever comes of it goes into the future."""
    try:
        future.set_result(agent.ask(recording, question, choices, on_event=tell, **options))
    except BaseException as error:  # it is raised where the future is read
        future.set_exception(error)


class _Live:
    """A run that goes on, from its events."""

    def __init__(self, recording: Recording, *, bare: bool) -> None:
        self._recording, self._ref, self._bare = recording, recording.ref(), bare
        self._picture = lru_cache(maxsize=1)(
            lambda heard: figure(recording, [mark_of(s) for s in self._heard()])
        )
        self._steps = [Step()]
        self._text = ""

    def _heard(self) -> list[Step]:
        return [step for step in self._steps if step.heard is not None]

    def add(self, event: dict[str, Any]) -> None:
        """Take in what happened."""
        if event["type"] == "token" and event["origin"] == "sampled":
            self._text += event["text"]
            self._steps[-1].text = " ".join(filter(None, pieces_of(self._text)))
        elif event["type"] == "relisten":
            self._text = ""
            if event["start"] is None:
                self._steps.append(Step(told=event["observation"] or event["outcome"]))
                return
            transform = Transform(**{name: event[name] for name in Transform.model_fields})
            heard = self._ref.span(event["start"], event["end"], transform)
            self._steps.append(Step(heard=heard, number=len(self._heard()) + 1))

    def html(self) -> str:
        """Picture and reasoning."""
        listed = "".join(step_item(step, self._ref, (), bare=self._bare) for step in self._steps)
        return (
            f'<div class="echo-run">{self._picture(len(self._heard()))}<ol class="steps">{listed}</ol></div>'
        )


# --- the page -----------------------------------------------------------------------------------------------------


def style() -> str:
    """The style of what the page shows of a run; it touches nothing else of the page."""
    return f"{resource('colours.css')}\n.echo-run {{\n{resource('figure.css')}\n}}\n{resource('studio.css')}"


def framed(page: str) -> str:
    """A page of a run in a frame, in which it can run its own script and reach nothing around it."""
    return f'<iframe class="echo-page" title="The run" sandbox="allow-scripts" srcdoc="{html.escape(page)}"></iframe>'


def verdict(name: str, trace: Trace | None) -> str:
    """An answer, in a box with a heading; what speaks against it stands below."""
    if trace is None:
        return f'<div class="echo-verdict"><h4>{name}</h4><p>…</p></div>'
    result = trace.result
    answer = escaped(result.outcome, lines=True)
    sure = "" if result.confidence is None else f" · confidence {result.confidence:.0%}"
    count = len(result.relistens)
    notes = "".join(f"<br>Note: {escaped(note)}." for note in result.notes)
    return (
        f'<div class="echo-verdict"><h4>{name}</h4><p>{answer}</p>'
        f"<small>{count} re-listen{'s' * (count != 1)}{sure}{notes}</small></div>"
    )


def build(studio: Studio) -> gr.Blocks:
    """The page of the studio; :func:`launch` serves it."""
    import gradio as gr

    def refused(error: EchoAgentError) -> gr.Error:
        return gr.Error(str(error), duration=None, title="This cannot be asked", print_exception=False)

    def ask(
        path: str | None,
        question: str,
        choices: str,
        relistens: float,
        temperature: float,
        seed: float,
        compare: bool,
    ) -> Iterator[tuple[Any, ...]]:
        listed = [
            choice.strip() for choice in choices.replace("\n", "|").split("|") if choice.strip()
        ] or None
        options: dict[str, Any] = {
            "max_relistens": int(relistens),
            "temperature": temperature,
            "seed": int(seed),
        }
        nothing = gr.DownloadButton(interactive=False)
        traces: list[Trace | None] = [None, None]

        def answers() -> str:
            names = ("Listening again", "Re-listening off")[: 1 + compare]
            boxes = "".join(verdict(name, trace) for name, trace in zip(names, traces, strict=False))
            return f'<div class="echo-verdicts">{boxes}</div>'

        try:
            recording = studio.open(path)
            for shown in studio.watch(recording, question, listed, **options):
                traces[0] = shown.trace
                if shown.trace is None:
                    yield answers(), shown.live, nothing, nothing
            assert traces[0] is not None
            page = report(traces[0], recording)
            folder = Path(tempfile.mkdtemp(prefix="studio-", dir=page_folder()))
            files = folder / "trace.json", folder / "run.html"
            files[0].write_text(json.dumps(traces[0].to_json(), indent=1), encoding="utf-8")
            files[1].write_text(page, encoding="utf-8")
            buttons = [gr.DownloadButton(value=str(file), interactive=True) for file in files]
            yield answers(), framed(page), *buttons
            if compare:
                for shown in studio.watch(recording, question, listed, **options, relisten=False):
                    traces[1] = shown.trace
                yield answers(), framed(page), *buttons
        except EchoAgentError as error:
            raise refused(error) from error

    def listen(path: str | None, *call: Any) -> tuple[Any, str]:
        try:
            return studio.listen(studio.open(path), *call)
        except EchoAgentError as error:
            raise refused(error) from error

    def page_folder() -> str:
        """Where Gradio lets files be downloaded from, and removes them again."""
        folder = Path(page.GRADIO_CACHE)
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    name = studio.agent.family.name
    with gr.Blocks(
        title="echo-agent studio", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True
    ) as page:
        title = f'<h1 class="echo-title">echo-agent studio <small>{escaped(Path(name).name)}</small></h1>'
        gr.HTML(title)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                audio = gr.Audio(
                    sources=["upload", "microphone"], type="filepath", label="Recording", buttons=["download"]
                )
                question = gr.Textbox(label="Question", placeholder="What do you want to know?", lines=2)
                choices = gr.Textbox(label="Choices", placeholder="a bell | a dog | a car  (may stay empty)")
                with gr.Row():
                    go = gr.Button("Ask", variant="primary", elem_id="ask")
                    stop = gr.Button("Stop", elem_id="stop")
                compare = gr.Checkbox(label="Compare with re-listening off", elem_id="compare")
                with gr.Accordion("Budget and sampling", open=False):
                    relistens = gr.Slider(0, 16, 8, step=1, label="Most re-listens")
                    temperature = gr.Slider(0, 2, 0, step=0.05, label="Temperature (0: the likeliest)")
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                with gr.Accordion("Listen yourself", open=False, elem_id="yourself"):
                    gr.HTML(
                        '<p class="echo-hint">The tool of the model, with its own options.</p>', padding=False
                    )
                    with gr.Row():
                        start = gr.Number(0, label="Start (s)", minimum=0, min_width=BESIDE)
                        end = gr.Number(5, label="End (s)", minimum=0, min_width=BESIDE)
                    speed = gr.Slider(0.25, 2, 1, step=0.05, label="Speed (pitch kept)")
                    with gr.Row():
                        low = gr.Number(0, label="Above (Hz; 0: all)", minimum=0, min_width=BESIDE)
                        high = gr.Number(0, label="Below (Hz; 0: all)", minimum=0, min_width=BESIDE)
                    gain = gr.Slider(-40, 40, 0, step=1, label="Gain (dB)")
                    hear = gr.Button("Listen", elem_id="listen")
                    heard = gr.Audio(label="Heard", interactive=False, buttons=["download"], elem_id="heard")
                    told = gr.Textbox(label="What the tool says", interactive=False, elem_id="told")
            with gr.Column(scale=5, min_width=320):
                answers = gr.HTML(elem_id="answers")
                shown = gr.HTML(
                    '<p class="echo-hint">Drop a recording or record one, and ask: the run is shown as it happens.</p>',
                    elem_id="run",
                )
                with gr.Row():
                    trace = gr.DownloadButton("Download the trace", interactive=False, elem_id="trace")
                    saved = gr.DownloadButton("Download the page", interactive=False, elem_id="page")
        inputs = [audio, question, choices, relistens, temperature, seed, compare]
        outputs = [answers, shown, trace, saved]
        asked = go.click(ask, inputs, outputs, show_progress="minimal")
        entered = question.submit(ask, inputs, outputs, show_progress="minimal")
        stop.click(None, cancels=[asked, entered])
        hear.click(listen, [audio, start, end, speed, low, high, gain], [heard, told])
    return page


def launch(page: gr.Blocks, host: str, port: int, *, key: str | None = None, max_megabytes: int = 256) -> str:
    """Serve the page from threads of its own, without anything from a network; returns its address.

    Args:
        page: From :func:`build`; its ``close()`` ends it.
        host: Address to be reached at.
        port: 0 takes any that is free.
        key: The password of the user ``echo``; None asks for none.
        max_megabytes: Of one recording.
    """
    from gradio.themes import Base

    fonts = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
    theme = Base(font=fonts, font_mono=("ui-monospace", "monospace"), primary_hue="orange")
    theme.set(  # white on the theme's own orange is hard to read
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
    )
    page.queue(default_concurrency_limit=4, max_size=16)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port or None,
        auth=None if key is None else (USER, key),
        auth_message=None if key is None else f"The user is {USER}; the key is the password.",
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        theme=theme,
        head=f"<style>{style()}</style>",  # as `css`, Gradio would drop what depends on light and dark
        footer_links=[],
        ssr_mode=False,
        max_file_size=max_megabytes << 20,
        enable_monitoring=False,
        run_history=False,
    )
    return address
