"""Runs where listening again mended an answer, and where it spoiled one: with their sound, to be played in place."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import soundfile

from echo_agent.audio.outline import peaks
from echo_agent.audio.recording import Recording
from echo_agent.benchmarks.item import Item
from echo_agent.errors import RecordingError
from echo_agent.pages.charts import wave
from echo_agent.pages.figure import span_text
from echo_agent.rows import Question, Row
from echo_agent.scores import Outcome

SHOWN = 5
"""Most runs of a kind."""
RATE = 16000
"""Samples per second of what can be played, in Hz."""
LONGEST = 600.0
"""Most seconds of sound in one run; of a longer recording, the part that was heard again."""
AROUND = 5.0
"""Seconds before and after that part."""
COLUMNS = 240

Runs = Mapping[str, Mapping[str, Outcome]]
"""Outcomes of one seed by control and id."""


def changed(questions: Sequence[Question], runs: Runs, right: str, wrong: str) -> list[Question]:
    """Questions that are right under one control and wrong under the other, and for which something was heard again."""
    return [
        one
        for one in questions
        if one.id in runs.get(right, {})
        and one.id in runs.get(wrong, {})
        and runs[right][one.id].correct
        and not runs[wrong][one.id].correct
        and runs["on"][one.id].relistens
    ]


def example(question: Question, runs: Runs) -> str:
    """One question with what was answered under each control; its sound, and what was heard again of it."""
    on = runs["on"][question.id]
    listens = [(float(one["start"]), float(one["end"])) for one in on.relistens]
    buttons = [_button(f"heard again {span_text(*span)}", *span, "asked") for span in listens]
    buttons += [_button(f"gold {span_text(*span)}", *span, "gold") for span in question.gold_spans]
    try:
        sound = _sound(question.audio, [*listens, *question.gold_spans], listens, question.gold_spans)
    except RecordingError as error:
        sound = f'<p class="soft">{html.escape(str(error))}</p>'
    answers = "".join(
        f"<tr><td>{control}</td><td>{_answer(runs[control][question.id])}</td></tr>"
        for control in runs
        if question.id in runs[control]
    )
    return (
        f"<section><h3>{html.escape(question.question)}</h3>{_choices(question)}{sound}<p>{' '.join(buttons)}</p>"
        f'<table class="answers">{answers}</table><p class="soft">{html.escape(_about(question))}</p></section>'
    )


def _choices(question: Question) -> str:
    """The choices, or the right answers of an open question; the right ones marked."""
    right = question.answer if isinstance(question, Row | Item) else None
    texts = question.choices or ([right] if right else [])
    return f"<ul>{''.join(_choice(text, question.is_right(text)) for text in texts)}</ul>"


def _choice(text: str, right: bool) -> str:
    return f"<li{' class=right' if right else ''}>{html.escape(text)}</li>"


def _answer(outcome: Outcome) -> str:
    mark = "right" if outcome.correct else "wrong"
    said = outcome.prediction if outcome.answer is None else outcome.answer
    unparsed = " (no answer could be read)" if outcome.answer is None else ""
    return f'<b class="{mark}">{html.escape(said[:200])}</b>{unparsed}'


def _about(question: Question) -> str:
    return ", ".join([question.id, *(group for group in question.groups.values() if group)])


def _sound(
    path: str,
    spans: Sequence[tuple[float, float]],
    listens: Sequence[tuple[float, float]],
    gold: Sequence[tuple[float, float]],
) -> str:
    """Outline and player; where the recording is too long, of the part that matters."""
    recording = Recording.open(path)
    begin, end = 0.0, recording.duration
    if end > LONGEST:
        begin = max(0.0, min(start for start, _ in spans) - AROUND)
        end = min(end, max(last for _, last in spans) + AROUND, begin + LONGEST)
    samples = recording.read(begin, end, RATE)
    part = Recording.from_array(samples, RATE, "part")
    marked = [
        (a - begin, b - begin, kind) for kind, of in (("gold", gold), ("asked", listens)) for a, b in of
    ]
    data = io.BytesIO()
    soundfile.write(data, samples, RATE, format="MP3")
    shown = (
        ""
        if begin == 0.0 and end == recording.duration
        else f'<p class="soft">{span_text(begin, end)} of the recording</p>'
    )
    return (
        f"{wave([float(peak) for peak in peaks(part, COLUMNS)], end - begin, marked)}{shown}"
        f'<audio controls preload="none" data-begin="{begin}" '
        f'src="data:audio/mpeg;base64,{base64.b64encode(data.getvalue()).decode()}"></audio>'
    )


def _button(text: str, start: float, end: float, kind: str) -> str:
    return f'<button class="{kind}" data-start="{start}" data-end="{end}">{html.escape(text)}</button>'


def by_control(outcomes: Sequence[Outcome], controls: Sequence[str], seed: int) -> dict[str, dict[str, Any]]:
    """Outcomes of one seed by control and id."""
    return {
        control: {one.id: one for one in outcomes if one.control == control and one.seed == seed}
        for control in controls
    }
