"""What asking with all controls together is worth, against asking one run after another.

The questions are the first of a file (EchoBench's core, or the examples), each under every control. *Together* is
``evaluate`` as ``echo-agent eval`` calls it: rows are decoded as one batch, and the controls of a row are one run
until the policy first calls. *One at a time* is each question under each control by
itself, with an agent that has heard nothing before; its time is taken on some of the questions and counted up. Times
are seconds.

    python benchmarks/evaluate.py [QUESTIONS.jsonl] [--questions 200] [--alone 20] [--model echo-nano]

Prints one JSON line. ``ratio`` is one at a time over together (goal: at least 5 on two cores). ``different`` counts
answers of the runs that both made which are not the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from echo_agent import EchoAgent, load_family
from echo_agent.controls import Condition
from echo_agent.evaluation import CONDITIONS, can_be_asked, evaluate
from echo_agent.families.base import Family
from echo_agent.results_file import Results
from echo_agent.rows import Row, read_rows

EXAMPLES = Path(__file__).parents[1] / "examples" / "questions.jsonl"


def timed(
    family: Family, rows: list[Row], controls: Sequence[Condition], concurrency: int
) -> tuple[float, Results]:
    """Ask rows under some controls with an agent that has heard nothing yet; seconds, and what came of it."""
    results = Results(None)
    with EchoAgent(family) as agent:
        began = time.perf_counter()
        asyncio.run(evaluate(agent, rows, results, controls=controls, concurrency=concurrency))
        return time.perf_counter() - began, results


def one_at_a_time(family: Family, rows: list[Row]) -> tuple[float, Results]:
    """Ask every row under every control by itself: nothing is shared but the loaded model."""
    seconds, joined = 0.0, Results(None)
    for row in rows:
        for control in CONDITIONS:
            if can_be_asked(row, control):
                spent, results = timed(family, [row], [control], 1)
                seconds += spent
                joined.outcomes |= results.outcomes
    return seconds, joined


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, nargs="?", default=EXAMPLES)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--alone", type=int, default=20)
    parser.add_argument("--model", default="echo-nano")
    args = parser.parse_args()
    rows = read_rows(args.file)[: args.questions]
    alone = rows[:: max(1, len(rows) // args.alone)][: args.alone]
    family = load_family(args.model, "cpu", "auto")
    timed(family, rows[:2], ["on"], 2)  # the first calls of all warm up
    together, results = timed(family, rows, CONDITIONS, 32)
    singly, single = one_at_a_time(family, alone)
    different = sum(
        results.outcomes[key].answer != outcome.answer for key, outcome in single.outcomes.items()
    )
    per_question = singly / len(alone)
    found = {
        "questions": len(rows),
        "runs": len(results.outcomes),
        "together": round(together, 2),
        "one_at_a_time": round(per_question * len(rows), 2),
        "ratio": round(per_question * len(rows) / together, 2),
        "compared": len(single.outcomes),
        "different": different,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
