"""The picture of a run as HTML: waveform and spectrogram on one time axis, and every listen drawn where it was.

Nothing in it has a fixed size or colour: places are shares of the recording in per cent, colours are variables of the
style sheet, so one picture serves every width, light and dark. The spectrogram is an image of which only the opacity
counts. Times are seconds.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echo_agent.audio.outline import FLOOR_DB, clock, mel, peaks, spectrum
from echo_agent.audio.picture import COLOURS, lanes_of
from echo_agent.audio.recording import Recording

COLUMNS = 900
"""Columns of waveform and spectrogram."""
LEVELS = 24
"""Levels of the spectrogram's opacity: few, so that the image is small."""
ROOM = 0.035
"""Share of the recording that a numbered bar takes at least, for its number."""


@dataclass(frozen=True)
class Mark:
    """One listen in the picture."""

    number: int
    """From 1, in the order in which they were heard; names of elements follow from it."""
    start: float
    end: float
    note: str = ""
    """How it was heard, in words."""
    asked: tuple[float, float] | None = None
    """What was asked for, where something else was delivered."""


def colour(number: int) -> int:
    """Which of the colours ``--c1`` to ``--c8`` belongs to a listen."""
    return 1 + (number - 1) % len(COLOURS)


def span_text(start: float, end: float) -> str:
    """A span in words."""
    return f"{clock(start)} – {clock(end)}"


def figure(recording: Recording, marks: Sequence[Mark] = ()) -> str:
    """The picture; it belongs under the style sheet ``report.css``.

    Raises:
        RecordingError: The recording cannot be read.
    """
    duration = recording.duration
    lanes = lanes_of([(mark.start, mark.end) for mark in marks], ROOM * duration)
    rows = max(lanes, default=0)
    outline = peaks(recording, COLUMNS)
    outline = outline / (float(outline.max(initial=0.0)) or 1.0)
    rate = max(min(recording.rate, 16000), 2000)
    source = _opacity_image(spectrum(recording, COLUMNS, rate))
    bars = "".join(_bar(mark, lane, duration) for mark, lane in zip(marks, lanes, strict=True))
    tints = "".join(_tint(mark, duration) for mark in marks)
    stretches = "".join(_stretch(mark, duration) for mark in marks)
    inks = "".join(
        f'<div class="ink" data-listen="{mark.number}" style="{_cut(mark, duration)}"></div>'
        for mark in marks
    )
    return f"""<figure class="picture" style="--lanes:{rows};--spectrum:url({source})" data-duration="{duration:.3f}">
<div class="lanes">{bars}</div>
<div class="plot">
<div class="wave">{_wave(outline)}{stretches}</div>
<div class="spectrum"><div class="ink" role="img" aria-label="Spectrogram"></div>{inks}{_pitches(rate)}</div>
<div class="tints">{tints}</div>
<div class="pin" hidden></div>
<div class="seek"></div>
<div class="playhead" hidden></div>
</div>
<div class="times" aria-hidden="true">{_ticks(duration)}</div>
</figure>"""


def _share(time: float, duration: float) -> str:
    """A time as a share of the recording, for CSS."""
    return f"{100 * time / duration:.3f}%"


def _place(start: float, end: float, duration: float, number: int) -> str:
    """Where a stretch stands and which colour it has, as a style."""
    width = max(end - start, 0.002 * duration)
    return (
        f"left:{_share(min(start, duration - width), duration)};width:{_share(width, duration)};"
        f"--c:var(--c{colour(number)})"
    )


def _bar(mark: Mark, lane: int, duration: float) -> str:
    """The numbered bar of a listen, which plays it."""
    said = f"Listen {mark.number}: {span_text(mark.start, mark.end)}{', ' * bool(mark.note)}{mark.note}"
    return (
        f'<button type="button" class="bar" data-listen="{mark.number}" data-play="{mark.number}" '
        f'style="left:{_share((mark.start + mark.end) / 2, duration)};'
        f"width:max({_share(mark.end - mark.start, duration)},1.25rem);"
        f'--c:var(--c{colour(mark.number)});--lane:{lane}" '
        f'aria-label="{html.escape(said)}" title="{html.escape(said)}"><b>{mark.number}</b></button>'
    )


