"""Inspection: rows of a dataset as a person looks at them, in one picture or on one page.

Of each row: the waveform with what must be heard (shaded) and what the reasoning hears again (numbered bars), the
events below it with what is said in them, the question with its choices, and the reasoning. The page is one file:
pictures are inside it, recordings are linked.
"""

from __future__ import annotations

import base64
import html
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from echo_agent.dialects import InlineDialect
from echo_agent.errors import DataError
from echo_agent.finetune.data.judge import called_span
from echo_agent.finetune.data.records import Event, Record, Sample
from echo_agent.outline import clock, peaks
from echo_agent.picture import COLOURS, COLUMNS, FAINT, INK, PAGE, SOFT, WAVE, Page
from echo_agent.recording import Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {
    "sound": COLOURS[1],
    "burst": COLOURS[2],
    "notes": COLOURS[3],
    "digits": COLOURS[4],
    "words": COLOURS[5],
}
"""Colours of events; others are drawn as sounds."""
GOLD = "#e8c468"
LETTER = 0.0068
"""Width of a letter of an event's name, as a part of the picture's width."""
ROW = 0.21
"""Height of a row of events, inches."""


def draw_samples(samples: Sequence[Sample], records: Mapping[str, Record], audio: Path, path: Path) -> None:
    """Draw samples below each other as a PNG.

    Args:
        samples: What is drawn.
        records: What is known of their recordings, by id; what is missing is drawn without events.
        audio: Folder that the samples' audio is relative to.
        path: File to write.

    Raises:
        DataError: The picture cannot be written.
        RecordingError: A recording cannot be read.
    """
    _save(path, _picture(samples, records, audio))


def page(samples: Sequence[Sample], records: Mapping[str, Record], audio: Path, path: Path) -> None:
    """Write a page of samples as HTML that needs nothing else but the recordings; arguments as for a picture."""
    parts = []
    for sample in samples:
        picture = base64.b64encode(_picture([sample], records, audio)).decode()
        place = os.path.relpath(audio / sample.audio, path.parent)
        right = html.escape(", ".join(sample.right))
        parts.append(
            f"<article><h2>{html.escape(sample.question)}</h2>"
            f'<p>{_choices(sample)}</p><img alt="{right}" src="data:image/png;base64,{picture}">'
            f'<audio controls preload="none" src="{html.escape(place, quote=True)}"></audio>'
            f"<p>{html.escape(sample.reasoning)}</p><p><small>{html.escape(_about(sample))}</small></p></article>"
        )
    _save(path, _HTML.replace("BODY", "\n".join(parts)).encode())


