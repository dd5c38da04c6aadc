"""Tables and figure of docs/results.md, from the figures that ``benchmarks/listening_again.py`` wrote.

    python benchmarks/listening_again_tables.py benchmarks/results/listening-again.json --picture figure.png

Prints tables in markdown; the page shows a part of their rows and columns. ``--picture`` draws the figure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_agent.scores import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONTROLS = ("on", "off", "wrong-crop", "silence")
LISTENS = 0.01
"""A policy listens again if it does so in more than this share of its runs."""


def draw(path: Path, test: Mapping[str, Any]) -> None:
    """The figure: accuracy over all questions and on detail, and the gain on detail by length; 95 % intervals.

    Policies that were asked only a part of the questions are left out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    everything, detail, gain = figure.subplots(1, 3)
    on = {name: test["scores"][name]["on"] for name in asked_all(test)}
    draw_accuracy(everything, "all questions", on, on)
    draw_accuracy(detail, "questions about detail", on, {n: on[n]["difficulty"].get("detail") for n in on})
    everything.set_ylabel("right (%)")
    detail.sharey(everything)
    draw_gain(gain, test, list(on))
    figure.legend(*everything.get_legend_handles_labels(), loc="outside lower center", ncols=len(on))
    figure.savefig(path, dpi=110)