def _tint(mark: Mark, duration: float) -> str:
    """The stretch of a listen over both panels, and where that differs, what had been asked for."""
    tint = (
        f'<div class="tint" data-listen="{mark.number}" '
        f'style="{_place(mark.start, mark.end, duration, mark.number)}"></div>'
    )
    if mark.asked is None:
        return tint
    place = _place(*mark.asked, duration, mark.number)
    return f'{tint}<div class="tint asked" data-listen="{mark.number}" style="{place}"></div>'


def _stretch(mark: Mark, duration: float) -> str:
    """The waveform of a listen in its colour: the same outline, cut to the stretch."""
    return (
        f'<svg class="again" data-listen="{mark.number}" viewBox="0 -100 {COLUMNS} 200" preserveAspectRatio="none" '
        f'style="{_cut(mark, duration)}" aria-hidden="true">'
        '<use href="#outline"/></svg>'
    )


def _cut(mark: Mark, duration: float) -> str:
    """The colour of a listen, and what of the whole picture it covers, as a style."""
    left, right = _share(mark.start, duration), _share(max(0.0, duration - mark.end), duration)
    return f"--c:var(--c{colour(mark.number)});clip-path:inset(0 {right} 0 {left})"


def _wave(outline: np.ndarray) -> str:
    """The outline as one closed path."""
    heights = np.maximum(np.rint(outline * 98).astype(int), 1).tolist()
    above = "".join(f"L{column + 0.5:g} {-height}" for column, height in enumerate(heights))
    below = "".join(f"L{column + 0.5:g} {height}" for column, height in reversed([*enumerate(heights)]))
    path = f"M0 0{above}L{len(heights)} 0{below}Z"
    return (
        f'<svg class="whole" viewBox="0 -100 {len(heights)} 200" preserveAspectRatio="none" role="img" '
        f'aria-label="Waveform"><path id="outline" d="{path}"/></svg>'
    )


def _opacity_image(decibels: np.ndarray) -> str:
    """A spectrum ``[bands, columns]`` in dB below its loudest point as the address of a PNG: louder is more opaque."""
    from matplotlib.image import imsave

    level = np.clip(1 + decibels / FLOOR_DB, 0.0, 1.0) ** 1.4
    pixels = np.zeros((*level.shape, 4), np.uint8)
    pixels[..., 3] = np.rint(np.rint(level * LEVELS) * 255 / LEVELS)
    file = io.BytesIO()
    imsave(file, pixels[::-1], format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _pitches(rate: int) -> str:
    """Names of a few frequencies, where they stand in the spectrogram."""
    low, high = float(mel(40.0)), float(mel(rate / 2))
    return "".join(
        f'<i style="bottom:{100 * (float(mel(hertz)) - low) / (high - low):.1f}%">'
        f"{f'{hertz / 1000:g} kHz' if hertz >= 1000 else f'{hertz} Hz'}</i>"
        for hertz in (250, 1000, 2500, 5000)
        if hertz < 0.9 * rate / 2
    )


STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds between two marks of the time axis."""
MARKS = 9
"""At most so many marks."""


def _ticks(duration: float) -> str:
    """Times under the picture; every second one is left out on narrow screens."""
    step = next((step for step in STEPS if duration / step <= MARKS), STEPS[-1] * max(1, duration // 36000))
    count = int(duration / step)
    return "".join(
        f'<span style="left:{_share(i * step, duration)}"{" class=minor" if i % 2 else ""}>'
        f"{f'{i * step:g} s' if duration < 5 else clock(i * step, precise=step < 1)}</span>"
        for i in range(count + 1)
        if i * step <= 0.985 * duration
    )
