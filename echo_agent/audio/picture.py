"""A run as a picture: the recording, what was heard again and in which order, and what came of it.

:func:`draw_run` writes a picture with question and answer, a lane per re-listen, waveform and spectrogram on one time
axis, and what the policy wrote at each step. It draws with matplotlib's Agg canvas and none of its global state, so
that it works in any thread, and on machines without a display. Lengths on the page are inches, times are seconds.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_agent.audio.outline import FLOOR_DB, clock, mel, peaks, spectrum
from echo_agent.audio.picture_files import save_picture
from echo_agent.audio.recording import Recording
from echo_agent.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE = "#fdfcfa"
INK = "#1f2a37"
SOFT = "#6b7684"
FAINT = "#e3e4e3"
WAVE = "#b4bcc5"
COLOURS = ("#c8553d", "#2a7f9e", "#c98a1b", "#6d5a9c", "#4b8b5a", "#b0567f", "#5b7083", "#8a6d3b")
"""One per re-listen, in order; they repeat after the eighth."""
FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
)
"""Tried in this order for each character; those that are not installed are skipped."""
COLUMNS = 1200
"""Columns of waveform and spectrogram."""
LANE = 0.27
"""Height of the lane of a re-listen."""

_CALL = re.compile(r"<(seg|tool_call)>.*?(?:</\1>|$)", re.DOTALL)
_ANSWER = re.compile(r"<answer>.*?(?:</answer>|$)", re.DOTALL)
_TAG = re.compile(r"</?[a-z_]+>|<\|[a-z_]+\|>")


@dataclass(frozen=True)
class Listen:
    """One re-listen as it is drawn."""

    start: float
    """Start on the recording, in seconds."""
    end: float
    """End on the recording, in seconds."""
    text: str = ""
    """What the policy wrote once it had heard it."""
    note: str = ""
    """How it was heard ("half speed"), empty for plain replay."""


def steps(text: str) -> list[str]:
    """Split what a run wrote at its calls: what stands before the first, after the first, and so on.

    Tags are removed, and so is the answer, which is shown on its own.
    """
    pieces = _CALL.sub("\x00", _ANSWER.sub("", text)).split("\x00")
    return [" ".join(_TAG.sub(" ", piece).split()) for piece in pieces]


def draw_run(
    recording: Recording,
    path: str | Path,
    *,
    question: str,
    answer: str | None,
    listens: Sequence[Listen] = (),
    before: str = "",
    choices: Sequence[str] | None = None,
    caption: str = "",
) -> None:
    """Draw one run.

    Args:
        recording: What the question was about.
        path: File to write; its suffix says what it becomes (:data:`~echo_agent.audio.picture_files.PICTURES`).
        question: The question.
        answer: The answer, or None where none could be read.
        listens: The re-listens in order.
        before: What the policy wrote before the first of them.
        choices: The choices, where the question had any.
        caption: A small line at the foot (file, model).

    Raises:
        ValueError: The suffix is that of no kind of picture.
        DataError: The file cannot be written.
    """
    question, before, caption = (
        printable(question, lines=True),
        printable(before, lines=True),
        printable(caption),
    )
    answer = None if answer is None else printable(answer, lines=True)
    choices = [printable(choice) for choice in choices or ()]
    listens = [replace(listen, text=printable(listen.text, lines=True)) for listen in listens]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)  # drawn as a box instead
        _draw(recording, Path(path), question, answer, listens, before, choices, caption)


def _draw(
    recording: Recording,
    path: Path,
    question: str,
    answer: str | None,
    listens: Sequence[Listen],
    before: str,
    choices: Sequence[str],
    caption: str,
) -> None:
    lanes = _lanes(listens, recording.duration)
    page = Page()
    page.skip(0.34)
    page.write(question, size=15, lines=4)
    if choices:
        page.skip(0.04)
        page.write("   ·   ".join(choices), size=10.5, colour=SOFT, lines=2)
    page.skip(0.1)
    if answer is None:
        page.write("no answer could be read", size=15, colour=SOFT, lines=1)
    else:
        page.write(f"→ {answer}", size=15, weight="bold", lines=3)
    page.skip(0.22)
    page.box("wave", 1.2 + LANE * max(lanes, default=0))
    page.skip(0.05)
    page.box("spectrum", 1.75)
    page.skip(0.45)
    if before:
        page.row(0, "first listen", before, "")
    for number, listen in enumerate(listens, start=1):
        page.row(number, f"{clock(listen.start)} – {clock(listen.end)}", listen.text, listen.note)
    page.skip(0.1)
    page.write(caption, size=8.5, colour=SOFT, lines=1)
    page.skip(0.22)

    figure, boxes = page.lay_out()
    outline = _draw_sound(boxes["wave"], boxes["spectrum"], recording, max(lanes, default=0))
    for number, (listen, lane) in enumerate(zip(listens, lanes, strict=True), start=1):
        _draw_listen(boxes["wave"], boxes["spectrum"], number, listen, lane, outline, recording.duration)
    save_picture(figure, path, f"{question} → {answer or 'no answer could be read'}", PAGE)


def _lanes(listens: Sequence[Listen], duration: float) -> list[int]:
    """Give each re-listen a lane in which neither its bar nor its number runs into another's."""
    return lanes_of([(listen.start, listen.end) for listen in listens], 0.03 * duration)