_HTML = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Rows</title><style>
body {{ font: 16px/1.5 sans-serif; color: {INK}; background: {PAGE} }}
body {{ max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
article {{ border-top: 1px solid {FAINT}; padding: 1rem 0 2rem }}
h2 {{ font-size: 1.15rem; margin: 0.5rem 0 }} img, audio {{ width: 100% }} small {{ color: {SOFT} }}
</style></head><body>
BODY
</body></html>
"""


def _choices(sample: Sample) -> str:
    if sample.choices is None:
        return f"open: <b>{html.escape(' / '.join(sample.right))}</b>"
    shown = [html.escape(c) if c != sample.answer else f"<b>{html.escape(c)}</b>" for c in sample.choices]
    return " · ".join(shown)


def _about(sample: Sample) -> str:
    """What a row is, in a line."""
    parts = (
        sample.id,
        sample.family,
        sample.difficulty,
        sample.split,
        sample.use,
        sample.phrasing,
        sample.licence,
    )
    return " · ".join(part for part in parts if part)


def _picture(samples: Sequence[Sample], records: Mapping[str, Record], audio: Path) -> bytes:
    """The samples as a PNG."""
    sheet = Page()
    rows = []
    for number, sample in enumerate(samples):
        record = records.get(sample.record)
        events = record.events if record else ()
        lanes = _lanes(events, record.duration if record else 1.0)
        sheet.skip(0.3)
        sheet.write(sample.question, size=13, weight="bold", lines=3)
        if sample.choices is None:
            sheet.write(f"→ {' / '.join(sample.right)}", size=10.5, lines=2)
        else:
            shown = "   ·   ".join(f"✓ {c}" if c == sample.answer else c for c in sample.choices)
            sheet.write(shown, size=10.5, lines=2)
        sheet.skip(0.12)
        sheet.box(f"wave {number}", 1.1)
        sheet.box(f"events {number}", ROW * (1 + max(lanes, default=0)) + 0.3)
        sheet.skip(0.25)
        if sample.reasoning:
            sheet.write(sample.reasoning, size=10, lines=8)
        sheet.write(_about(sample), size=8, colour=SOFT, lines=2)
        sheet.skip(0.15)
        rows.append((sample, events, lanes))
    figure, boxes = sheet.lay_out()
    for number, (sample, events, lanes) in enumerate(rows):
        recording = Recording.open(audio / sample.audio)
        _draw_wave(boxes[f"wave {number}"], recording, sample)
        _draw_events(boxes[f"events {number}"], events, lanes, recording.duration)
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)  # drawn as a box instead
        figure.savefig(held, format="png", dpi=110, facecolor=PAGE)
    return held.getvalue()


def _lanes(events: Sequence[Event], duration: float) -> list[int]:
    """The row of each event: the first in which neither its bar nor its name runs into another's."""
    taken: list[float] = []
    lanes = []
    for event in events:
        end = max(event.offset, event.onset + len(_name(event)) * LETTER * duration) + 0.004 * duration
        lane = next((i for i, until in enumerate(taken) if until <= event.onset), len(taken))
        if lane == len(taken):
            taken.append(0.0)
        taken[lane] = end
        lanes.append(lane)
    return lanes


def _name(event: Event) -> str:
    """What is written beside an event."""
    if event.content and event.kind != "chord":
        who = f" ({event.gender})" if event.gender else ""
        return " ".join(event.content) + who
    return f"{event.label} ×{event.hits}" if event.kind == "burst" else event.label


def _draw_wave(axes: Axes, recording: Recording, sample: Sample) -> None:
    """The waveform, what must be heard, and what is heard again, in its order."""
    duration = recording.duration
    outline = peaks(recording, COLUMNS)
    outline = outline / (float(outline.max(initial=0.0)) or 1.0)
    times = (np.arange(COLUMNS) + 0.5) * duration / COLUMNS
    for start, end in sample.gold_spans:
        axes.axvspan(start, max(end, start + 0.002 * duration), color=GOLD, alpha=0.45, linewidth=0)
    axes.fill_between(times, -outline, outline, color=WAVE, linewidth=0.4)
    for number, call in enumerate(InlineDialect().parse(sample.reasoning).calls, start=1):
        start, end = called_span(call)
        colour = COLOURS[(number - 1) % len(COLOURS)]
        axes.plot([start, end], [1.15, 1.15], color=colour, linewidth=2.4, solid_capstyle="butt")
        axes.text(
            (start + end) / 2, 1.24, str(number), color=colour, fontsize=8, ha="center", fontweight="bold"
        )
    axes.set(xlim=(0, duration), ylim=(-1.05, 1.5), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_events(axes: Axes, events: Sequence[Event], lanes: Sequence[int], duration: float) -> None:
    """A bar per event with its name, on the time axis."""
    for event, lane in zip(events, lanes, strict=True):
        colour = KINDS.get(event.kind, KINDS["sound"])
        axes.barh(-lane, event.offset - event.onset, left=event.onset, height=0.78, color=colour, alpha=0.28)
        axes.text(
            event.onset, -lane, f" {_name(event)}", fontsize=8, va="center", color=INK, parse_math=False
        )
    axes.set(xlim=(0, duration), ylim=(-max(lanes, default=0) - 0.6, 0.6), yticks=[])
    axes.xaxis.set_major_formatter(lambda second, _: clock(second, precise=False))
    axes.tick_params(colors=SOFT, labelsize=8, length=0)
    axes.spines[:].set_visible(False)


def _save(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.rename(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
