"""The curves of a training run on one page: a small panel for each thing that a person wants to see of it.

SFT and RL have panels of their own; those that nothing was logged for are left out. Every value stands at the optimiser
step it was logged at, shares are written in per cent, and a curve of many points is smoothed over the faint points
themselves. Drawn as pictures of runs are (:mod:`echo_agent.audio.picture`): on matplotlib's Agg canvas, with none of
its global state.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from echo_agent.audio.picture import COLOURS, FAINT, FONTS, INK, PAGE, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = (3.9, 2.35)
"""Inches."""
SMOOTHED = 30
"""Curves of more points than this are smoothed."""
STEPS = [1, 2, 2.5, 5, 10]
"""Between ticks, times a power of ten."""
PRICE = "rewards/price/mean"
"""Not drawn among the parts: it is minus the seconds heard, which have a panel, and would flatten all other parts."""
RED, BLUE, _, _, GREEN, *_ = COLOURS

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Panel:
    """One panel: its title, and the key of each curve with its name in the legend and its colour."""

    title: str
    curves: tuple[tuple[str, str, str], ...]
    scale: Literal["value", "share", "log"] = "value"
    """``share``: 0 to 1, written as per cent."""
    wide: bool = False
    """Whether it takes two columns."""


def _one(title: str, key: str, scale: Literal["value", "share"] = "value") -> Panel:
    return Panel(title, ((key, "", BLUE),), scale)


GRADIENT = _one("Norm of the gradient, before clipping", "grad_norm")
SFT = (
    Panel("Loss, nats per token", (("loss", "training", BLUE), ("eval_loss", "validation", RED))),
    Panel(
        "Tokens predicted right, %",
        (("mean_token_accuracy", "training", BLUE), ("eval_mean_token_accuracy", "validation", RED)),
        "share",
    ),
    _one("Learning rate", "learning_rate"),
    GRADIENT,
)
RL = (
    _one("Rollouts with the right answer, %", "rollout/right", "share"),
    Panel(
        "Rollouts that listened, %",
        (
            ("rollout/listened", "rollouts", BLUE),
            ("rollout/always", "groups: all did", GREEN),
            ("rollout/never", "groups: none did", RED),
        ),
        "share",
    ),
    _one("Heard again, seconds per rollout", "rollout/seconds_heard"),
    _one("Overlap of what was heard with gold spans, %", "rollout/overlap", "share"),
    _one("Repeated listens per rollout", "rollout/repeats"),
    _one("Groups whose rewards are all the same, %", "frac_reward_zero_std", "share"),
    _one("Entropy, nats per token", "entropy"),
    _one("KL from the first policy, nats per token", "kl"),
    _one("Loss of the rehearsal, nats per token", "rehearsal"),
    Panel(
        "Log-probability gap of sampler and trainer, nats",
        (("sampling/logp_gap_mean", "mean", BLUE), ("sampling/logp_gap_max", "largest", RED)),
        "log",
    ),
    _one("Rollouts that broke off, %", "rollout/broken", "share"),
    GRADIENT,
)


def draw_curves(rows: Rows, path: Path, title: str) -> None:
    """Draw the log of a run as a PNG.

    Args:
        rows: Logged steps in order, as :func:`echo_agent.finetune.callbacks.read_log` gives them.
        path: File to write.
        title: Head of the page.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)  # drawn as a box instead
        _page(rows, title).savefig(path, format="png", dpi=130, facecolor=PAGE)