def lanes_of(spans: Sequence[tuple[float, float]], room: float) -> list[int]:
    """The lowest lane, from 1, for each span in which it meets no earlier one; each takes ``room`` at least."""
    taken: list[list[tuple[float, float]]] = []
    lanes: list[int] = []
    for start, end in spans:
        middle = (start + end) / 2
        low, high = min(start, middle - room / 2), max(end, middle + room / 2)
        free = (i for i, there in enumerate(taken) if all(high <= a or low >= b for a, b in there))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        lanes.append(lane + 1)
    return lanes


def _draw_sound(wave: Axes, spectra: Axes, recording: Recording, lanes: int) -> np.ndarray:
    """Draw waveform and spectrogram, the former with room above it for the lanes; gives back its outline."""
    from matplotlib.colors import LinearSegmentedColormap

    outline = draw_wave(wave, recording)
    wave.set_ylim(-1.04, -1.04 + 2.08 * (1.2 + LANE * lanes) / 1.2)
    rate = max(min(recording.rate, 16000), 2000)
    colours = LinearSegmentedColormap.from_list("ink", [PAGE, "#d5dde2", "#8fa5b5", "#476580", "#1b3049"])
    extent = (0.0, recording.duration, float(mel(40.0)), float(mel(rate / 2)))
    image = spectrum(recording, COLUMNS, rate)
    spectra.imshow(
        image, origin="lower", aspect="auto", extent=extent, cmap=colours, vmin=-FLOOR_DB, vmax=0.0
    )
    ticks = [hertz for hertz in (250, 1000, 2500, 5000) if hertz < rate / 2]
    spectra.set_yticks(mel(np.array(ticks)), [f"{h / 1000:g} kHz" if h >= 1000 else f"{h} Hz" for h in ticks])
    mark_time(spectra, recording.duration)
    return outline


def draw_wave(axes: Axes, recording: Recording) -> np.ndarray:
    """Draw a waveform between -1 and 1 and nothing around it; gives back its outline, ``[COLUMNS]``, 0 to 1."""
    duration = recording.duration
    outline = peaks(recording, COLUMNS)
    outline = outline / (float(outline.max(initial=0.0)) or 1.0)
    times = (np.arange(COLUMNS) + 0.5) * duration / COLUMNS
    axes.fill_between(times, -outline, outline, color=WAVE, linewidth=0.4)
    axes.axhline(0, color=WAVE, linewidth=0.6)
    axes.set_xlim(0, duration)
    axes.set_ylim(-1.04, 1.04)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return outline