def draw_accuracy(
    axes: Axes, title: str, on: Mapping[str, Any], found: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """Percent right against audio tokens, with Wilson's interval."""
    from matplotlib.ticker import MaxNLocator

    for place, (name, described) in enumerate(found.items()):
        if described is not None:
            right, count = described["right"], described["questions"]
            low, high = wilson(round(right * count / 100), count)
            point(axes, on[name]["audio_tokens"], (right, 100 * low, 100 * high), place, name)
    axes.set(title=title, xlabel="audio tokens per question")
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(alpha=0.3)


def draw_gain(axes: Axes, test: Mapping[str, Any], names: Sequence[str]) -> None:
    """Points of the other policies over the first, on questions about detail, by length of the recording."""
    first, *others = names
    lengths = list(test["scores"][first]["on"]["length"])
    for place, name in enumerate(others, start=1):
        shift = 0.15 * (place - (len(others) + 1) / 2)
        for column, span in enumerate(lengths):
            if gain := test["differences"][f"{name} over {first}"].get(f"detail, {span}"):
                point(axes, column + shift, (gain["points"], gain["low"], gain["high"]), place, name)
    axes.set(title=f"detail: gain over “{first}”", xlabel="length of the recording", ylabel="points")
    axes.set_xticks(range(len(lengths)), lengths)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.grid(alpha=0.3)


def point(axes: Axes, x: float, found: tuple[float, float, float], place: int, label: str) -> None:
    """One value with the low and high end of its interval, in the colour of the policy at ``place``."""
    value, low, high = found
    axes.errorbar(
        x, value, [[value - low], [high - value]], fmt="o", capsize=3, color=f"C{place}", label=label
    )


def asked_all(test: Mapping[str, Any]) -> list[str]:
    """Policies that were asked every question of a test."""
    asked = {name: by["on"]["questions"] for name, by in test["scores"].items()}
    return [name for name, count in asked.items() if count == max(asked.values())]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def right(found: Mapping[str, Any] | None) -> str:
    """Percent right, as it is written in a table."""
    return f"{found['right']:.1f}" if found else ""


def both(described: Mapping[str, Any] | None) -> tuple[str, str]:
    """Percent right over all questions and over those about detail."""
    return right(described), right(described["difficulty"].get("detail")) if described else ""


def share(value: float | None) -> str:
    """A share in percent; empty where it is not known."""
    return "" if value is None else f"{100 * value:.0f} %"


def number(value: float | None, digits: int = 1) -> str:
    """A number with so many digits; empty where it is not known."""
    return "" if value is None else f"{value:.{digits}f}"


def interval(found: Mapping[str, float] | None) -> str:
    """A difference with its interval."""
    return f"{found['points']} ({found['low']} to {found['high']})" if found else ""


def main_table(tests: Mapping[str, Mapping[str, Any]]) -> str:
    """Percent right on all tests, and what was heard on the first."""
    first = tests[next(iter(tests))]
    lines = []
    for name in asked_all(first):
        cells = [test["scores"].get(name, {}).get("on") for test in tests.values()]
        on = first["scores"][name]["on"]
        lines.append(
            [
                name,
                *(text for cell in cells for text in both(cell)),
                number(on["audio_tokens"], 0),
                number(on["seconds_heard"]),
            ]
        )
    head = [text for test in tests for text in (test, f"{test}, detail")]
    return table(["policy", *head, "audio tokens", "seconds heard again"], lines)


def length_table(test: Mapping[str, Any]) -> str:
    """Percent right by the length of the recording, and how often and how well the policies listened."""
    names = asked_all(test)
    lengths = list(test["scores"][names[0]]["on"]["length"])
    lines = []
    for name in names:
        on = test["scores"][name]["on"]
        heard = ["", "", ""]
        if on["listened"] > LISTENS:
            heard = [share(on["listened"]), share(on["listened_under_30_s"]), number(on["gold_iou"], 2)]
        lines.append([name, *(right(on["length"].get(span)) for span in lengths), *heard])
    return table(["policy", *lengths, "listened again", "below 30 s", "overlap with gold"], lines)


def short_table(test: Mapping[str, Any]) -> str:
    """Percent right on recordings of up to a minute, of all policies that were asked about them."""
    lines = [[name, *both(on), number(on["audio_tokens"], 0)] for name, on in test["short"].items()]
    return table(["short recordings", "all", "detail", "audio tokens"], lines)


def control_table(test: Mapping[str, Any]) -> str:
    """Percent right with something else in the place of what was asked for."""
    lines = []
    for name, by_control in test["scores"].items():
        if len(by_control) > 1:
            given = [both(by_control.get(control)) for control in CONTROLS]
            lines.append([f"{name}, all", *(cell for cell, _ in given)])
            lines.append([f"{name}, detail", *(cell for _, cell in given)])
    return table(["policy, questions", *CONTROLS], lines)


def category_table(test: Mapping[str, Any]) -> str:
    """Percent right, share that listened and seconds heard by category, those that listen most first."""
    described = {name: test["scores"][name]["on"] for name in asked_all(test)}
    listening = {
        name: on["category"]
        for name, on in described.items()
        if on["listened"] > LISTENS and all("listened" in found for found in on["category"].values())
    }
    names = next(iter(described.values()))["category"]
    if listening:
        most = next(iter(listening.values()))
        names = sorted(names, key=lambda name: -most[name]["listened"])
    lines = [
        [
            category.replace("_", " "),
            *(right(on["category"].get(category)) for on in described.values()),
            *(share(found[category]["listened"]) for found in listening.values()),
            *(number(found[category]["seconds_heard"]) for found in listening.values()),
        ]
        for category in names
    ]
    heads = [
        *(f"right: {name}" for name in described),
        *(f"listened again: {name}" for name in listening),
        *(f"seconds: {name}" for name in listening),
    ]
    return table(["category", *heads], lines)


def difference_table(tests: Mapping[str, Mapping[str, Any]]) -> str:
    """Differences of policies on each test, over all questions and over those about detail."""
    columns = [(test, part) for test in tests for part in ("all", "detail")]
    titles = [
        title
        for title in tests[next(iter(tests))]["differences"]
        if all(title in test["differences"] for test in tests.values())
    ]
    lines = [
        [title, *(interval(tests[test]["differences"][title][part]) for test, part in columns)]
        for title in titles
    ]
    return table(["points", *(f"{test}, {part}" for test, part in columns)], lines)


def detail_table(test: Mapping[str, Any]) -> str:
    """Differences on questions about detail, by the length of the recording."""
    compared = test["differences"]
    parts = [part for part in next(iter(compared.values()), {}) if part.startswith("detail")]
    return table(
        ["points", *parts],
        [[title, *(interval(found[part]) for part in parts)] for title, found in compared.items()],
    )


def tables(tests: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables; docs/results.md shows a part of their rows and columns."""
    first = tests[next(iter(tests))]
    parts = (main_table(tests), length_table(first), short_table(first), control_table(first),
             category_table(first), difference_table(tests), detail_table(first))  # fmt: skip
    return "\n\n".join(parts)


def main() -> None:
    """Read, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", type=Path, metavar="JSON", help="what benchmarks/listening_again.py wrote")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="file for the figure")
    arguments = parser.parse_args()
    try:
        tests = json.loads(arguments.figures.read_text(encoding="utf-8"))["tests"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"{arguments.figures} is no file that benchmarks/listening_again.py wrote: {error!r}")
    print(tables(tests))
    if arguments.picture:
        draw(arguments.picture, tests[next(iter(tests))])


if __name__ == "__main__":
    main()
