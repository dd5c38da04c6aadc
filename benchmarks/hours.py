"""How often something that sounds once in an hour is found, and what an hour costs.

Mixes the first recordings of EchoBench's sets *hour_sparse* and *hour_dense* (20 to 90 minutes, from the test split of
a sound bank) and asks their questions twice: with a search of at most six listens of 48 audio tokens
(``max_relistens=5``), and with the one listen to the whole, which costs as much as each of them (``max_relistens=0``).
*Found* says that the stretch that the question was asked of holds all of the first gold span; *correct* is what the
evaluation calls so. Questions whose choices are times tell where to listen, so *open* counts those of no such choices
apart.

    python benchmarks/hours.py BANK OUT [--scenes 2] [--questions 12] [--model echo-nano]

Writes a line per question to ``OUT/hours.jsonl`` and prints one JSON line; with a file that is begun, it goes on where
that ends. ``ratio`` is the share of questions that are answered rightly after a search (goal: 0.6, where one listen is
at chance), with Wilson's interval at 95 %. Times are seconds of the processor and, in
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
from echo_agent.graphs.clocks import second_of
from echo_agent.scores import wilson

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
        "record": sample.record,
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
    path = args.out / "hours.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["id"], row["relistens"]) for row in rows}
    with EchoAgent.from_pretrained(args.model, "cpu") as agent, path.open("a") as file:
        heard: set[str] = set()
        for name, sample in samples:
            for relistens in (0, LISTENS - 1):
                if (sample.id, relistens) in done:
                    continue
                row = asked(agent, args.out, name, sample, relistens)
                row["first"] = sample.audio not in heard
                heard.add(sample.audio)
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
    print(json.dumps(summary(rows)))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all questions."""
    searched = [row for row in rows if row["relistens"]]
    once = {row["id"]: row for row in rows if not row["relistens"]}
    first = [row for row in rows if row["first"]]
    further = [row for row in searched if not row["first"]]
    chance = [1 / len(row["choices"]) for row in searched if row["choices"]]

    def figures(some: list[dict[str, Any]]) -> dict[str, Any]:
        right = sum(row["correct"] for row in some)
        blind = [once[row["id"]] for row in some if row["id"] in once]
        return {
            "questions": len(some),
            "found": sum(row["found"] for row in some),
            "correct": right,
            "interval": [round(bound, 3) for bound in wilson(right, len(some))],
            "one_listen": sum(row["correct"] for row in blind),
            "one_listen_interval": [
                round(bound, 3) for bound in wilson(sum(row["correct"] for row in blind), len(blind))
            ],
        }

    def by(key: str) -> dict[str, Any]:
        names = dict.fromkeys(row[key] for row in searched)
        return {name: figures([row for row in searched if row[key] == name]) for name in names}

    return {
        "ratio": round(sum(row["correct"] for row in searched) / len(searched), 3),
        **figures(searched),
        "chance": round(sum(chance) / max(1, len(searched)), 3),
        "most_listens": max(row["listens"] for row in searched),
        "recordings": len({row["record"] for row in searched}),
        "open": figures([row for row in searched if not is_time(row)]),
        "sets": by("set"),
        "categories": by("category"),
        "first_per_hour": round(3600 * median(row["process"] / row["seconds"] for row in first), 1),
        "first_per_hour_wall": round(3600 * median(row["wall"] / row["seconds"] for row in first), 1),
        "further": round(median(row["process"] for row in further), 2),
        "further_wall": round(median(row["wall"] for row in further), 2),
    }


def is_time(row: dict[str, Any]) -> bool:
    """Whether the choices of a question are seconds of the recording."""
    return bool(row["choices"]) and all(second_of(choice) is not None for choice in row["choices"])


if __name__ == "__main__":
    main()