def mark_time(axes: Axes, duration: float) -> None:
    """Write times under axes that span a recording of ``duration`` seconds."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    locator = MaxNLocator(nbins=9, steps=[1, 1.5, 3, 6, 10] if duration > 45 else [1, 2, 5, 10])
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:g} s" if duration < 5 else clock(x, precise=False))
    )
    axes.set_xlim(0, duration)
    axes.tick_params(colors=SOFT, labelsize=8.5, length=0, pad=5)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=FAINT)


def _draw_listen(
    wave: Axes, spectra: Axes, number: int, listen: Listen, lane: int, outline: np.ndarray, duration: float
) -> None:
    """Mark one re-listen: its stretch tinted in both panels, its waveform in colour, a bar with its number above."""
    from matplotlib.patches import Rectangle

    colour = _colour(number)
    width = max(listen.end - listen.start, 0.002 * duration)
    level = 1.04 + 2.08 * LANE / 1.2 * (lane - 0.5)
    wave.fill_between(
        [listen.start, listen.start + width], -1.04, level, color=colour, alpha=0.11, linewidth=0
    )
    wave.plot(
        [listen.start, listen.start + width],
        [level, level],
        color=colour,
        linewidth=2.6,
        solid_capstyle="butt",
    )
    times = (np.arange(COLUMNS) + 0.5) * duration / COLUMNS
    again = wave.fill_between(times, -outline, outline, color=colour, linewidth=0.4)
    again.set_clip_path(Rectangle((listen.start, -1.04), width, 2.08, transform=wave.transData))
    bottom, top = spectra.get_ylim()
    for alpha, fill, line in ((0.10, colour, 0.0), (0.9, "none", 1.3)):
        spectra.add_patch(
            Rectangle(
                (listen.start, bottom),
                width,
                top - bottom,
                facecolor=fill,
                edgecolor=colour,
                alpha=alpha,
                lw=line,
            )
        )
    badge = {"boxstyle": "circle,pad=0.28", "facecolor": colour, "edgecolor": PAGE, "linewidth": 1.2}
    place = min(max(listen.start + width / 2, 0.012 * duration), 0.988 * duration)
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8.5, "fontweight": "bold"}
    wave.text(place, level, str(number), color="white", bbox=badge, zorder=5, **style)


def _colour(number: int) -> str:
    return COLOURS[(number - 1) % len(COLOURS)]


class Page:
    """A page that is written from the top down, and laid out once its height is known."""

    WIDTH, LEFT, RIGHT = 11.0, 0.75, 0.45

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.font_manager import fontManager

        installed = set(fontManager.get_font_names())
        self.fonts = [font for font in FONTS if font in installed]
        self.figure: Figure = Figure(figsize=(self.WIDTH, 1.0))
        FigureCanvasAgg(self.figure)
        self.advances: dict[tuple[str, float, str], float] = {}
        self.y = 0.0
        self.texts: list[tuple[float, float, str, dict[str, Any]]] = []
        self.boxes: dict[str, tuple[float, float]] = {}

    def skip(self, height: float) -> None:
        """Leave room."""
        self.y += height

    def box(self, name: str, height: float) -> None:
        """Keep a box of the full width for axes."""
        self.boxes[name] = (self.y, height)
        self.y += height

    def write(
        self,
        text: str,
        *,
        size: float,
        colour: str = INK,
        weight: str = "normal",
        lines: int,
        x: float = 0.0,
        to: float = 0.0,
    ) -> None:
        """Write a paragraph of at most ``lines`` lines between ``x`` and ``to`` (0: the right edge)."""
        style = {"fontsize": size, "color": colour, "fontweight": weight}
        for line in self._wrap(text, style, (to or self.WIDTH - self.LEFT - self.RIGHT) - x, lines):
            self.texts.append((self.LEFT + x, self.y, line, style))
            self.y += size * 1.4 / 72

    def row(self, number: int, span: str, text: str, note: str) -> None:
        """Write one step: its number, what was heard and how, and what the policy wrote after it."""
        top, colour = self.y, _colour(number) if number else SOFT
        if number:
            badge = {"boxstyle": "circle,pad=0.28", "facecolor": colour, "edgecolor": "none"}
            style = {"fontsize": 8.5, "color": "white", "fontweight": "bold", "bbox": badge, "ha": "center"}
            self.texts.append((self.LEFT + 0.1, self.y + 0.005, str(number), style))
        self.write(span, size=10, colour=colour, weight="bold", lines=1, x=0.34)
        if note:
            self.write(note, size=8.5, colour=SOFT, lines=2, x=0.34, to=2.1)
        below, self.y = self.y, top
        self.write(text, size=10, lines=3, x=2.2)
        self.y = max(self.y, below) + 0.1

    def lay_out(self) -> tuple[Figure, dict[str, Axes]]:
        """Give the figure its height, put the texts in place, and make the axes."""
        height = self.y
        self.figure.set_size_inches(self.WIDTH, height)
        for x, y, text, style in self.texts:
            self._text(x / self.WIDTH, 1 - y / height, text, style)
        left, width = self.LEFT / self.WIDTH, 1 - (self.LEFT + self.RIGHT) / self.WIDTH
        axes = {
            name: self.figure.add_axes(
                (left, 1 - (top + tall) / height, width, tall / height), facecolor="none"
            )
            for name, (top, tall) in self.boxes.items()
        }
        return self.figure, axes

    def _wrap(self, text: str, style: dict[str, Any], width: float, most: int) -> list[str]:
        """Break a text into at most ``most`` lines; what does not fit ends in an ellipsis."""
        lines = [""]
        for word in text[: 400 * most].split():  # more never fits
            line = f"{lines[-1]} {word}".lstrip()
            if self.width(line, style) <= width:
                lines[-1] = line
                continue
            if lines[-1]:
                lines.append("")
            for letter in word:  # a word wider than the line is broken anywhere
                if self.width(lines[-1] + letter, style) > width:
                    lines.append("")
                lines[-1] += letter
            if len(lines) > most:
                break
        if len(lines) > most or len(text) > 400 * most:
            del lines[most:]
            while lines[-1] and self.width(lines[-1] + " …", style) > width:
                lines[-1] = lines[-1][:-1].rstrip()
            lines[-1] += " …"
        return lines if lines[0] else []

    def width(self, text: str, style: dict[str, Any]) -> float:
        """Width of a text in inches, kerning apart: each character is measured once."""
        return sum(self._advance(letter, style["fontsize"], style["fontweight"]) for letter in text)

    def _advance(self, letter: str, size: float, weight: str) -> float:
        key = (letter, size, weight)
        if key not in self.advances:
            artist = self._text(0, 0, f"|{letter * 8}|", {"fontsize": size, "fontweight": weight})
            pair = self._text(0, 0, "||", {"fontsize": size, "fontweight": weight})
            extra = artist.get_window_extent().width - pair.get_window_extent().width
            self.advances[key] = extra / 8 / self.figure.dpi
            artist.remove()
            pair.remove()
        return self.advances[key]

    def _text(self, x: float, y: float, text: str, style: dict[str, Any]) -> Any:
        return self.figure.text(x, y, text, va="top", family=self.fonts, parse_math=False, **style)
