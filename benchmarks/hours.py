"""How often something that sounds once in an hour is found, and what an hour costs.

Mixes the first recordings of EchoBench's sets *hour_sparse* and *hour_dense* (20 to 90 minutes, from the test split of
a sound bank) and asks their questions twice: with a search of at most six listens of 48 audio tokens
(``max_relistens=5``), and with the one listen to the whole, which costs as much as each of them (``max_relistens=0``).
*Found* says that the stretch that the question was asked of holds all of the first gold span; *correct* is what the
evaluation calls so.

    python benchmarks/hours.py BANK OUT [--scenes 2] [--questions 12] [--model echo-nano]

Writes a line per question to ``OUT/hours.jsonl`` and prints one JSON line. ``ratio`` is the share of questions that are
answered rightly after a search (goal: 0.6, where one listen is at chance). Times are seconds of the processor and, in
names that end in ``wall``, of the clock; *first* is the first listen to an hour (goal: under a minute on two cores),
*further* each question after it (goal: under two seconds).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from echo_agent import EchoAgent, EchoResult
from echo_agent.finetune.data.echobench import HOURS, _grammar, _mixed
from echo_agent.finetune.data.pipeline import QuestionSet, questions_of
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.data.tally import Tally

LISTENS = 6


def questions(bank: Path, out: Path, scenes: int, most: int, seed: int) -> list[tuple[str, Sample]]:
    """The questions of both sets, those about one recording in a row."""
    found: list[tuple[str, Sample]] = []
    for number, which in enumerate(HOURS):
        records = _mixed(bank, out, which, scenes, seed + number, 1, None)
        grammar = _grammar(which, seed + number, "sentences", 8)
        asked = QuestionSet(which.name, records, replace_most(grammar, most), None)
        found += [(which.name, sample) for sample in questions_of(out, asked, Tally())[: most * scenes]]
    return found


def replace_most(grammar: Any, most: int) -> Any:
    """The grammar with so many questions per recording."""
    return grammar.model_copy(update={"most": most, "fewest": most})


def asked(agent: EchoAgent, out: Path, name: str, sample: Sample, relistens: int) -> dict[str, Any]:
    """Ask one question, and say what came of it."""
    wall, spent = time.perf_counter(), time.process_time()
    result = agent.ask(out / sample.audio, sample.question, sample.choices, max_relistens=relistens)
    return {
        "set": name,
        "id": sample.id,
        "seconds": sample.duration,
        "category": sample.category,
        "relistens": relistens,
        "listens": listens(result),
        "found": holds(result, sample),
        "correct": sample.is_right(result.answer),
        "answer": result.answer,
        "window": result.search.window if result.search else None,
        "gold": sample.gold_spans,
        "choices": sample.choices,
        "process": round(time.process_time() - spent, 2),
        "wall": round(time.perf_counter() - wall, 2),
    }


def listens(result: EchoResult) -> int:
    """Listens of a run, those of the search included; the one to the window that was found is one of these."""
    return (len(result.search.listens) if result.search else 1) + len(result.relistens)


def holds(result: EchoResult, sample: Sample) -> bool:
    """Whether the question was asked of a stretch that holds the first gold span."""
    window = result.search.window if result.search else None
    start, end = sample.gold_spans[0]
    return window is not None and window[0] <= start and end <= window[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bank", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=2)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--model", default="echo-nano")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    samples = questions(args.bank, args.out, args.scenes, args.questions, args.seed)
    rows: list[dict[str, Any]] = []
    first: list[dict[str, Any]] = []
    with EchoAgent.from_pretrained(args.model, "cpu") as agent, (args.out / "hours.jsonl").open("w") as file:
        heard: set[str] = set()
        for name, sample in samples:
            for relistens in (0, LISTENS - 1):
                row = asked(agent, args.out, name, sample, relistens)
                (rows if sample.audio in heard or relistens else first).append(row)
                heard.add(sample.audio)
                file.write(json.dumps(row) + "\n")
                file.flush()
    every = rows + first
    print(json.dumps(summary(every, first, rows)))


def summary(
    every: list[dict[str, Any]], first: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """The figures of all questions."""
    searched = [row for row in every if row["relistens"]]
    once = [row for row in every if not row["relistens"]]

    def share(some: list[dict[str, Any]], what: str) -> float | None:
        return round(sum(row[what] for row in some) / len(some), 3) if some else None

    by_set = {
        name: {
            "questions": len(some),
            "found": share(some, "found"),
            "correct": share(some, "correct"),
            "one_listen": share([row for row in once if row["set"] == name], "correct"),
        }
        for name in (which.name for which in HOURS)
        if (some := [row for row in searched if row["set"] == name])
    }
    chance = [1 / len(row["choices"]) for row in searched if row["choices"]]
    return {
        "ratio": share(searched, "correct"),
        "found": share(searched, "found"),
        "one_listen": share(once, "correct"),
        "chance": round(sum(chance) / max(1, len(searched)), 3),
        "questions": len(searched),
        "most_listens": max(row["listens"] for row in searched),
        "sets": by_set,
        "first_per_hour": round(3600 * median(row["process"] / row["seconds"] for row in first), 1),
        "first_per_hour_wall": round(3600 * median(row["wall"] / row["seconds"] for row in first), 1),
        "further": round(median(row["process"] for row in rows), 2),
        "further_wall": round(median(row["wall"] for row in rows), 2),
    }


if __name__ == "__main__":
    main()
