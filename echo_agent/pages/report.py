"""The page of a run: one file that shows where the model listened, plays it, and tells what it made of it.

Nothing in the page comes from a network: pictures and audio are in it, and its own policy forbids a browser to fetch
anything or to run any script but the one of this package. Everything that comes from outside (the question, the
answer, what a model wrote, names of files) is escaped. Times are seconds.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template

from echo_agent.audio.outline import clock
from echo_agent.audio.recording import Recording
from echo_agent.disk import write_whole
from echo_agent.pages.figure import figure, span_text
from echo_agent.pages.sounds import RATE, sound_source
from echo_agent.pages.steps import Step, steps_of
from echo_agent.pages.story import escaped, final, mark_of, step_item
from echo_agent.shipped import NANO
from echo_agent.traces import Trace

LONGEST_WHOLE = 1200.0
"""Seconds up to which the whole recording is put into a page: 6 MB of text."""
LONGEST_HEARD = 1200.0
"""Seconds of what was heard again that are put into a page; what comes later is drawn and cannot be played."""


def write_report(trace: Trace, recording: Recording, path: Path) -> None:
    """Write the page of a run to a file.

    Args:
        trace: The run.
        recording: What it was about.
        path: The file; it appears whole or not at all.

    Raises:
        RecordingError: The recording is not that of the trace, or cannot be read.
        DataError: The file cannot be written.
    """
    write_whole(path, report(trace, recording).encode())


def report(trace: Trace, recording: Recording) -> str:
    """The page of a run as HTML; see :func:`write_report`."""
    steps, result = steps_of(trace), trace.result
    heard = [step for step in steps if step.heard is not None]
    sounds, playable = _sounds(recording, [step for step in heard if step.is_of(trace.recording)])
    script = resource("report.js")
    bare = result.model == NANO
    listed = "\n".join(step_item(step, trace.recording, playable, bare=bare) for step in steps)
    whole = "0" in playable
    return Template(resource("report.html")).substitute(
        hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=escaped(f"{trace.question} → {result.outcome}", lines=False),
        style="\n".join(map(resource, ("colours.css", "report.css", "figure.css"))),
        source=f"{escaped(recording.name)} · {clock(recording.duration)}",
        question=escaped(trace.question, lines=True),
        choices=_choices(trace),
        answer=_answer(trace),
        figure=figure(recording, [mark_of(step) for step in heard]),
        player=_PLAYER if whole else "",
        hint="Click into the picture to play from there; a numbered bar plays what was heard again."
        if whole
        else "The recording is too long to be part of this page; what was heard again is.",
        cost=_cost(trace),
        steps=f"{listed}\n{final(result)}",
        notes=_notes(result.notes),
        footer=f"{escaped(trace.model)} · echo-agent {escaped(trace.echo_agent)}",
        sounds=sounds,
        script=script,
    )


@cache
def resource(name: str) -> str:
    """A file of this folder, as text."""
    return (files("echo_agent.pages") / name).read_text(encoding="utf-8").strip()


# --- what stands above and below ----------------------------------------------------------------------------------

_PLAYER = (
    '<p class="player"><button type="button" class="play" data-play="0" aria-pressed="false">Play</button>'
    "<output>0:00.0</output></p>"
)


def _choices(trace: Trace) -> str:
    if not trace.choices:
        return ""
    chosen = trace.result.choice_index
    marks = (' class="chosen"' if i == chosen else "" for i in range(len(trace.choices)))
    listed = "".join(
        f"<li{mark}>{escaped(choice)}</li>" for mark, choice in zip(marks, trace.choices, strict=True)
    )
    return f'<ul class="choices" aria-label="Choices">{listed}</ul>'


def _answer(trace: Trace) -> str:
    result = trace.result
    if result.answer is None:
        shown = f'<strong class="none">{result.outcome}</strong>'
    else:
        shown = f"<strong>{escaped(result.answer, lines=True)}</strong>"
    said = [] if result.confidence is None else [f"confidence {result.confidence:.0%}"]
    if result.forced:
        said.append("asked for at the end of the budget" if result.budget_exhausted else "forced to a choice")
    return f'<p class="answer">{shown} <span>{" · ".join(said)}</span></p>'


def _cost(trace: Trace) -> str:
    """What the run took."""
    result = trace.result
    count, tokens, work = len(result.relistens), result.tokens, dict(result.timings)
    load = work.pop("load", 0.0)
    rows = [
        ("Heard again", f"{result.seconds_heard:.1f} s", f"in {count} re-listen{'s' * (count != 1)}"),
        ("Tokens given", f"{tokens.get('prompt', 0)}", "the question and the first listen"),
        ("Tokens written", f"{tokens.get('sampled', 0)}", "by the model"),
        ("Tokens of audio", f"{tokens.get('audio', 0)}", "of all listens"),
        (
            "Time",
            f"{sum(work.values()):.2f} s",
            ", ".join(f"{name} {value:.2f}" for name, value in work.items()),
        ),
    ]
    if load:
        rows.append(("Loading", f"{load:.1f} s", "the model, once"))
    listed = "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{html.escape(more)}</small></dd></div>"
        for name, value, more in rows
    )
    return f'<dl class="cost">{listed}</dl>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    listed = "".join(f"<p>Note: {escaped(note)}.</p>" for note in notes)
    return f'<section class="notes" aria-label="Notes">{listed}</section>'


# --- the sounds ---------------------------------------------------------------------------------------------------


def _sounds(recording: Recording, heard: Sequence[Step]) -> tuple[str, set[str]]:
    """The audio of the page, and the numbers under which it can be played; 0 is the whole recording."""
    found: dict[str, str] = {}
    if recording.duration <= LONGEST_WHOLE:
        source = sound_source(recording.read(rate=RATE), RATE)
        found["0"] = _audio("0", source, 0.0, recording.duration, 1.0, "The recording")
    left = LONGEST_HEARD
    for step in heard:
        ref = step.heard
        assert ref is not None
        left -= ref.seconds
        if left >= 0:
            start, end = ref.on_file
            same = recording.ref(start, min(end, recording.duration), ref.transform)
            number, source = f"{step.number}", sound_source(recording.crop(same, RATE), RATE)
            title = f"Listen {number}, {span_text(start, end)}"
            found[number] = _audio(number, source, start, end, ref.transform.speed, title)
    return "\n".join(found.values()), set(found)


def _audio(number: str, source: str, start: float, end: float, speed: float, title: str) -> str:
    return (
        f'<audio id="sound-{number}" data-number="{number}" data-start="{start:.3f}" data-end="{end:.3f}" '
        f'data-speed="{speed:g}" controls preload="none" title="{title}" src="{source}"></audio>'
    )
