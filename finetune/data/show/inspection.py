"""Samples as they look: waveform, events, gold spans and the spans that the reasoning asks for, with the text.

For reading a dataset by eye: nothing of a sample is cut off that a reader needs to judge it. :func:`draw_samples` draws
samples with their text below each other; :func:`draw_strip` draws what cannot be written, for a page
(:mod:`echo_agent.finetune.data.show.gallery`). Times are seconds, lengths inches.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_agent.answers import match_choice
from echo_agent.audio.picture import INK, PAGE, SOFT, Page, draw_wave, lanes_of, mark_time
from echo_agent.audio.recording import Recording
from echo_agent.dialects import InlineDialect
from echo_agent.disk import whole, writing
from echo_agent.errors import DataError
from echo_agent.finetune.data.records import Event, Record, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {
    "sound": "#7d8c9a", "burst": "#c98a1b", "notes": "#6d5a9c", "digits": "#2a7f9e", "words": "#2a7f9e",
    "chord": "#b0567f", "beat": "#8a6d3b",
}  # fmt: skip
"""Colour of each kind of event."""
GOLD, ASKED = "#4b8b5a", "#c8553d"
"""Colours of the gold spans, and of what the reasoning asks for."""
WAVE_HEIGHT, LANE = 1.0, 0.3
SIZE = 8.0
"""Points of the labels of events."""
DPI = 110
CAPTION = "green: gold spans   ·   red and numbered: what the reasoning asks to hear again"
MOST = 40
"""Most samples of one picture."""
MOST_SPANS, MOST_EVENTS, MOST_LANES = 60, 600, 30
"""Most gold spans and most calls, most events, and most lanes of bars above each other, of one sample."""
LONGEST_SIDE = 60_000
"""Most pixels of a picture from top to bottom; a longer one is drawn smaller."""

Span = tuple[float, float]


def draw_samples(
    samples: Sequence[Sample], records: Mapping[str, Record], audio_root: Path, path: Path
) -> Path:
    """Draw samples below each other as one PNG; returns its path.

    Args:
        samples: At most 40.
        records: What is known of the recordings, by id; the events of one that is missing are not drawn.
        audio_root: Folder that the paths of the samples' audio are relative to.
        path: File to write.

    Raises:
        DataError: There are no samples, or too many for a picture, or the picture cannot be written.
        RecordingError: A recording cannot be read.
    """
    if not 1 <= len(samples) <= MOST:
        raise DataError(
            f"a picture shows 1 to {MOST} samples, not {len(samples)}: choose some, or write a page"
        )
    page = Page()
    strips: list[_Strip] = []
    page.skip(0.25)
    for sample in samples:
        _write_sample(page, sample)
        page.skip(0.1)
        strips.append(_Strip(page, sample, records.get(sample.record), audio_root))
        page.skip(0.4)
        page.write(sample.reasoning, size=10, lines=30)
        page.skip(0.5)
    page.write(CAPTION, size=8.5, colour=SOFT, lines=1)
    page.skip(0.25)
    with drawing(path), whole(path) as partial:
        _save(page, strips, partial)
    return path


def draw_strip(sample: Sample, record: Record | None, audio_root: Path) -> bytes:
    """Waveform and events of one sample without its text, as PNG data; raises RecordingError."""
    page = Page()
    strip = _Strip(page, sample, record, audio_root)
    page.skip(0.3)
    picture = io.BytesIO()
    with drawing(audio_root):
        _save(page, [strip], picture)
    return picture.getvalue()


def asked_spans(sample: Sample) -> list[Span]:
    """The spans that the reasoning asks for, in order; those that cannot be read or lie nowhere are left out."""
    end = sample.duration or math.inf
    calls = (call.arguments for call in InlineDialect().parse(sample.reasoning).calls)
    spans = (sorted((call["start"], call["end"])) for call in calls)
    return [
        (max(0.0, a), min(b, end))
        for a, b in spans
        if math.isfinite(a) and math.isfinite(b) and a < end and b > 0
    ]


def described(event: Event) -> str:
    """An event in a few words: its label, what is said or played, how often it is struck."""
    words = event.label
    if event.content:
        words += f": {' '.join(event.content)}"
    if event.kind == "burst":
        words += f" ×{event.hits}"
    return words + (f" ({event.gender})" if event.gender else "")


# --- the picture ------------------------------------------------------------------------------------------------


class _Strip:
    """Waveform and events of one sample, for which it keeps room on a page."""

    def __init__(self, page: Page, sample: Sample, record: Record | None, audio_root: Path) -> None:
        events, asked, self.gold = events_of(record), asked_spans(sample), sample.gold_spans[:MOST_SPANS]
        self.events, self.spans = events[:MOST_EVENTS], asked[:MOST_SPANS]
        self.recording = Recording.open(audio_root / sample.audio)
        self.asked = lanes_of(self.spans, 0.03 * self.recording.duration)
        scale = self.recording.duration / (Page.WIDTH - Page.LEFT - Page.RIGHT)
        style = {"fontsize": SIZE, "fontweight": "normal"}
        widths = [(page.width(described(event), style) + 0.12) * scale for event in self.events]
        self.labels = [self._label(event, width) for event, width in zip(self.events, widths, strict=True)]
        self.lanes = lanes_of([(low, high) for low, high, _ in self.labels], 0.0)
        left_out = {
            "calls": len(asked) - len(self.spans),
            "gold spans": len(sample.gold_spans) - len(self.gold),
            "events": len(events) - sum(lane <= MOST_LANES for lane in self.lanes),
        }
        if said := [f"{count} {what}" for what, count in left_out.items() if count]:
            page.write(f"not drawn: {', '.join(said)}", size=8.5, colour=ASKED, lines=1)
        self.wave, self.bars = f"wave-{len(page.boxes)}", f"bars-{len(page.boxes)}"
        page.box(self.wave, WAVE_HEIGHT + LANE * max(self.asked, default=0))
        page.box(self.bars, LANE * (self._rows + 0.2))

    @property
    def _rows(self) -> int:
        """Lanes of events."""
        return min(max(self.lanes, default=0), MOST_LANES)

    def _label(self, event: Event, width: float) -> tuple[float, float, bool]:
        """From where to where an event with its label reaches, and whether the label ends with it.

        A label begins with its event, unless it would leave the page on the right.
        """
        if event.onset + width > self.recording.duration:
            return min(event.onset, event.offset - width), event.offset, True
        return event.onset, max(event.offset, event.onset + width), False

    def draw(self, boxes: Mapping[str, Axes]) -> None:
        """Draw into the axes of a page that is laid out."""
        for start, end in self.gold:
            boxes[self.wave].axvspan(start, end, color=GOLD, alpha=0.28, linewidth=0)
            boxes[self.bars].axvspan(start, end, color=GOLD, alpha=0.14, linewidth=0)
        self._draw_wave(boxes[self.wave])
        self._draw_events(boxes[self.bars])

    def _draw_wave(self, axes: Axes) -> None:
        """The waveform, and above it a numbered bar for each span that is asked for."""
        draw_wave(axes, self.recording)
        unit = 2.08 / WAVE_HEIGHT
        axes.set_ylim(-1.04, 1.04 + unit * LANE * max(self.asked, default=0))
        badge = {"boxstyle": "circle,pad=0.2", "facecolor": ASKED, "edgecolor": PAGE}
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "fontweight": "bold"}
        for number, ((start, end), lane) in enumerate(zip(self.spans, self.asked, strict=True), start=1):
            level = 1.04 + unit * LANE * (lane - 0.5)
            axes.plot([start, end], [level, level], color=ASKED, linewidth=2.4, solid_capstyle="butt")
            axes.vlines([start, end], -1.04, level, color=ASKED, linewidth=0.8, linestyle=(0, (3, 2)))
            axes.text((start + end) / 2, level, f"{number}", color="white", bbox=badge, zorder=5, **style)

    def _draw_events(self, axes: Axes) -> None:
        """A bar for each event in its lane, and below it what it is."""
        duration = self.recording.duration
        axes.set_ylim(self._rows + 0.2, 0)
        axes.set_yticks([])
        mark_time(axes, duration)
        axes.grid(axis="x", color=SOFT, alpha=0.15, linewidth=0.6)
        axes.set_axisbelow(True)
        for event, lane, (*_, late) in zip(self.events, self.lanes, self.labels, strict=True):
            if lane > MOST_LANES:
                continue
            width = max(event.offset - event.onset, 0.002 * duration)
            axes.barh(lane - 0.84, width, 0.2, left=event.onset, color=KINDS[event.kind])
            side, place = ("right", event.offset) if late else ("left", event.onset)
            style: dict[str, Any] = {"ha": side, "va": "top", "fontsize": SIZE, "color": INK}
            axes.text(place, lane - 0.68, described(event), parse_math=False, **style)


def _save(page: Page, strips: Sequence[_Strip], target: Path | io.BytesIO) -> None:
    """Lay a page out, draw its strips, and write it as PNG."""
    figure, boxes = page.lay_out()
    for strip in strips:
        strip.draw(boxes)
    dpi = min(DPI, LONGEST_SIDE / figure.get_figheight())
    figure.savefig(target, format="png", dpi=dpi, facecolor=PAGE)


def _write_sample(page: Page, sample: Sample) -> None:
    """Question, choices with the right one filled, and what kind of question it is."""
    page.write(sample.question, size=13, weight="bold", lines=6)
    page.write(_marked(sample), size=10.5, lines=8)
    page.write(kind_of(sample), size=8.5, colour=SOFT, lines=2)


def _marked(sample: Sample) -> str:
    if sample.choices is None:
        return "→ " + " / ".join(sample.right)
    right = match_choice(sample.answer, sample.choices)
    return "   ·   ".join(f"{'●' if i == right else '○'} {choice}" for i, choice in enumerate(sample.choices))


def kind_of(sample: Sample) -> str:
    """What kind of question it is, and which, on one line."""
    facts = (
        sample.category,
        sample.difficulty,
        sample.use,
        sample.split,
        sample.phrasing,
        sample.id,
        sample.audio,
    )
    return "   ·   ".join(fact for fact in facts if fact)


def events_of(record: Record | None) -> Sequence[Event]:
    """The events of a record; none where nothing is known."""
    return () if record is None else record.events


@contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Characters without a glyph are drawn as boxes; what the disk has against it is said in one line."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        with writing(path):
            yield
