"""Pictures of a dataset: families, durations, gold spans, and where the right choices stand.

Drawn as pictures of runs are (:mod:`echo_agent.picture`): on matplotlib's Agg canvas, with none of its global state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_agent.answers import match_choice
from echo_agent.finetune.data.records import Sample
from echo_agent.outline import clock
from echo_agent.picture import COLOURS, FAINT, INK, PAGE, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 9.0
"""Inches."""


def draw_charts(folder: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Write ``families.png``, ``durations.png``, ``spans.png`` and ``answers.png``."""
    _draw_families(folder / "families.png", splits)
    _draw_durations(folder / "durations.png", splits)
    _draw_spans(folder / "spans.png", splits)
    _draw_answers(folder / "answers.png", splits)


def _draw_families(path: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Bars of the share of each family in each split."""
    total = Counter(sample.family or "–" for rows in splits.values() for sample in rows)
    names = sorted(total, key=lambda name: (total[name], name))
    (axes,) = _figure(path, 1, 1.1 + 0.27 * len(names))
    thick = 0.8 / len(splits)
    for i, (split, rows) in enumerate(splits.items()):
        counts = Counter(sample.family or "–" for sample in rows)
        heights = [100 * counts[name] / len(rows) for name in names]
        places = np.arange(len(names)) + 0.4 - thick * (i + 0.5)
        axes.barh(places, heights, thick * 0.9, color=_colour(i), label=f"{split} ({len(rows)})")
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.set_xlabel("% of the samples of the split", color=SOFT, fontsize=9)
    _finish(path, axes, "Families", legend=True)


def _draw_durations(path: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Durations of the recordings of each split, each recording once, on a logarithmic axis."""
    (axes,) = _figure(path, 1, 2.9)
    seconds = {
        split: list({s.audio: s.duration for s in rows if s.duration is not None}.values())
        for split, rows in splits.items()
    }
    _histogram(axes, seconds, "recordings, % of the split")
    axes.set_xlabel("length of the recording", color=SOFT, fontsize=9)
    _finish(path, axes, "Durations", legend=True)


def _draw_spans(path: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """How long gold spans are, and where in their recordings their middles lie."""
    lengths, places = _figure(path, 2, 2.9)
    spans = {split: [(s, *span) for s in rows for span in s.gold_spans] for split, rows in splits.items()}
    _histogram(lengths, {split: [end - start for _, start, end in found] for split, found in spans.items()},
               "gold spans, % of the split")  # fmt: skip
    lengths.set_xlabel("length of the span", color=SOFT, fontsize=9)
    edges = np.linspace(0, 100, 21)
    for i, found in enumerate(spans.values()):
        middles = [50 * (start + end) / sample.duration for sample, start, end in found if sample.duration]
        _steps(places, middles, edges, i)
    places.axhline(100 / (len(edges) - 1), color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    places.set_xlim(0, 100)
    places.set_ylim(bottom=0)
    places.set_xlabel("middle of the span, % of the recording", color=SOFT, fontsize=9)
    _finish(path, places, "Where they lie (dashed: evenly)")
    _finish(path, lengths, "How long gold spans are", legend=True)


def _draw_answers(path: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """How often each place among the choices is the right one, for each number of choices."""
    places: dict[int, Counter[int]] = {}
    for rows in splits.values():
        for sample in rows:
            right = None if sample.choices is None else match_choice(sample.answer, sample.choices)
            if right is not None:
                places.setdefault(len(sample.choices or ()), Counter())[right] += 1
    (axes,) = _figure(path, 1, 2.6)
    left, ticks, names = 0.0, [], []
    for i, (size, found) in enumerate(sorted(places.items())):
        total = sum(found.values())
        where = left + np.arange(size)
        axes.bar(where, [100 * found[k] / total for k in range(size)], 0.75, color=_colour(i),
                 label=f"{size} choices ({total})")  # fmt: skip
        axes.plot([left - 0.5, left + size - 0.5], [100 / size] * 2, color=INK, lw=0.8, ls=(0, (4, 3)))
        ticks += list(where)
        names += [str(k + 1) for k in range(size)]
        left += size + 1
    axes.set_xticks(ticks, names)
    axes.set_xlabel("place of the right choice (dashed: evenly)", color=SOFT, fontsize=9)
    axes.set_ylabel("% of the questions", color=SOFT, fontsize=9)
    _finish(path, axes, "Where the right choice stands", legend=bool(places))


def _histogram(axes: Axes, values: Mapping[str, Sequence[float]], label: str) -> None:
    """Shares of seconds in even steps of their logarithm, a line per split."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    every = [value for found in values.values() for value in found]
    low, high = (max(min(every), 0.02) * 0.95, max(every) * 1.05) if every else (1.0, 10.0)
    edges = np.geomspace(low, max(high, 1.2 * low), 31)
    for i, (split, found) in enumerate(values.items()):
        _steps(axes, found, edges, i, split)
    axes.set_xscale("log")
    ticks = [
        t
        for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
        if low <= t <= high
    ]
    axes.set_xticks(ticks or [float(np.sqrt(low * high))])
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda t, _: f"{t:g} s" if t < 60 else clock(t, precise=False))
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label, color=SOFT, fontsize=9)


def _steps(axes: Axes, values: Sequence[float], edges: np.ndarray, number: int, label: str = "") -> None:
    """Shares of values between edges as an outline, so that several can lie over each other."""
    if not values:
        return
    counts, _ = np.histogram(values, edges)
    shares = 100 * counts / len(values)
    axes.stairs(shares, edges, color=_colour(number), linewidth=1.5, label=label or None)
    axes.stairs(shares, edges, color=_colour(number), alpha=0.08, fill=True)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _figure(path: Path, panels: int, height: float) -> list[Any]:
    """Axes side by side on a figure of their own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), facecolor=PAGE, layout="constrained")
    FigureCanvasAgg(figure)
    return list(figure.subplots(1, panels, squeeze=False)[0])


def _finish(path: Path, axes: Axes, title: str, *, legend: bool = False) -> None:
    """Give axes the house's look, and write the figure."""
    axes.set_facecolor("none")
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", parse_math=False)
    axes.tick_params(colors=SOFT, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=FAINT)
    axes.grid(axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8.5, frameon=False, labelcolor=INK)
    axes.figure.savefig(path, format="png", dpi=130, facecolor=PAGE)  # pyright: ignore[reportAttributeAccessIssue]
