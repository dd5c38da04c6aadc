"""What listening again is worth: policies compared on the same tests, question by question.

    python benchmarks/listening_again.py RUNS DATASET results.json --names sft=SFT sft-rl="SFT + RL"

RUNS holds one folder for each run of ``echo-agent finetune``. Its name is that of the policy, with a seed where there
are several: ``sft-0``, ``sft-1``. In it are the results of ``echo-agent eval DATASET/core.jsonl --out
RUNS/sft-0/core.jsonl``, and those of the other tests of DATASET. Seeds of one policy are averaged.

For each policy and control: percent right, by difficulty, category and length of the recording; how many runs listened
again, seconds heard again, overlap with the gold spans, audio tokens. For each pair of policies, and for *on* and each
other control: the difference in points with its 95 % interval (paired bootstrap over questions), over all questions and
over parts of them. Two policies are compared on the questions that both were asked.

Writes every figure, with the records of the runs and of the data; ``listening_again_tables.py`` prints and draws them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_agent.errors import DataError, EchoAgentError
from echo_agent.results_file import Results
from echo_agent.rows import Row, read_rows
from echo_agent.scores import Outcome, overlap, paired_difference

LENGTHS = ((0, 30), (30, 60), (60, 90), (90, 150), (150, 10_000))
"""Seconds of recording that are reported together."""
SHORT = 60.0
"""Seconds of the longest recordings for which policies are compared apart, too: all that some were taught."""
TESTS = ("core", "unseen", "long")

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


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Percent right over questions, and how much was heard again."""
    scores = shares(outcomes)
    return {
        "right": round(100 * sum(scores.values()) / len(scores), 1),
        "questions": len(scores),
        "listened": sum(bool(outcome.relistens) for outcome in outcomes) / len(outcomes),
        "seconds_heard": sum(outcome.seconds_heard for outcome in outcomes) / len(outcomes),
    }


def length(row: Row) -> str:
    """Under which lengths a row is reported."""
    seconds = row.duration or 0.0
    first, last = next(span for span in LENGTHS if span[0] <= seconds < span[1])
    return f"{first}-{last} s" if last < LENGTHS[-1][1] else f"from {first} s"


def describe(rows: Mapping[str, Row], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything about one policy under one control."""
    groups: dict[str, dict[str, Any]] = {}
    for title, key in (
        ("difficulty", lambda row: row.difficulty),
        ("category", lambda row: row.category),
        ("length", length),
    ):
        members: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            members.setdefault(key(rows[outcome.id]), []).append(outcome)
        groups[title] = {name: summary(members[name]) for name in sorted(members) if name}
    met = [
        overlap([(s["start"], s["end"]) for s in outcome.relistens], rows[outcome.id].gold_spans)[1]
        for outcome in outcomes
        if outcome.relistens and rows[outcome.id].gold_spans
    ]
    count = len(outcomes)
    short = [outcome for outcome in outcomes if (rows[outcome.id].duration or 0) < 30]
    return {
        **summary(outcomes),
        **groups,
        "seeds": count / len({outcome.id for outcome in outcomes}),
        "unparsed": sum(outcome.status == "unparsed" for outcome in outcomes) / count,
        "listened_under_30_s": sum(bool(o.relistens) for o in short) / len(short) if short else None,
        "gold_iou": sum(met) / len(met) if met else None,
        "audio_tokens": sum(outcome.tokens["audio"] for outcome in outcomes) / count,
    }


def parts_of(rows: Mapping[str, Row]) -> dict[str, set[str]]:
    """Ids of the questions in which two policies are compared: all, those about detail, and both by length."""
    names = sorted({length(row) for row in rows.values()}, key=lambda name: int(re.findall(r"\d+", name)[0]))
    parts = {"all": set(rows)}
    parts |= {name: {id for id, row in rows.items() if length(row) == name} for name in names}
    parts[f"up to {SHORT:.0f} s"] = {id for id, row in rows.items() if (row.duration or 0.0) <= SHORT}
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


def read_outcomes(runs: Path, test: str, rows: Mapping[str, Row], names: Mapping[str, str]) -> Outcomes:
    """What the runs' policies answered to a test; those that were never asked it under *on* are left out."""
    found: Outcomes = {}
    for path in sorted(runs.glob(f"*/{test}.jsonl")):
        kept = Results(path)
        policy = re.sub(r"-\d+$", "", path.parent.name)
        by_control = found.setdefault(names.get(policy, policy), {})
        for outcome in kept.outcomes.values():
            if outcome.id in rows:
                by_control.setdefault(outcome.control, []).append(outcome)
        kept.close()
    return {name: by_control for name, by_control in found.items() if "on" in by_control}


def compare(rows: Mapping[str, Row], outcomes: Outcomes) -> dict[str, Any]:
    """Every figure of one test."""
    scores: dict[str, Scores] = {
        n: {c: shares(found) for c, found in by.items()} for n, by in outcomes.items()
    }
    short = {id: row for id, row in rows.items() if (row.duration or 0.0) <= SHORT}
    heard = {n: [outcome for outcome in by["on"] if outcome.id in short] for n, by in outcomes.items()}
    return {
        "scores": {n: {c: describe(rows, found) for c, found in by.items()} for n, by in outcomes.items()},
        "short": {n: describe(short, found) for n, found in heard.items() if found},
        "differences": differences(scores, parts_of(rows)),
    }


def name_of(text: str) -> tuple[str, str]:
    """``FOLDER=NAME``, taken apart."""
    folder, sign, name = text.partition("=")
    if not (folder and sign and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not FOLDER=NAME")
    return folder, name


def compare_runs(runs: Path, dataset: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """Every figure of all tests that somebody was asked; raises DataError where there is none."""
    tests: dict[str, Any] = {}
    for test in TESTS:
        rows = {row.id: row for row in read_rows(dataset / f"{test}.jsonl")}
        outcomes = read_outcomes(runs, test, rows, names)
        if outcomes:
            tests[test] = compare(rows, outcomes)
    if not tests:
        raise DataError(
            f"{runs}: no folder in it has results ({', '.join(f'{test}.jsonl' for test in TESTS)})"
        )
    return tests


def main() -> None:
    """Read, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of runs with their results")
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="EchoBench")
    parser.add_argument("out", type=Path, metavar="JSON", help="file to write")
    parser.add_argument("--names", type=name_of, metavar="FOLDER=NAME", nargs="+", default=[],
                        help="what a policy is called in tables and figures; by default, as its folder")  # fmt: skip
    arguments = parser.parse_args()
    runs: Path = arguments.runs
    lock: Path = arguments.dataset / "lock.json"
    if not lock.is_file():
        parser.error(f"{arguments.dataset}: it has no {lock.name}, so it is not EchoBench")
    try:
        tests = compare_runs(runs, arguments.dataset, dict(arguments.names))
    except EchoAgentError as error:
        parser.error(str(error))
    records = {path.parent.name: json.loads(path.read_text()) for path in sorted(runs.glob("*/run.json"))}
    data = json.loads(lock.read_text())["sets"]["train"]
    text = json.dumps({"training_set": data, "runs": records, "tests": tests}, indent=1)
    arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
