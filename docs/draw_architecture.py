"""Draws the house: rooms of the package floor by floor, and which of them import which.

    python docs/draw_architecture.py docs/images/architecture.png

Rooms are folders, and single files of ``echo_agent/``. An arrow stands for imports by any file of a room, lazy ones and
those for types included; where a longer way leads to the same room, the short one is left out. A circle of files, or an
import that points up, ends with a message that names it and exit code 1; a test runs this check.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {"echo_agent": "echo_agent", "tools": "echo_agent.tools", "graphs": "echo_agent.graphs",
           "finetune": "echo_agent.finetune"}  # fmt: skip
"""Folders of the checkout, with the packages that they are installed as."""

FLOORS: tuple[tuple[str, ...], ...] = (
    ("terminal", "errors", "exit_codes", "forks", "text", "disk", "locks", "paths"),
    ("audio",),
    ("answers", "controls", "spans", "trajectory", "stores"),
    ("nano", "small", "families"),
    ("dialects", "messages", "tools"),
    ("engine",),
    ("chat",),
    ("graphs", "middleware"),
    ("rows", "scores", "results", "provenance"),
    ("agent", "evaluation"),
    ("finetune.data", "finetune.nano", "finetune.small", "finetune"),
    ("benchmarks", "pages", "serve"),
    ("conformance", "cli"),
)
"""Rooms from the ground up. Within a floor, a room may import those that stand before it."""
HOMES = {
    "rendering": "chat",
    "chat_options": "chat",
    "turns_chat": "chat",
    "asked": "agent",
    "chat_agent": "agent",
    "asking_tool": "agent",
    "folder": "paths",
    "shipped": "paths",
    "question_forms": "answers",
    "langgraph_server": "agent",
    "mcp_server": "agent",
    "one_run": "agent",
    "threads": "agent",
    "isolation": "agent",
    "traces": "agent",
    "results_file": "evaluation",
    "command": "cli",
    "inspect_tasks": "cli",
    "console": "terminal",
}
"""Files that share the room of another."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, without the front door ``echo_agent/__init__.py``."""
    found: dict[str, Path] = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            if name != "echo_agent":
                found[name] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield from (found for found in (inner if inner in known else node.module,) if found in known)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)


def graph() -> dict[str, set[str]]:
    """What each module imports."""
    known = modules()
    return {name: set(imports(path, known)) - {name} for name, path in known.items()}


def room_of(module: str) -> str:
    """The room that a module stands in."""
    parts = module.removeprefix("echo_agent.").split(".")
    if parts[0] == "finetune":
        return ".".join(parts[:2]) if len(parts) > 1 and parts[1] in ("data", "nano", "small") else "finetune"
    return HOMES.get(parts[0], parts[0])


def faults(found: Mapping[str, set[str]]) -> list[str]:
    """Circles of files, imports that point up, and rooms that stand on no floor."""
    rank = {room: number for number, room in enumerate(room for floor in FLOORS for room in floor)}
    wrong = [f"{name} stands on no floor" for name in found if room_of(name) not in rank]
    if wrong:
        return wrong
    for name, wanted in found.items():
        wrong += [
            f"{name} imports {other}, which stands above it"
            for other in sorted(wanted)
            if rank[room_of(other)] > rank[room_of(name)]
        ]
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        wrong.append(f"a circle of files: {' imports '.join(reversed(error.args[1]))}")
    return wrong


def draw(found: Mapping[str, set[str]], path: Path) -> None:
    """Draw rooms and arrows as PNG or SVG, by the suffix."""
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    from echo_agent.audio.picture import COLOURS, INK, PAGE, SOFT

    arrows = _reduced({(room_of(a), room_of(b)) for a, wanted in found.items() for b in wanted})
    size = (13.0, 1.25 * len(FLOORS))
    figure = Figure(figsize=size, facecolor=PAGE)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.axis("off")
    places: dict[str, tuple[float, float, float]] = {}
    for number, floor in enumerate(FLOORS):
        width = (size[0] - 1.0) / len(floor)
        for place, room in enumerate(floor):
            left, bottom = 0.5 + place * width + 0.12, 0.25 + 1.25 * number
            wide = min(width - 0.24, 7.0)
            left += (width - 0.24 - wide) / 2
            places[room] = (left, bottom, wide)
            colour = COLOURS[number % len(COLOURS)]
            axes.add_patch(
                FancyBboxPatch((left, bottom), wide, 0.72, boxstyle="round,pad=0.02,rounding_size=0.08",
                               facecolor=PAGE, edgecolor=colour, linewidth=1.6, zorder=3)
            )  # fmt: skip
            title = f"echo_agent.{room}" if room.startswith("finetune") else room
            axes.text(left + 0.12, bottom + 0.5, title, color=INK, fontsize=10, weight="bold",
                      zorder=4, va="center")  # fmt: skip
            shown = _fitted(_inside(room), int(wide * 15))
            axes.text(left + 0.12, bottom + 0.2, shown, color=SOFT, fontsize=7, zorder=4, va="center")
    order = list(places)
    for above, below in sorted(arrows, key=lambda pair: (order.index(pair[0]), order.index(pair[1]))):
        (x1, y1, w1), (x2, y2, w2) = places[above], places[below]
        start, end = (x1 + w1 / 2, y1), (x2 + w2 / 2, y2 + 0.72)
        if y1 == y2:
            start, end = (x1, y1 + 0.36), (x2 + w2, y2 + 0.36)
        bend = (
            0.0 if abs(y1 - y2) < 1.5 else 0.18 * (1 if (order.index(above) + order.index(below)) % 2 else -1)
        )
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color=SOFT, alpha=0.55,
                            linewidth=0.8, connectionstyle=f"arc3,rad={bend}", zorder=2)
        )  # fmt: skip
    figure.savefig(path, dpi=110, facecolor=PAGE)


def _reduced(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that no longer way stands for."""
    below: dict[str, set[str]] = {}
    for above, under in arrows:
        if above != under:
            below.setdefault(above, set()).add(under)

    def reached(room: str) -> set[str]:
        return {far for near in below.get(room, ()) for far in ({near} | reached(near))}

    return {
        (above, under)
        for above, unders in below.items()
        for under in unders
        if not any(under in reached(other) for other in unders - {under})
    }


def _inside(room: str) -> list[str]:
    """What stands in a room: its files and folders, or, of a single file, the words that it opens with."""
    *outer, last = room.split(".")
    folder = ROOT / "/".join((*outer, last)) if room in FOLDERS or outer else ROOT / "echo_agent" / room
    if not folder.is_dir():
        tree = ast.parse(folder.with_suffix(".py").read_text(encoding="utf-8"))
        return (ast.get_docstring(tree) or "").partition(". ")[0].partition("\n")[0].split(" ")
    folders = [f"{path.name}/" for path in sorted(folder.iterdir()) if (path / "__init__.py").exists()]
    files = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("__")]
    return [f"{name} " for name in (*folders, *files)]


def _fitted(names: list[str], room: int) -> str:
    """As many names as there is room for, in letters."""
    text = ""
    for name in names:
        longer = f"{text} {name}".lstrip()
        if len(longer) > room:
            return f"{text} ..."
        text = longer
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, and draw where a path is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "picture", type=Path, nargs="?", help="PNG or SVG to draw; only checked if none is named"
    )
    picture: Path | None = parser.parse_args(arguments).picture
    found = graph()
    if wrong := faults(found):
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    if picture is not None:
        draw(found, picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
