"""The reasoning of a run as HTML: a list of steps, each linked to its place in the picture. Times are seconds."""

from __future__ import annotations

import html
from collections.abc import Collection

from echo_agent.audio.outline import described
from echo_agent.audio.references import AudioRef
from echo_agent.pages.figure import Mark, colour, span_text
from echo_agent.pages.steps import Step, times_in
from echo_agent.results import EchoResult
from echo_agent.terminal import printable


def escaped(text: str, *, lines: bool = False) -> str:
    """A text from outside in plain characters; none of them turns the direction of writing, or is hidden."""
    return html.escape(printable(text, lines=lines))


def mark_of(step: Step) -> Mark:
    """How a re-listen is drawn."""
    ref, record = step.heard, step.record
    assert ref is not None
    asked = (record.start, record.end) if record is not None and record.instead is not None else None
    return Mark(step.number, *ref.on_file, described(ref.transform.model_dump()), asked)


def step_item(step: Step, recording: AudioRef, playable: Collection[str], *, bare: bool) -> str:
    """One step as an item of a list; what names a time leads to its place in the picture.

    Args:
        step: The step.
        recording: The recording, whole.
        playable: Numbers of the sounds that are in the page; ``0`` is the whole recording.
        bare: A whole number alone is a time.
    """
    duration = recording.duration
    text = "".join(
        html.escape(piece) if time is None or "0" not in playable else _time(piece, time)
        for piece, time in times_in(printable(step.text, lines=True), duration, bare=bare)
    )
    text = f'<p class="text">{text}</p>' if text else ""
    if step.heard is None and not step.told:
        return (
            '<li class="step"><span class="badge first"></span>'
            f"<h3><span>First listen, {span_text(0, duration)}</span></h3>{text}</li>"
        )
    if step.heard is None:
        return (
            '<li class="step"><span class="badge told"></span>'
            f"<h3><span>{escaped(step.told[:1].upper() + step.told[1:])}</span></h3>{text}</li>"
        )
    mark, number = mark_of(step), step.number
    how = [mark.note] if mark.note else []
    if mark.asked is not None:
        how.append(f"asked for {span_text(*mark.asked)}, and given this in its place")
    if not step.is_of(recording):
        how.append("silence was given in its place")
    if step.record is not None and step.record.observation:
        how.append(step.record.observation)
    how_text = f'<p class="how">{escaped("; ".join(how))}</p>' if how else ""
    button = (
        f'<button type="button" class="play" data-play="{number}" aria-pressed="false" '
        f'aria-label="Play listen {number}">{step.heard.seconds:.1f} s</button>'
        if f"{number}" in playable
        else ""
    )
    return (
        f'<li class="step" data-listen="{number}" style="--c:var(--c{colour(number)})">'
        f'<span class="badge" aria-hidden="true">{number}</span>'
        f"<h3><span>{span_text(mark.start, mark.end)}</span>{button}</h3>{how_text}{text}</li>"
    )


def _time(text: str, time: float) -> str:
    """A time in a text: it shows its place in the picture, and plays from there."""
    return f'<button type="button" class="time" data-time="{time:g}">{html.escape(text)}</button>'


def final(result: EchoResult) -> str:
    """The last item: what came of it."""
    text = result.outcome.capitalize() if result.answer is None else escaped(result.answer, lines=True)
    return f'<li class="step"><span class="badge told"></span><p class="final">{text}</p></li>'
