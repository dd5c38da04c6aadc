"""What listening again is worth: several policies on the same tests, compared question by question.

    python benchmarks/evidence.py RUNS DATASET [--out evidence.json] [--picture accuracy.png]

RUNS holds a folder for each run of ``echo-agent finetune``, called by its policy and, where there are several, a seed:
``a0``, ``b0``, ``b1``. In it stand the results of ``echo-agent eval DATASET/core.jsonl --out RUNS/b0/core.jsonl``, and
of the other tests of DATASET alike. Seeds of one policy are averaged, and differences are taken within questions.

For each policy and control: percent right, by difficulty, family and length of the recording; share that listened,
seconds heard again, overlap with the gold spans, audio tokens. For each pair of policies, and of *on* with the other
controls: the difference in points with its interval (95 %, bootstrap over questions, paired), in all and in parts. A
policy that was asked fewer questions than another is compared with it on those.

Prints tables in markdown; ``--out`` writes every figure, with the records of the runs and of the data.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_agent.errors import EchoAgentError
from echo_agent.evaluation import Results
from echo_agent.rows import Row, read_rows
from echo_agent.scores import Outcome, overlap, paired_difference, wilson

LENGTHS = ((0, 30), (30, 60), (60, 90), (90, 150), (150, 10_000))
"""Seconds of recording that are reported together."""
CEILING = 60.0
"""Seconds of the longest recordings that the costliest policy (d) was trained on."""
WIDE = 4
"""Times that one policy has the audio tokens of another where they are drawn on a logarithmic scale."""
TESTS = ("core", "unseen", "long")
CONTROLS = ("on", "off", "wrong-crop", "silence")

Outcomes = dict[str, dict[str, list[Outcome]]]
"""Policy -> control -> outcomes of all its seeds."""
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


def parts_of(rows: Mapping[str, Row]) -> dict[str, set[str]]:
    """Ids of the questions in which two policies are compared: all, those about detail, and both by length."""
    names = sorted({length(row) for row in rows.values()}, key=lambda name: int(re.findall(r"\d+", name)[0]))
    parts = {"all": set(rows)}
    parts |= {name: {id for id, row in rows.items() if length(row) == name} for name in names}
    parts[f"up to {CEILING:.0f} s"] = {id for id, row in rows.items() if (row.duration or 0.0) <= CEILING}
    detail = {id for id, row in rows.items() if row.difficulty == "detail"}
    named = {"detail" if name == "all" else f"detail, {name}": ids & detail for name, ids in parts.items()}
    return parts | named


def differences(found: Mapping[str, Scores], parts: Mapping[str, set[str]]) -> dict[str, Any]:
    """Differences in points between policies (*on*), and between *on* and the controls of each."""
    pairs = [
        (f"{one} over {other}", found[one]["on"], found[other]["on"])
        for one in found
        for other in found
        if one != other
    ]
    pairs += [
        (f"{name}, on over {control}", scores["on"], scores[control])
        for name, scores in found.items()
        for control in scores
        if control != "on"
    ]
    return {
        title: {
            part: paired_difference({id: share for id, share in one.items() if id in ids}, other)
            for part, ids in parts.items()
        }
        for title, one, other in pairs
    }


def draw(path: Path, test: Mapping[str, Any]) -> None:
    """Accuracy against audio tokens, with 95 % intervals: a point per policy.

    All questions, those about detail, and those on recordings that the costliest policy was asked about too.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 4), layout="constrained")
    colours = {name: f"C{number}" for number, name in enumerate(test["scores"])}
    whole = {name: test["scores"][name]["on"] for name in asked_all(test)}
    panels = (
        ("all questions", whole, None),
        ("about detail", whole, "detail"),
        (f"recordings of at most {CEILING:.0f} s", test["short"], None),
    )
    for axes, (title, described, part) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        for name, on in described.items():
            found = on if part is None else on["difficulty"].get(part)
            if found is None:
                continue
            low, high = wilson(round(found["right"] * found["questions"] / 100), found["questions"])
            error = [[found["right"] - 100 * low], [100 * high - found["right"]]]
            place = (on["audio_tokens"], found["right"])
            axes.errorbar(*place, error, fmt="o", capsize=3, color=colours[name])
            axes.annotate(name, place, textcoords="offset points", xytext=(6, 5))
        axes.set(title=title, xlabel="audio tokens per question")
        axes.grid(alpha=0.3)
        axes.margins(x=0.15)
        if title == panels[0][0]:
            axes.set_ylabel("right (%)")
        tokens = [on["audio_tokens"] for on in described.values()]
        if max(tokens) > WIDE * min(tokens):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:.0f}")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.savefig(path, dpi=110)


def asked_all(test: Mapping[str, Any]) -> list[str]:
    """Policies that were asked every question of a test."""
    asked = {name: by["on"]["questions"] for name, by in test["scores"].items()}
    return [name for name, count in asked.items() if count == max(asked.values())]


# --- tables -----------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def right(found: Mapping[str, Any] | None) -> str:
    """Percent right, as it stands in a table."""
    return f"{found['right']:.1f}" if found else ""


def both(described: Mapping[str, Any] | None) -> tuple[str, str]:
    """Percent right of all and of those about detail."""
    return right(described), right(described["difficulty"].get("detail")) if described else ""