def _page(rows: Rows, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager

    fonts = [font for font in FONTS if font in fontManager.get_font_names()]
    panels = _panels(rows)
    cells = len(panels) + sum(panel.wide for panel in panels)
    columns = 3 if cells > 4 or cells > len(panels) else 2
    lines = -(-cells // columns) or 1
    head = textwrap.fill(title, 34 * columns)
    height = lines * PANEL[1] + 0.3 * (2 + head.count("\n"))
    figure = Figure(figsize=(columns * PANEL[0], height), facecolor=PAGE)
    FigureCanvasAgg(figure)
    figure.suptitle(head, x=0.012, ha="left", color=INK, fontsize=13, family=fonts, parse_math=False)
    if not panels:
        figure.text(0.012, 0.5, "Nothing has been logged yet.", color=SOFT, fontsize=10)
        return figure
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.09, hspace=0.02, wspace=0.02)
    last = max(1, *(row["step"] for row in rows))
    grid = figure.add_gridspec(lines, columns)
    cell = 0
    for panel in panels:
        line, column = divmod(cell, columns)
        axes = figure.add_subplot(grid[line, column : column + 1 + panel.wide])
        cell += 1 + panel.wide
        _draw(axes, panel, rows)
        axes.set_xlim(-0.015 * last, 1.015 * last)
        if cell + columns > cells:  # nothing stands below
            axes.set_xlabel("step", color=SOFT, fontsize=8.5)
    return figure


def _panels(rows: Rows) -> list[Panel]:
    """The panels of SFT or of RL, with those of their curves that there are values for."""
    keys = sorted({key for row in rows for key in row})
    parts = [key for key in keys if re.fullmatch("rewards/.+/mean", key) and key != PRICE]
    names = [key[len("rewards/") : -len("/mean")].replace("_", " ").strip() for key in parts]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(parts))]
    reward = (
        _one("Reward, mean of the rollouts", "reward"),
        Panel("Reward by part, before weights", tuple(zip(parts, names, colours, strict=True)), wide=True),
    )
    reinforced = any(key.startswith(("reward", "rollout/")) for key in keys)
    panels = []
    for panel in (*reward, *RL) if reinforced else SFT:
        curves = tuple(curve for curve in panel.curves if len(_points(rows, curve[0], panel.scale)[0]))
        if curves:
            panels.append(replace(panel, curves=curves))
    return panels


def _points(rows: Rows, key: str, scale: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a key, ``[points]`` each; what is no number, or has no logarithm, is left out."""
    found = [(row["step"], row[key]) for row in rows if key in row and np.isfinite(row[key])]
    if scale == "log":
        found = [point for point in found if point[1] > 0]
    steps, values = np.array(found, np.float64).reshape(-1, 2).T
    return steps, 100 * values if scale == "share" else values


def _draw(axes: Axes, panel: Panel, rows: Rows) -> None:
    """Draw one panel, its legend between title and curves, where it hides nothing."""
    for key, name, colour in panel.curves:
        steps, values = _points(rows, key, panel.scale)
        if len(steps) > SMOOTHED:
            axes.plot(steps, values, ".", color=colour, alpha=0.22, markersize=3.5, markeredgewidth=0)
            axes.plot(steps, _smooth(values, panel.scale), color=colour, linewidth=1.7, label=name)
        else:
            axes.plot(steps, values, "o-", color=colour, linewidth=1.7, markersize=3.2, label=name)
    _dress(axes, panel.scale)
    named = [name for _, name, _ in panel.curves if name]
    columns = min(len(named), 8 if panel.wide else 4)
    legend = -(-len(named) // columns) if named else 0
    axes.set_title(panel.title, loc="left", color=INK, fontsize=9.5, pad=6 + 13.5 * legend, parse_math=False)
    if named:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, fontsize=8, frameon=False, labelcolor=SOFT,
            handlelength=1.1, handletextpad=0.5, columnspacing=1.1, labelspacing=0.25, borderaxespad=0.2,
        )  # fmt: skip


def _smooth(values: np.ndarray, scale: str) -> np.ndarray:
    """A mean over the neighbours, with weights of a bell of a fortieth of the curve; of logarithms on such a scale."""
    values = np.log(values) if scale == "log" else values
    width = max(1.5, len(values) / 40)
    reach = np.arange(-int(3 * width), int(3 * width) + 1)
    bell = np.exp(-0.5 * (reach / width) ** 2)
    ones = np.convolve(np.ones_like(values), bell)
    inside = slice(len(reach) // 2, len(reach) // 2 + len(values))
    smooth = (np.convolve(values, bell) / ones)[inside]
    return np.exp(smooth) if scale == "log" else smooth


def _dress(axes: Axes, scale: str) -> None:
    """Give axes the house's look, and a scale whose ticks are plain numbers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    axes.set_facecolor("none")
    axes.tick_params(which="both", colors=SOFT, labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=FAINT)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=STEPS, integer=True))
    low, high = axes.dataLim.intervaly
    if scale == "log":
        axes.set_yscale("log")
        axes.set_ylim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high * 1.0001)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=STEPS))
    if scale == "share":
        axes.set_ylim(-0.03 * max(high, 1.0), min(1.08 * max(high, 1.0), 103.0))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
