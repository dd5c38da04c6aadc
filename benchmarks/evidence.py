"""What listening again is worth: scores of several policies on one test, compared question by question.

    python benchmarks/evidence.py TEST.jsonl NAME=results.jsonl NAME=results.jsonl ... [--picture accuracy.png]

Results are what ``echo-agent eval --out`` writes. Files of one name are seeds of one policy: their scores are averaged,
and differences are taken within questions. For each policy and control: percent right, by difficulty, family and length
of the recording; share that listened, seconds heard again, overlap with the gold spans, audio tokens. For each pair of
policies, and of *on* with the other controls: the difference in points with its interval (95 %, bootstrap over
questions, paired). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_agent.evaluation import Results
from echo_agent.rows import Row, read_rows
from echo_agent.scores import Outcome, overlap, paired_difference, wilson

LENGTHS = ((0, 30), (30, 60), (60, 90), (90, 150), (150, 10_000))
"""Seconds of recording that are reported together."""

Scores = dict[str, dict[str, float]]
"""Control -> id of a question -> share of the seeds in which it was right."""


def shares(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """How often each question was right, over seeds."""
    found: dict[str, list[bool]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.id, []).append(outcome.correct)
    return {name: sum(right) / len(right) for name, right in found.items()}


def percent(
    scores: Mapping[str, float], wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Any] | None:
    """Mean in percent over the questions that are wanted, and how many they are."""
    chosen = [share for name, share in scores.items() if wanted(name)]
    return {"right": round(100 * sum(chosen) / len(chosen), 1), "questions": len(chosen)} if chosen else None


def length(row: Row) -> str:
    """Under which lengths a row is reported."""
    seconds = row.duration or 0.0
    first, last = next(span for span in LENGTHS if span[0] <= seconds < span[1])
    return f"{first}-{last} s" if last < LENGTHS[-1][1] else f"from {first} s"


def describe(rows: Mapping[str, Row], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything about one policy under one control."""
    scores = shares(outcomes)
    groups: dict[str, dict[str, Any]] = {}
    for title, key in (
        ("difficulty", lambda row: row.difficulty),
        ("family", lambda row: row.family),
        ("length", length),
    ):
        names = sorted({key(row) for row in rows.values()} - {""})
        found = {
            name: percent(scores, lambda id, name=name, key=key: key(rows[id]) == name) for name in names
        }
        groups[title] = {name: value for name, value in found.items() if value}
    met = [
        overlap([(s["start"], s["end"]) for s in outcome.relistens], rows[outcome.id].gold_spans)[1]
        for outcome in outcomes
        if outcome.relistens and rows[outcome.id].gold_spans
    ]
    count = len(outcomes)
    short = [outcome for outcome in outcomes if (rows[outcome.id].duration or 0) < 30]
    return {
        **(percent(scores) or {}),
        **groups,
        "seeds": count / max(1, len(scores)),
        "unparsed": sum(outcome.status == "unparsed" for outcome in outcomes) / count,
        "listened": sum(bool(outcome.relistens) for outcome in outcomes) / count,
        "listened_under_30_s": sum(bool(o.relistens) for o in short) / len(short) if short else None,
        "seconds_heard": sum(outcome.seconds_heard for outcome in outcomes) / count,
        "gold_iou": sum(met) / len(met) if met else None,
        "audio_tokens": sum(outcome.tokens["audio"] for outcome in outcomes) / count,
    }


def differences(found: Mapping[str, Scores], rows: Mapping[str, Row]) -> dict[str, Any]:
    """Differences in points between policies (*on*), and between *on* and the controls of each."""
    pairs = [
        (f"{one} - {other}", found[one]["on"], found[other]["on"])
        for one in found
        for other in found
        if one > other
    ]
    pairs += [
        (f"{name}: on - {control}", scores["on"], scores[control])
        for name, scores in found.items()
        for control in scores
        if control != "on"
    ]
    kinds = {"all": lambda _: True, "detail": lambda id: rows[id].difficulty == "detail"}
    return {
        title: {
            kind: paired_difference(
                {id: share for id, share in one.items() if wanted(id)},
                {id: share for id, share in other.items() if wanted(id)},
            )
            for kind, wanted in kinds.items()
        }
        for title, one, other in pairs
    }


def draw(path: Path, described: Mapping[str, Mapping[str, Any]]) -> None:
    """Accuracy against audio tokens, with 95 % intervals: a point per policy, all questions and those about detail."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    both = figure.subplots(1, 2, sharey=True)
    for axes, title, part in ((both[0], "all questions", None), (both[1], "about detail", "detail")):
        for name, controls in described.items():
            on = controls["on"]
            found = on if part is None else on["difficulty"].get(part)
            if found is None:
                continue
            low, high = wilson(round(found["right"] * found["questions"] / 100), found["questions"])
            error = [[found["right"] - 100 * low], [100 * high - found["right"]]]
            axes.errorbar(on["audio_tokens"], found["right"], error, fmt="o", capsize=3)
            axes.annotate(
                name, (on["audio_tokens"], found["right"]), textcoords="offset points", xytext=(6, 5)
            )
        axes.set(title=title, xlabel="audio tokens per question")
        axes.grid(alpha=0.3)
    both[0].set_ylabel("right (%)")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("test", type=Path, help="the questions")
    parser.add_argument("results", nargs="+", metavar="NAME=FILE", help="results of a policy")
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    arguments = parser.parse_args()
    rows = {row.id: row for row in read_rows(arguments.test)}
    outcomes: dict[str, dict[str, list[Outcome]]] = {}
    for text in arguments.results:
        name, equals, path = text.partition("=")
        if not equals or not Path(path).is_file():
            parser.error(f"{text}: NAME=FILE of results is expected")
        kept = Results(path)
        for outcome in kept.outcomes.values():
            if outcome.id in rows:
                outcomes.setdefault(name, {}).setdefault(outcome.control, []).append(outcome)
        kept.close()
    described = {n: {c: describe(rows, found) for c, found in by.items()} for n, by in outcomes.items()}
    scores: dict[str, Scores] = {
        n: {c: shares(found) for c, found in by.items()} for n, by in outcomes.items()
    }
    print(json.dumps({"scores": described, "differences": differences(scores, rows)}))
    if arguments.picture:
        draw(arguments.picture, described)


if __name__ == "__main__":
    main()