def interval(found: Mapping[str, float] | None) -> str:
    """A difference with its interval."""
    return f"{found['points']} ({found['low']} to {found['high']})" if found else ""


def tables(tests: Mapping[str, Mapping[str, Any]]) -> str:
    """What the page about the evidence shows."""
    first, *_ = tests
    scores = tests[first]["scores"]
    lengths = list(next(iter(scores.values()))["on"]["length"])
    by_test, by_length, by_control = [], [], []
    for name in asked_all(tests[first]):
        controls, on = scores[name], scores[name]["on"]
        cells = [tests[test]["scores"].get(name, {}).get("on") for test in tests]
        by_test.append([name, *(text for cell in cells for text in both(cell))])
        heard = [f"{on['audio_tokens']:.0f}", "", "", "", ""]
        if on["listened"] > 0.01:
            short = on["listened_under_30_s"]
            heard[1:] = [
                f"{100 * on['listened']:.0f} %",
                "" if short is None else f"{100 * short:.0f} %",
                f"{on['seconds_heard']:.1f}",
                "" if on["gold_iou"] is None else f"{on['gold_iou']:.2f}",
            ]
        by_length.append([name, *(right(on["length"].get(span)) for span in lengths), *heard])
        if len(controls) > 1:
            given = [controls.get(control) for control in CONTROLS]
            for part, cells in zip(("all", "detail"), zip(*map(both, given), strict=True), strict=True):
                by_control.append([f"{name}, {part}", *cells])
    compared = tests[first]["differences"]
    parts = [part for part in next(iter(compared.values()), {}) if part.startswith("detail")]
    pairs = [[title, *(interval(found[part]) for part in parts)] for title, found in compared.items()]
    wide = ["", *(f"{test}, {part}" for test in tests for part in ("all", "detail"))]
    others = [
        [
            title,
            *(
                interval(tests[test]["differences"][title][part])
                for test in tests
                for part in ("all", "detail")
            ),
        ]
        for title in compared
        if all(title in tests[test]["differences"] for test in tests)
    ]
    return "\n\n".join(
        (
            table(["", *(text for test in tests for text in (test, "its detail"))], by_test),
            table(
                ["", *lengths, "audio tokens", "listened", "below 30 s", "seconds heard again", "overlap"],
                by_length,
            ),
            table(
                [f"up to {CEILING:.0f} s", "right", "detail", "audio tokens"],
                [
                    [name, *both(on), f"{on['audio_tokens']:.0f}"]
                    for name, on in tests[first]["short"].items()
                ],
            ),
            table(["", *CONTROLS], by_control),
            table(["", *parts], pairs),
            table(wide, others),
        )
    )


# --- the command ------------------------------------------------------------------------------------------------------


def read_outcomes(runs: Path, test: str, rows: Mapping[str, Row]) -> Outcomes:
    """What the runs' policies answered to a test; those that were never asked it under *on* are left out."""
    found: Outcomes = {}
    for path in sorted(runs.glob(f"*/{test}.jsonl")):
        kept = Results(path)
        for outcome in kept.outcomes.values():
            if outcome.id in rows:
                by_control = found.setdefault(path.parent.name.rstrip("0123456789"), {})
                by_control.setdefault(outcome.control, []).append(outcome)
        kept.close()
    return {name: by_control for name, by_control in found.items() if "on" in by_control}


def compare(rows: Mapping[str, Row], outcomes: Outcomes) -> dict[str, Any]:
    """Every figure of one test."""
    scores: dict[str, Scores] = {
        n: {c: shares(found) for c, found in by.items()} for n, by in outcomes.items()
    }
    short = {id: row for id, row in rows.items() if (row.duration or 0.0) <= CEILING}
    heard = {n: [outcome for outcome in by["on"] if outcome.id in short] for n, by in outcomes.items()}
    return {
        "scores": {n: {c: describe(rows, found) for c, found in by.items()} for n, by in outcomes.items()},
        "short": {n: describe(short, found) for n, found in heard.items() if found},
        "differences": differences(scores, parts_of(rows)),
    }


def main() -> None:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of runs with their results")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="EchoBench")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    arguments = parser.parse_args()
    runs: Path = arguments.runs
    tests: dict[str, Any] = {}
    lock: Path = arguments.dataset / "lock.json"
    if arguments.out and not lock.is_file():
        parser.error(f"{arguments.dataset}: it has no {lock.name}, so it is not EchoBench")
    for test in TESTS:
        try:
            rows = {row.id: row for row in read_rows(arguments.dataset / f"{test}.jsonl")}
            outcomes = read_outcomes(runs, test, rows)
        except EchoAgentError as error:
            parser.error(str(error))
        if outcomes:
            tests[test] = compare(rows, outcomes)
    if not tests:
        parser.error(f"{runs}: no folder in it has results ({', '.join(f'{test}.jsonl' for test in TESTS)})")
    print(tables(tests))
    if arguments.out:
        records = {path.parent.name: json.loads(path.read_text()) for path in sorted(runs.glob("*/run.json"))}
        data = json.loads(lock.read_text())["sets"]["train"]
        text = json.dumps({"training_set": data, "runs": records, "tests": tests}, indent=1)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    if arguments.picture:
        draw(arguments.picture, tests[next(iter(tests))])


if __name__ == "__main__":
    main()
