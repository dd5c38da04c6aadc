"""What batching is worth: 32 graph runs at once, against the same 32 one after another on the same engine.

The runs are the 24 questions of the examples of this repository and eight more about the same 12 recordings (11 minutes
of audio). A run may listen again; the model decides. Two measurements, each with both sides warm and in turns:

- *stored*: the features of all recordings and crops are in the store, as in the second epoch of training or when many
  questions are asked about the same recordings; keys and values are dropped before each side begins;
- *cold*: the stores are empty. Every pass gets copies of the recordings that differ in one sample. Either side encodes
  each recording once, and encoding keeps the machine busy whether batched or not: its share bounds what batching can
  gain.

Times are seconds of all 32 runs, medians over the passes. ``wall`` is the clock; the others add up what the engine
spent on the runs; the rest of the clock is spent in the graph, the chat model and the event loop.

    python benchmarks/batched_graphs.py [--model echo-nano] [--passes 3]

Prints one JSON line. ``ratio`` is one after another over at once with features in the store (goal: at least 5),
``cold`` the same cold (goal: at least 1.8). ``different`` counts runs that the two sides wrote differently.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch

from echo_agent import EchoAgent, EchoResult, Recording

EXAMPLES = Path(__file__).parents[1] / "examples"
MORE = ("Is a bell heard?", "Can you hear the drum?")
"""Asked about the first recordings besides."""
RUNS = 32
PARTS = ("encode", "prefill", "decode")


def asks(number: int) -> list[dict[str, Any]]:
    """The questions; another ``number`` gives other recordings that sound the same."""
    rows = [
        json.loads(row) for row in (EXAMPLES / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    names = sorted({row["audio"] for row in rows})
    recordings = {}
    for name in names:
        samples, rate = soundfile.read(EXAMPLES / name, dtype="float32")
        samples[0] = number / 2**15
        recordings[name] = Recording.from_array(samples, rate, name)
    more = [
        {"audio": names[i % len(names)], "question": MORE[i // len(names)], "choices": ["yes", "no"]}
        for i in range(RUNS - len(rows))
    ]
    keys = ("question", "choices")
    return [{"audio": recordings[row["audio"]]} | {key: row[key] for key in keys} for row in rows + more]


def one_by_one(agent: EchoAgent, given: Sequence[dict[str, Any]]) -> list[EchoResult]:
    """One run after another."""
    return [agent.ask(**ask, run=i) for i, ask in enumerate(given)]


def at_once(agent: EchoAgent, given: Sequence[dict[str, Any]]) -> list[EchoResult]:
    """All runs together."""
    return asyncio.run(agent.abatch(given, concurrency=RUNS))


SIDES = {"one_by_one": one_by_one, "at_once": at_once}


def run_pass(
    agent: EchoAgent, side: str, given: Sequence[dict[str, Any]]
) -> tuple[dict[str, float], list[EchoResult]]:
    """One side once, without cached keys and values."""
    agent.engine.weights_changed()
    began = time.perf_counter()
    results = SIDES[side](agent, given)
    times = {"wall": time.perf_counter() - began}
    return times | {part: sum(result.timings[part] for result in results) for part in PARTS}, results


def main() -> None:
    """Measure both, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="echo-nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--passes", type=int, default=3, help="measured passes per side and measurement")
    options = parser.parse_args()
    spent: dict[tuple[str, str], list[dict[str, float]]] = {}
    different = 0
    with EchoAgent.from_pretrained(options.model, options.device) as agent:
        stored = asks(0)
        for number in range(options.passes + 1):  # the first pass of each is not counted: it warms
            copies = {side: asks(1 + 2 * number + i) for i, side in enumerate(SIDES)}
            for measurement in ("cold", "stored"):
                answers = {}
                for side in SIDES:
                    encoded = agent.engine.stats()["encoded_crops"]
                    given = copies[side] if measurement == "cold" else stored
                    times, answers[side] = run_pass(agent, side, given)
                    encoded = agent.engine.stats()["encoded_crops"] - encoded
                    if number and (measurement == "cold") != bool(encoded):
                        raise SystemExit(f"{measurement}: {encoded} recordings and crops were encoded")
                    if number:
                        spent.setdefault((measurement, side), []).append(times)
                different += sum(a.text != b.text for a, b in zip(*answers.values(), strict=True))
    seconds = {
        f"{measurement} {side}": {
            part: round(statistics.median(times[part] for times in rows), 4) for part in ("wall", *PARTS)
        }
        for (measurement, side), rows in spent.items()
    }
    ratios = {
        name: round(seconds[f"{name} one_by_one"]["wall"] / seconds[f"{name} at_once"]["wall"], 2)
        for name in ("stored", "cold")
    }
    line = {
        "benchmark": "batched_graphs",
        "ratio": ratios["stored"],
        "goal": 5.0,
        "cold": ratios["cold"],
        "cold_goal": 1.8,
        "seconds": seconds,
        "runs": RUNS,
        "relistens": sum(len(result.relistens) for result in answers["at_once"]),
        "sampled": sum(result.tokens["sampled"] for result in answers["at_once"]),
        "different": different,
        "model": options.model,
        "device": options.device,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
