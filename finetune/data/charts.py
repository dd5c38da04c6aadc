"""Pictures of a dataset: categories, durations, gold spans, and where the right choices stand.

Drawn as pictures of runs are (:mod:`echo_agent.audio.picture`): on matplotlib's Agg canvas, with none of its global
state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from echo_agent.answers import match_choice
from echo_agent.audio.outline import clock
from echo_agent.audio.picture import COLOURS, FAINT, INK, PAGE, SOFT
from echo_agent.finetune.data.records import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 9.0
"""Inches."""
DASHED = (0, (4, 3))
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200)
"""Seconds that are written under an axis of durations."""


def draw_charts(folder: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Write ``categories.png``, ``durations.png``, ``spans.png`` and ``answers.png``."""
    _draw_categories(folder / "categories.png", splits)
    _draw_durations(folder / "durations.png", splits)
    _draw_spans(folder / "spans.png", splits)
    _draw_answers(folder / "answers.png", splits)


def _draw_categories(path: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Bars of the share of each category in each split."""
    total = Counter(sample.category or "–" for rows in splits.values() for sample in rows)
    names = sorted(total, key=lambda name: (total[name], name))
    figure = _figure(1.0 + 0.3 * len(names))
    axes = figure.subplots()
    thick = 0.8 / len(splits)
    for i, (split, rows) in enumerate(splits.items()):
        counts = Counter(sample.category or "–" for sample in rows)
        shares = [100 * counts[name] / len(rows) for name in names]
        places = np.arange(len(names)) + 0.4 - thick * (i + 0.5)
        axes.barh(places, shares, thick * 0.9, color=_colour(i), label=f"{split} ({len(rows)})")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], parse_math=False)
    axes.set_ylim(-0.6, len(names) - 0.4)
    _label(axes, "x", "% of the samples of the split")
    _dress(axes, grid="x")
    _legend(figure, axes)
    _save(figure, path)


def _draw_durations(path: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Durations of the recordings of each split, each recording once."""
    figure = _figure(0.7 + 0.8 * len(splits))
    rows = list(figure.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0])
    values = [
        list({s.audio: s.duration for s in samples if s.duration is not None}.values())
        for samples in splits.values()
    ]
    _histograms(rows, values)
    for axes, split, found in zip(rows, splits, values, strict=True):
        _name(axes, f"{split}: {len(found)} recordings")
    _label(rows[-1], "x", "length of the recording (heights: share of the split)")
    _save(figure, path)


def _draw_spans(path: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """How long gold spans are, and where in their recordings their middles lie."""
    figure = _figure(0.7 + 0.8 * len(splits))
    panels = figure.subplots(len(splits), 2, sharex="col", squeeze=False)
    spans = [[(s.duration, *span) for s in rows for span in s.gold_spans] for rows in splits.values()]
    _histograms(list(panels[:, 0]), [[end - start for _, start, end in found] for found in spans])
    edges = np.linspace(0, 100, 21)
    for i, (axes, split, found) in enumerate(zip(panels[:, 1], splits, spans, strict=True)):
        _bars(axes, [50 * (start + end) / whole for whole, start, end in found if whole], edges, i)
        axes.axhline(100 / (len(edges) - 1), color=INK, linewidth=0.8, linestyle=DASHED)
        _name(panels[i, 0], f"{split}: {len(found)} gold spans")
    _label(panels[-1, 0], "x", "length of the span (heights: share of the split)")
    _label(panels[-1, 1], "x", "middle of the span, % of the recording (dashed: evenly)")
    _save(figure, path)


def _draw_answers(path: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """How often each place among the choices is the right one, for each number of choices."""
    places: dict[int, Counter[int]] = {}
    for rows in splits.values():
        for sample in rows:
            right = None if sample.choices is None else match_choice(sample.answer, sample.choices)
            if right is not None:
                places.setdefault(len(sample.choices or ()), Counter())[right] += 1
    figure = _figure(2.8)
    axes = figure.subplots()
    left = 0
    ticks: dict[int, str] = {}
    for i, (size, found) in enumerate(sorted(places.items())):
        total = sum(found.values())
        shares = [100 * found[k] / total for k in range(size)]
        axes.bar(left + np.arange(size), shares, 0.75, color=_colour(i), label=f"{size} choices ({total})")
        axes.plot([left - 0.5, left + size - 0.5], [100 / size] * 2, color=INK, lw=0.8, ls=DASHED)
        ticks |= {left + k: str(k + 1) for k in range(size)}
        left += size + 1
    axes.set_xticks(list(ticks), list(ticks.values()))
    _label(axes, "x", "place of the right choice (dashed: evenly)")
    _label(axes, "y", "% of the questions")
    _dress(axes, grid="y")
    _legend(figure, axes)
    _save(figure, path)


def _histograms(rows: Sequence[Axes], values: Sequence[Sequence[float]]) -> None:
    """Seconds of each split on a row of its own, in even steps of their logarithm."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    every = [value for found in values for value in found]
    low, high = (max(min(every), 0.02) * 0.95, max(every) * 1.05) if every else (1.0, 10.0)
    edges = np.geomspace(low, max(high, 1.2 * low), 41)
    for i, (axes, found) in enumerate(zip(rows, values, strict=True)):
        _bars(axes, found, edges, i)
    axes = rows[-1]
    axes.set_xscale("log")
    axes.set_xticks([tick for tick in TICKS if low <= tick <= high] or [float(np.sqrt(low * high))])
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda tick, _: f"{tick:.3g} s" if tick < 60 else clock(tick, precise=False))
    )
    axes.xaxis.set_minor_locator(NullLocator())


def _bars(axes: Axes, values: Sequence[float], edges: np.ndarray, number: int) -> None:
    """Shares of values between edges."""
    counts, _ = np.histogram(values, edges)
    shares = 100 * counts / max(1, len(values))
    axes.bar(edges[:-1], shares, np.diff(edges) * 0.92, align="edge", color=_colour(number))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_yticks([])
    _dress(axes, grid="x")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _figure(height: float) -> Figure:
    """A figure of ``WIDTH`` by ``height`` inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), facecolor=PAGE, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _dress(axes: Axes, grid: Literal["x", "y"]) -> None:
    """Give axes the house's look."""
    axes.set_facecolor("none")
    axes.tick_params(colors=SOFT, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=FAINT)
    axes.grid(axis=grid, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _label(axes: Axes, axis: Literal["x", "y"], text: str) -> None:
    write = axes.set_xlabel if axis == "x" else axes.set_ylabel
    write(text, color=SOFT, fontsize=9)


def _name(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", color=INK, fontsize=9, pad=3)


def _legend(figure: Figure, axes: Axes) -> None:
    """The legend above the axes, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=len(labels),
            fontsize=9, frameon=False, labelcolor=INK, handlelength=1.0,
        )  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=130, facecolor=PAGE)
