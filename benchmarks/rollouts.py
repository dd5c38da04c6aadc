"""What the engine is worth to RL: rollouts per second of the listening graph, a group of runs per question.

The runs are those of half a step of the recipe ``nano-rl``: 8 questions of the examples of this repository, each about
a recording of its own (questions of detail first, then those on the longest recordings), with 8 runs of each, sampled
at its temperature. Counterfactual runs are left out. Three sides make the same runs from the same seed:

- *at_once*: all 64 together, as RL makes them (:mod:`echo_agent.finetune.rollouts`);
- *one_by_one*: one after another, on the same kind of engine with its caches;
- *resend*: the same, but nothing is cached between two turns (both stores of the engine have size 0). The recording and
  all crops are encoded, and the whole context is computed again, for every turn of every run, as in the released
  trainer of the Echo paper. Within a turn keys and values are kept. Only the first two runs of each question are
  made, 16 in all; rates are per rollout.

Every pass has an engine of its own per side, one after another, since each engine has worker threads. It begins as a
step of RL begins: the features of the first listens are in the store; keys, values, embeddings and everything about
crops are not. (*resend* has no store, so nothing is prepared for it.) A first pass with another seed is a warm-up and
not counted; each counted pass has a seed of its own. Rates are medians over passes.

The sides must write the same tokens. ``different`` counts the runs of *one_by_one* and *resend* that differ from those
of *at_once*. That may happen if two tokens nearly tie; if neither run has a near tie, it is an error.

    python benchmarks/rollouts.py [--model echo-nano] [--passes 2]

Encoding crops keeps the machine busy whether batched or not, so its share bounds what batching can gain. Therefore the
two sides that keep features make their runs a second time, without keys, values and embeddings, but with the features
of the crops in the store (``stored``). A step of RL lies between the two, nearer to the first if the policy points to
more places that it has not asked for before.

Prints one JSON line. ``ratio`` is at once over resend in rollouts per second (goal: at least 6), ``ratio_own`` at once
over one by one (goal: at least 3), ``ratio_own_stored`` the same where crops are stored too. ``listened`` is the share
of rollouts that heard something again. ``seconds`` of a side are per rollout: ``wall`` and ``stored`` by the clock, the
others what the engine spent of ``wall``, work on a batch divided evenly.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from echo_agent import Recording, RecordingStore, SamplingParams, TorchEngine, load_family
from echo_agent.chat import TOKENS_KEY, ChatLALM
from echo_agent.controls import Control
from echo_agent.families import Family
from echo_agent.finetune.config import RLRecipe, RolloutConfig, read_recipe
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.rollouts import Rollout, Rollouts, Task
from echo_agent.results import EchoResult
from echo_agent.rows import Row, read_rows

EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTIONS = GROUP = 8
RESENT = 2
"""Runs of each question that *resend* makes."""
PARTS = ("encode", "prefill", "decode")
SIDES = ("at_once", "one_by_one", "resend")


class Noted(Rollouts):
    """Rollouts that keep the result of every run by its number: near ties and timings are not in a rollout."""

    def __init__(self, model: ChatLALM, recordings: RecordingStore, part: RolloutConfig) -> None:
        """As for :class:`Rollouts`."""
        super().__init__(model, recordings, part)
        self.results: dict[int, EchoResult] = {}

    async def _result(self, task: Task, seed: int, control: Control) -> EchoResult:
        result = self.results[task.run] = await super()._result(task, seed, control)
        return result


@dataclass
class Made:
    """What one side made in one pass."""

    wall: float
    """Seconds of all runs."""
    stored: float
    """Seconds of the same runs a second time; 0 where nothing is kept."""
    rollouts: dict[int, Rollout]
    """By the number of the run."""
    results: dict[int, EchoResult]

    def times(self) -> dict[str, float]:
        """Seconds per rollout."""
        spent = {part: sum(result.timings[part] for result in self.results.values()) for part in PARTS}
        spent |= {"wall": self.wall, "stored": self.stored}
        return {name: value / len(self.rollouts) for name, value in spent.items()}

    def near_ties(self, run: int) -> int:
        """Tokens of a run that nearly tied with another."""
        metadata = [message.response_metadata for message in self.results[run].messages]
        return sum(found[TOKENS_KEY]["near_ties"] for found in metadata if TOKENS_KEY in found)


def make_tasks(store: RecordingStore) -> list[Task]:
    """The runs of a step, groups in a row, as the trainer numbers them."""
    first: dict[str, Row] = {}
    for row in read_rows(EXAMPLES / "questions.jsonl"):
        if row.audio not in first or (row.difficulty == "detail") > (first[row.audio].difficulty == "detail"):
            first[row.audio] = row
    chosen = sorted(first.values(), key=lambda row: (row.difficulty != "detail", -(row.duration or 0.0)))
    samples = [Sample(**row.model_dump()) for row in chosen[:QUESTIONS]]
    refs = [store.add(Recording.open(sample.audio)) for sample in samples]
    return [
        Task(sample, ref, GROUP * number + i)
        for number, (sample, ref) in enumerate(zip(samples, refs, strict=True))
        for i in range(GROUP)
    ]


def open_engine(side: str, family: Family, store: RecordingStore) -> TorchEngine:
    """An engine with caches, or without any."""
    if side == "resend":
        return TorchEngine(family, store, kv_bytes=0, feature_bytes=0)
    return TorchEngine(family, store)


def start(engine: TorchEngine, model: ChatLALM, tasks: Sequence[Task]) -> None:
    """Bring an engine to where a step of RL begins: it has encoded the first listens, and nothing else."""
    for task in tasks[::GROUP]:
        sample, family = task.sample, model.family
        head = model.dialect.head(family, [task.recording], sample.question, sample.choices)
        engine.generate(*family.render(head), SamplingParams(max_new_tokens=1))
    engine.weights_changed()


def timed(rollouts: Rollouts, side: str, tasks: Sequence[Task], seed: int) -> tuple[float, list[Rollout]]:
    """Make the runs as a side does; the time it took, and the runs."""
    began = time.perf_counter()
    if side == "at_once":
        done = rollouts.run(tasks, seed)
    else:
        done = [rollout for task in tasks for rollout in rollouts.run([task], seed)]
    return time.perf_counter() - began, done


def run_pass(
    side: str, family: Family, store: RecordingStore, part: RolloutConfig, tasks: Sequence[Task], seed: int
) -> Made:
    """One side once, on an engine of its own."""
    with open_engine(side, family, store) as engine:
        model = ChatLALM(engine)
        rollouts = Noted(model, store, part)
        try:
            if side == "resend":
                tasks = [task for task in tasks if task.run % GROUP < RESENT]
            else:
                start(engine, model, tasks)
            wall, done = timed(rollouts, side, tasks, seed)
            results = dict(rollouts.results)
            engine.weights_changed()
            stored = 0.0 if side == "resend" else timed(rollouts, side, tasks, seed)[0]
        finally:
            rollouts.close()
    failed = [rollout.broken for rollout in done if rollout.judged is None]
    if failed:
        raise SystemExit(f"{side}: {len(failed)} runs failed: {failed[0]}")
    return Made(wall, stored, {rollout.task.run: rollout for rollout in done}, results)


def count_different(made: dict[str, Made]) -> int:
    """How many runs of the other sides differ from those at once; only near ties may make a difference."""
    whole, different = made["at_once"], 0
    for side in made.keys() - {"at_once"}:
        for run, rollout in made[side].rollouts.items():
            if rollout.trajectory.ids == whole.rollouts[run].trajectory.ids:
                continue
            different += 1
            if not made[side].near_ties(run) + whole.near_ties(run):
                texts = f"{whole.results[run].text!r} and {made[side].results[run].text!r}"
                raise SystemExit(f"run {run}: at once and {side} wrote different tokens: {texts}")
    return different


def main() -> None:
    """Measure the sides in turns, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="echo-nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--passes", type=int, default=2, help="measured passes per side")
    options = parser.parse_args()
    recipe = read_recipe("nano-rl")
    assert isinstance(recipe, RLRecipe)
    family = load_family(options.model, options.device)
    store = RecordingStore()
    tasks = make_tasks(store)
    passes: list[dict[str, Made]] = []
    for seed in range(options.passes + 1):  # the first is not counted: it warms
        given = tasks if seed else tasks[: 2 * GROUP]
        passes.append({side: run_pass(side, family, store, recipe.rollout, given, seed) for side in SIDES})
    measured = passes[1:]
    seconds = {
        side: {
            name: statistics.median(made[side].times()[name] for made in measured)
            for name in ("wall", *PARTS, "stored")
        }
        for side in SIDES
    }
    wall = {side: times["wall"] for side, times in seconds.items()}
    rollouts = [rollout for made in measured for rollout in made["at_once"].rollouts.values()]
    results = [result for made in measured for result in made["at_once"].results.values()]
    line = {
        "benchmark": "rollouts",
        "ratio": round(wall["resend"] / wall["at_once"], 2),
        "goal": 6.0,
        "ratio_own": round(wall["one_by_one"] / wall["at_once"], 2),
        "goal_own": 3.0,
        "ratio_own_stored": round(seconds["one_by_one"]["stored"] / seconds["at_once"]["stored"], 2),
        "rollouts_per_second": {side: round(1 / value, 2) for side, value in wall.items()},
        "seconds": {
            side: {name: round(s, 4) for name, s in times.items()} for side, times in seconds.items()
        },
        "rollouts": len(tasks),
        "resent": QUESTIONS * RESENT,
        "questions": [task.sample.id for task in tasks[::GROUP]],
        "listened": round(statistics.mean(bool(r.judged and r.judged.asked) for r in rollouts), 3),
        "relistens": round(statistics.mean(len(result.relistens) for result in results), 2),
        "sampled": round(statistics.mean(result.tokens["sampled"] for result in results), 1),
        "different": sum(map(count_different, measured)),
        "compared": sum(len(made[side].rollouts) for made in measured for side in ("one_by_one", "resend")),
        "model": options.model,
        "device": str(family.device),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
