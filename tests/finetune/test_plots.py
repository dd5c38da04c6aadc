"""The page of curves: which panels there are, that they show what was logged, and that odd logs make a page too."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.image import imread
from matplotlib.text import Text

from echo_agent.finetune.plots import _page, _panels, _smooth, draw_curves

SFT = {"loss": 2.0, "mean_token_accuracy": 0.5, "learning_rate": 1e-4, "grad_norm": 1.0, "entropy": 1.0}
RL = {
    "reward": 1.0, "rewards/format/mean": 0.9, "rewards/relisten/mean": 0.5, "rewards/format/std": 0.1,
    "rewards/price/mean": -4.0,
    "rollout/right": 0.5, "rollout/listened": 0.6, "rollout/always": 0.2, "rollout/never": 0.1,
    "rollout/seconds_heard": 4.0, "rollout/overlap": 0.3, "rollout/repeats": 0.1, "frac_reward_zero_std": 0.2,
    "entropy": 0.7, "kl": 0.01, "sampling/logp_gap_mean": 1e-4, "sampling/logp_gap_max": 1e-2,
    "rollout/broken": 0.05, "grad_norm": 1.0, "loss": 0.01, "learning_rate": 1e-5,
}  # fmt: skip


def log(values: dict[str, float], steps: int) -> list[dict[str, float]]:
    """A log in which every value moves a little."""
    return [
        {"step": n, "seconds": n * 2.0} | {k: v * (1 + 0.3 * math.sin(n)) for k, v in values.items()}
        for n in range(1, steps + 1)
    ]


def panels(rows: list[dict[str, float]]) -> dict[str, Axes]:
    """The panels of a page by their titles."""
    return {axes.get_title(loc="left"): axes for axes in _page(rows, "A run").axes}


def named(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def is_title(artist: Artist) -> bool:
    return (
        isinstance(artist, Text)
        and artist.axes is not None
        and artist.get_text() == artist.axes.get_title(loc="left")
    )


def test_panels_of_sft() -> None:
    rows = [
        *log(SFT, 20),
        {"step": 20, "seconds": 40.0, "eval_loss": 2.5},
        {"step": 20, "seconds": 41.0, "train_loss": 2.0},
    ]
    found = panels(rows)
    assert list(found) == [
        "Loss, nats per token",
        "Tokens predicted right, %",
        "Learning rate",
        "Norm of the gradient, before clipping",
    ]
    assert [named(axes) for axes in found.values()] == [["training", "validation"], ["training"], [], []]
    training, validation = found["Loss, nats per token"].lines
    np.testing.assert_allclose(training.get_xydata(), [(row["step"], row["loss"]) for row in rows[:20]])
    np.testing.assert_allclose(validation.get_xydata(), [(20, 2.5)])
    shares = np.asarray(found["Tokens predicted right, %"].lines[0].get_ydata())
    np.testing.assert_allclose(shares, [100 * row["mean_token_accuracy"] for row in rows[:20]])


def test_panels_of_rl() -> None:
    found = panels(log(RL, 20))
    assert len(found) == 13
    assert named(found["Reward by part, before weights"]) == ["format", "relisten"]
    assert named(found["Rollouts that listened, %"]) == ["rollouts", "groups: all did", "groups: none did"]
    gap = found["Log-probability gap of sampler and trainer, nats"]
    assert named(gap) == ["mean", "largest"] and gap.get_yscale() == "log"
    assert not any("Loss" in title or "rate" in title for title in found)


@pytest.mark.parametrize("key", RL)
def test_what_was_not_logged_has_no_panel(key: str) -> None:
    """Without a key its panel or its curve goes, and nothing else."""
    less = {name: value for name, value in RL.items() if name != key}
    whole, rest = (
        {panel.title: len(panel.curves) for panel in _panels(log(values, 5))} for values in (RL, less)
    )
    drawn = key not in ("loss", "learning_rate", "rewards/format/std", "rewards/price/mean")
    assert sum(whole.values()) - sum(rest.values()) == drawn
    assert [title for title in whole if title in rest] == list(rest)


def test_long_curves_are_smoothed() -> None:
    """A line over points; the line is smoother than they are, as long, and about the same values."""
    assert len(panels(log(SFT, 30))["Learning rate"].lines) == 1
    points, line = panels(log(SFT, 31))["Learning rate"].lines
    raw, smooth = np.asarray(points.get_ydata()), np.asarray(line.get_ydata())
    assert points.get_linestyle() == "None" and len(raw) == len(smooth) == 31
    assert np.abs(np.diff(smooth)).max() < 0.5 * np.abs(np.diff(raw)).max()
    assert smooth.mean() == pytest.approx(raw.mean(), rel=0.02)


def test_smoothing_keeps_what_is_smooth() -> None:
    np.testing.assert_allclose(_smooth(np.full(50, 3.0), "value"), 3.0)
    np.testing.assert_allclose(_smooth(np.full(50, 3.0), "log"), 3.0)
    line = np.arange(200.0)
    np.testing.assert_allclose(_smooth(line, "value")[30:-30], line[30:-30])


@pytest.mark.parametrize("steps", [8, 100])
@pytest.mark.parametrize("values", [SFT, RL, RL | {f"rewards/part_{i}/mean": 0.1 * i for i in range(5)}])
def test_no_text_lies_over_another(values: dict[str, float], steps: int) -> None:
    """Head, titles, names of curves, labels and ticks of a full page: each has a place of its own on it."""
    figure = _page(log(values, steps), "RL of a model with a rather long name " * 4)
    figure.draw_without_rendering()
    texts = list(figure.texts)
    for axes in figure.axes:
        legend = axes.get_legend()
        texts += [
            axes.xaxis.label,
            axes.yaxis.label,
            *axes.findobj(is_title),
            *(legend.get_texts() if legend else ()),
        ]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
            texts += [label for place, label in ticks if low <= place <= high]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    assert len(boxes) > 8 * len(figure.axes)
    for i, (one, box) in enumerate(boxes):
        assert min(box.min) >= 0 and (box.max <= figure.bbox.max).all(), one
        for other, another in boxes[:i]:
            assert not box.overlaps(another), (one, other)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 3, "seconds": 1.0, "train_runtime": 1.0}],
        [{"step": 0, "seconds": 0.0, "eval_loss": 1.0}],
        log(SFT, 1),
        log(RL, 1),
        log({"reward": 1.0, "rewards/format/mean": 0.5}, 3),
        log({"rewards/$_x^/mean": 0.5}, 3),
        log(dict.fromkeys(RL, 0.0), 40),
        log(SFT | {"grad_norm": math.nan}, 3) + log(SFT | {"loss": math.inf}, 3),
    ],
)
def test_odd_logs(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    draw_curves(rows, tmp_path / "curves.png", "什么 $\\frac{1}$ %s" if not rows else "$ run_1^ $")
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[0] > 200 and picture.shape[1] > 900
    assert picture[..., :3].min() < 0.5  # something is written


def test_a_page_is_a_picture_of_the_values(tmp_path: Path) -> None:
    """The same log twice is the same page; another value is another page."""
    for name, rate in (("one", 1e-4), ("two", 1e-4), ("other", 1e-3)):
        draw_curves(log(SFT | {"learning_rate": rate}, 40), tmp_path / f"{name}.png", "SFT")
    one, two, other = (imread(tmp_path / f"{name}.png") for name in ("one", "two", "other"))
    assert one.shape == (689, 1014, 4) and np.array_equal(one, two) and not np.array_equal(one, other)
