"""What asking with all controls together is worth, against asking one run after another.

The questions are the first of a file (EchoBench's core, or the examples), each under every control. *Together* is
``evaluate`` as ``echo-agent eval`` calls it: rows are decoded as one batch, and the controls of a row are one run
until the policy first calls. *One at a time* is each question under each control by
itself, with an agent that has heard nothing before; its time is taken on some of the questions and counted up. Times
are seconds of the clock, and in ``processor`` seconds of the processor, which other programs change less.

    python benchmarks/evaluate.py [QUESTIONS.jsonl] [--questions 200] [--alone 20] [--model echo-nano]
    python benchmarks/evaluate.py --hour [--model echo-nano]

Prints one JSON line. ``ratio`` is one at a time over together (goal: at least 5 on two cores). ``different`` counts
answers of the runs that both made which are not the same. With ``--hour`` the examples are played in turn for an hour,
and it is asked about: ``first`` is the first question, with the first listen (goal: under a minute on two cores), and
``further`` the median of the others (goal: under two seconds).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import soundfile

from echo_agent import EchoAgent, Recording, load_family
from echo_agent.controls import Condition
from echo_agent.evaluation import CONDITIONS, can_be_asked, evaluate
from echo_agent.families.base import Family
from echo_agent.results_file import Results
from echo_agent.rows import Row, read_rows

EXAMPLES = Path(__file__).parents[1] / "examples" / "questions.jsonl"
HOUR = 3600.0
RATE = 16_000
ASKED = (
    "When is a bell heard?",
    "When is a telephone heard?",
    "Is a wolf heard?",
    "When does the saw begin?",
    "Is a harp heard?",
    "When is thunder heard?",
)


@dataclass(frozen=True)
class Spent:
    """Seconds of some work."""

    clock: float = 0.0
    processor: float = 0.0

    @classmethod
    def now(cls) -> Spent:
        """What both clocks say."""
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.clock + other.clock, self.processor + other.processor)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.clock - other.clock, self.processor - other.processor)

    def __mul__(self, times: float) -> Spent:
        return Spent(self.clock * times, self.processor * times)


def timed(
    family: Family, rows: list[Row], controls: Sequence[Condition], concurrency: int
) -> tuple[Spent, Results]:
    """Ask rows under some controls with an agent that has heard nothing yet; seconds, and what came of it."""
    results = Results(None)
    with EchoAgent(family) as agent:
        began = Spent.now()
        asyncio.run(evaluate(agent, rows, results, controls=controls, concurrency=concurrency))
        return Spent.now() - began, results


def one_at_a_time(family: Family, rows: list[Row]) -> tuple[Spent, Results]:
    """Ask every row under every control by itself: nothing is shared but the loaded model."""
    seconds, joined = Spent(), Results(None)
    for row in rows:
        for control in CONDITIONS:
            if can_be_asked(row, control):
                spent, results = timed(family, [row], [control], 1)
                seconds += spent
                joined.outcomes |= results.outcomes
    return seconds, joined


def an_hour(path: Path) -> None:
    """Write the examples in turn, one after the other, for an hour."""
    played = [
        Recording.open(row.audio).read(rate=RATE)
        for row in {r.audio: r for r in read_rows(EXAMPLES)}.values()
    ]
    left = round(HOUR * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        while left > 0:
            for samples in played:
                file.write(samples[:left])
                left = max(0, left - len(samples))


def hour(family: Family) -> dict[str, Any]:
    """Ask about an hour."""
    with tempfile.TemporaryDirectory() as folder, EchoAgent(family) as agent:
        path = Path(folder) / "hour.flac"
        an_hour(path)
        spent: list[Spent] = []
        for question in ASKED:
            began = Spent.now()
            result = agent.ask(path, question, max_relistens=5)
            spent.append(Spent.now() - began)
    first, *further = spent
    return {
        "seconds": HOUR,
        "first": round(first.clock, 2),
        "further": round(median(one.clock for one in further), 2),
        "processor": {
            "first": round(first.processor, 2),
            "further": round(median(one.processor for one in further), 2),
        },
        "ratio": round(HOUR / first.clock, 1),
        "listens": None if result.search is None else len(result.search.listens),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", default=EXAMPLES)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--alone", type=int, default=20)
    parser.add_argument("--model", default="echo-nano")
    parser.add_argument("--hour", action="store_true")
    args = parser.parse_args()
    if args.hour:
        print(json.dumps(hour(load_family(args.model, "cpu", "auto"))))
        return
    rows = read_rows(args.file)[: args.questions]
    alone = rows[:: max(1, len(rows) // args.alone)][: args.alone]
    family = load_family(args.model, "cpu", "auto")
    timed(family, rows[:2], ["on"], 2)  # the first calls of all warm up
    together, results = timed(family, rows, CONDITIONS, 32)
    singly, single = one_at_a_time(family, alone)
    different = sum(
        results.outcomes[key].answer != outcome.answer for key, outcome in single.outcomes.items()
    )
    singly = singly * (len(rows) / len(alone))
    found = {
        "questions": len(rows),
        "runs": len(results.outcomes),
        "together": round(together.clock, 2),
        "one_at_a_time": round(singly.clock, 2),
        "ratio": round(singly.clock / together.clock, 2),
        "processor": {
            "together": round(together.processor, 2),
            "one_at_a_time": round(singly.processor, 2),
            "ratio": round(singly.processor / together.processor, 2),
        },
        "compared": len(single.outcomes),
        "different": different,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
