"""Charts of an evaluation as SVG: scores with intervals, differences, and what right answers cost."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = {
    "on": "#1f6f8b",
    "off": "#6b7a86",
    "wrong-crop": "#c8553d",
    "silence": "#c98a1b",
    "oracle": "#4b8b5a",
    "no-audio": "#6d5a9c",
}
WIDTH, LEFT, RIGHT, ROW = 720, 130, 60, 30
"""Width of a chart, of its labels and of what stands on its right, and height of a row, in pixels."""


def scores_chart(controls: Mapping[str, Any], chance: float | None) -> str:
    """A dot with its interval per control; the official score below, where it is another; the line of chance."""
    rows = [
        (control, rule, score[rule])
        for control, score in controls.items()
        for rule in ("strict", "official")
        if score[rule]["accuracy"] is not None
        and (rule == "strict" or score["official"]["interval"] != score["strict"]["interval"])
    ]
    height = ROW * len(rows) + 34
    marks = [_axis(height, [0, 25, 50, 75, 100], "%")]
    if chance is not None:
        x = _x(chance)
        marks.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{height - 26}" class="chance"/>')
        marks.append(f'<text x="{x + 4:.1f}" y="16" class="soft">chance</text>')
    for place, (control, rule, score) in enumerate(rows):
        y = ROW * place + 26
        low, high = score["interval"]
        colour, solid = COLOURS[control], rule == "strict"
        label = control if solid else "official"
        marks.append(
            f'<text x="{LEFT - 10}" y="{y + 5}" text-anchor="end" class="{"" if solid else "soft"}">{label}</text>'
        )
        marks.append(
            f'<line x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="{3 if solid else 1.5}"/>'
        )
        fill = colour if solid else "#fff"
        marks.append(
            f'<circle cx="{_x(score["accuracy"]):.1f}" cy="{y}" r="5" fill="{fill}" stroke="{colour}"/>'
        )
        marks.append(f'<text x="{WIDTH - RIGHT + 10}" y="{y + 5}">{100 * score["accuracy"]:.1f}</text>')
    return _svg(height, marks, "Scores by control with their intervals")


def differences_chart(differences: Sequence[Mapping[str, Any]]) -> str:
    """A dot with its interval per pair of controls, around nothing."""
    most = max(10.0, *(abs(apart[key]) for apart in differences for key in ("low", "high")))
    most = 10 * -(-most // 10)

    def x(points: float) -> float:
        return _x((points + most) / (2 * most))

    height = ROW * len(differences) + 34
    marks = [_axis(height, [-most, -most / 2, 0, most / 2, most], "", low=-most, high=most)]
    for place, apart in enumerate(differences):
        y = ROW * place + 26
        colour = COLOURS[apart["other"]]
        marks.append(
            f'<text x="{LEFT - 10}" y="{y + 5}" text-anchor="end">− {html.escape(apart["other"])}</text>'
        )
        marks.append(
            f'<line x1="{x(apart["low"]):.1f}" x2="{x(apart["high"]):.1f}" y1="{y}" y2="{y}" stroke="{colour}" '
            'stroke-width="3"/>'
        )
        marks.append(f'<circle cx="{x(apart["points"]):.1f}" cy="{y}" r="5" fill="{colour}"/>')
        marks.append(f'<text x="{WIDTH - RIGHT + 10}" y="{y + 5}">{apart["points"]:+.1f}</text>')
    return _svg(height, marks, "Points between controls with their intervals")


def cost_chart(controls: Mapping[str, Any], cost: str, unit: str) -> str:
    """Which share is right at a cost of at most so much, a line per control."""
    curves = {control: score["curves"][cost] for control, score in controls.items() if score["curves"][cost]}
    costs = ticks(max((points[-1][0] for points in curves.values()), default=0.0), 3)
    shares = ticks(100 * max((points[-1][1] for points in curves.values()), default=0.0), 5)
    most, top = costs[-1], shares[-1] / 100
    width, height, left, bottom = 350, 240, 44, 36
    wide, high = width - left - 14, height - bottom - 14

    def place(point: Sequence[float]) -> tuple[float, float]:
        return left + wide * point[0] / most, 14 + high * (1 - point[1] / top)

    marks = []
    for share in shares:
        y = 14 + high * (1 - share / shares[-1])
        marks.append(f'<line x1="{left}" x2="{width - 14}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        marks.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" class="soft">{share:g}</text>')
    for spent in costs:
        x = left + wide * spent / most
        marks.append(
            f'<text x="{x:.1f}" y="{height - 20}" text-anchor="middle" class="soft">{spent:g}</text>'
        )
    marks.append(
        f'<text x="{left + wide / 2}" y="{height - 4}" text-anchor="middle" class="soft">{unit}</text>'
    )
    for control, points in curves.items():
        path, before = [], None
        for point in [[0.0, 0.0], *points, [most, points[-1][1]]]:
            x, y = place(point)
            path.append(f"{x:.1f},{before if before is not None else y:.1f} {x:.1f},{y:.1f}")
            before = y
        marks.append(
            f'<polyline points="{" ".join(path)}" fill="none" stroke="{COLOURS[control]}" stroke-width="2"/>'
        )
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Right answers by {unit}">{"".join(marks)}</svg>'


def ticks(most: float, count: int) -> list[float]:
    """Round numbers from 0 to ``most`` or a little more, in at most ``count`` even steps."""
    least = max(most, 1e-6) / count
    unit = 10 ** math.floor(math.log10(least))
    step = next(
        unit * round_one for round_one in (1, 2, 2.5, 5, 10) if unit * round_one >= least * (1 - 1e-9)
    )
    return [step * i for i in range(math.ceil(most / step - 1e-9) + 1)] if most > 0 else [0.0, step]


def legend(controls: Sequence[str]) -> str:
    """The colours of the controls."""
    return "".join(f'<i style="--c:{COLOURS[control]}">{control}</i>' for control in controls)


def wave(peaks: Sequence[float], duration: float, spans: Sequence[tuple[float, float, str]]) -> str:
    """The outline of a recording with spans of it marked; a span is its start, end and class."""
    width, height = 720, 64
    columns = len(peaks)
    highest = max(peaks, default=0.0) or 1.0
    marks = [
        f'<rect x="{width * start / duration:.1f}" y="0" width="{max(2.0, width * (end - start) / duration):.1f}" '
        f'height="{height}" class="{kind}"/>'
        for start, end, kind in spans
    ]
    path = "".join(
        f"M{width * (i + 0.5) / columns:.1f} {height / 2 - 28 * peak / highest:.1f}v{56 * peak / highest:.1f}"
        for i, peak in enumerate(peaks)
    )
    marks.append(f'<path d="{path}" class="wave"/>')
    box = f'viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true"'
    return f'<svg class="sound" {box}>{"".join(marks)}</svg>'


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * share


def _axis(height: int, ticks: Sequence[float], unit: str, low: float = 0.0, high: float = 100.0) -> str:
    marks = ""
    for tick in ticks:
        x = _x((tick - low) / (high - low))
        marks += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{height - 26}" class="grid"/>'
        sign = f"{tick:+g}" if low < 0 and tick else f"{tick:g}"
        marks += f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle" class="soft">{sign}{unit}</text>'
    return marks


def _svg(height: int, marks: Sequence[str], label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{"".join(marks)}</svg>'
