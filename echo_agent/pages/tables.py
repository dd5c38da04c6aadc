"""The tables of an evaluation, and how a paper prints them (Markdown)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A head and rows of texts."""

    head: list[str]
    rows: list[list[str]]

    @property
    def markdown(self) -> str:
        """As Markdown; what is not in the first column stands to the right."""
        lines = [self.head, ["---", *["---:"] * (len(self.head) - 1)], *self.rows]
        return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def markdown(summary: dict[str, Any]) -> str:
    """Scores with intervals, what controls differ in, and scores by group; what it is over stands below."""
    parts = [scores_table(summary).markdown]
    if summary["differences"]:
        parts.append(differences_table(summary).markdown)
    parts += [group_table(summary, kind).markdown for kind in kinds(summary)]
    return "\n\n".join([f"# {summary['benchmark']}, {summary['model']}", *parts, notes(summary)]) + "\n"


def scores_table(summary: dict[str, Any]) -> Table:
    """A row per control."""
    rows = [
        [
            control,
            percent(score["official"]),
            percent(score["strict"]),
            number(score.get("unparsed"), 0),
            share(score.get("listened")),
            number(score["audio_tokens"], 0),
            number(score.get("seconds_heard"), 1),
        ]
        for control, score in summary["controls"].items()
    ]
    if any("mIoU" in score["strict"] for score in summary["controls"].values()):
        for row, score in zip(rows, summary["controls"].values(), strict=True):
            row += [f"{score['strict'][key]:.3f}" for key in ("mIoU", "R@0.3", "R@0.5", "R@0.7")]
    head = [
        "control",
        "official, % (95 %)",
        "strict, % (95 %)",
        "unparsed",
        "listened again",
        "audio tokens",
        "s heard again",
    ]
    return Table([*head, "mIoU", "R@0.3", "R@0.5", "R@0.7"][: len(rows[0])], rows)


def differences_table(summary: dict[str, Any]) -> Table:
    """A row per pair of controls: points, mended, spoiled, p."""
    rows = [
        [
            f"{apart['one']} − {apart['other']}",
            f"{apart['points']:+.1f} ({apart['low']:+.1f} to {apart['high']:+.1f})",
            str(apart["mended"]),
            str(apart["spoiled"]),
            "" if apart["p"] is None else f"{apart['p']:.2g}",
            str(apart["n"]),
        ]
        for apart in summary["differences"]
    ]
    return Table(["strict score", "points (95 %)", "mended", "spoiled", "McNemar p", "questions"], rows)


def group_table(summary: dict[str, Any], kind: str) -> Table:
    """The strict score by group, a column per control."""
    controls = summary["controls"]
    names = dict.fromkeys(name for score in controls.values() for name in score["groups"].get(kind, ()))
    rows = []
    for name in names:
        found = [score["groups"].get(kind, {}).get(name) for score in controls.values()]
        asked = next(group["n"] for group in found if group is not None)
        rows.append([name, str(asked), *("" if group is None else percent(group) for group in found)])
    return Table([kind.replace("_", "-"), "questions", *controls], rows)


def kinds(summary: dict[str, Any]) -> list[str]:
    """What scores are grouped by."""
    return list(dict.fromkeys(kind for score in summary["controls"].values() for kind in score["groups"]))


def notes(summary: dict[str, Any]) -> str:
    """What the scores are over, and what they were made with."""
    guided = "limited to the choices" if summary["guided"] else "free"
    chance = (
        "" if summary["chance"] is None else f" Drawing a choice is right in {100 * summary['chance']:.1f} %."
    )
    left_out = f" {len(summary['left_out'])} rows could not be asked." if summary["left_out"] else ""
    failed = f" {len(summary['failed'])} runs could not be made." if summary["failed"] else ""
    unscored = (
        f" {summary['unscored']} are not scored: their answers are withheld." if summary["unscored"] else ""
    )
    last = summary["seed"] + summary["seeds"] - 1
    seeds = f"seed {last}" if summary["seeds"] == 1 else f"seeds {summary['seed']} to {last}"
    return (
        f"Asked: {summary['rows']} of {summary['rows_in_file']} rows.{left_out}{failed}{unscored}{chance} "
        f"Official rule: {summary['official_rule']}. Strict: everything asked is divided by, what cannot be read is "
        f"wrong, nothing is guessed. Model {summary['made_by']}, echo-agent {summary['version']}, {seeds}, "
        f"temperature {summary['temperature']:g}, "
        f"at most {summary['max_relistens']} re-listens, answers {guided}, "
        f"questions {summary['questions_hash']}."
    )


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def percent(score: dict[str, Any]) -> str:
    """A score with its interval, in percent."""
    if score["accuracy"] is None:
        return "not scored"
    low, high = score["interval"]
    over = f", over {score['over']} of {score['n']}" if score["over"] < score["n"] else ""
    return f"{100 * score['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f}{over})"


def share(value: float | None) -> str:
    """A share in percent."""
    return "" if value is None else f"{100 * value:.0f} %"


def number(value: float | None, digits: int) -> str:
    """A number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"
