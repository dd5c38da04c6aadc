"""Where the time of a step of RL goes: rollouts, rewards, forward and backward passes, the optimiser, and the rest.

A short run of the recipe ``nano-rl`` (counterfactual runs and a reference model included; 8 questions x 8 rollouts per
step in place of 16 x 8, and no rehearsal, since these questions come without reasoning) on a small dataset that is made
here: the 24 questions of the examples of this repository. Functions are timed by wrapping them:

- *rollout*: ``Rollouts.run``, the encoding of audio included;
- *reward*: what the trainer calls to compute the rewards;
- *forward*: log-probabilities of the policy (with the gradient's graph) and of the reference model;
- *backward*: ``accelerator.backward``;
- *optimiser*: clipping the gradient and the optimiser's step;
- *other*: everything else: tensors made of rollouts, advantages, the loss, data loading, the log, checkpoints.

A step is the time from the beginning of one generation to the beginning of the next. The first steps are dropped, and
the last, which no other follows. The run saves every other step, so that saving is measured; a checkpoint, with the
curves that are drawn then, is counted in *other* as often as the recipe saves. Shares are of all measured steps
together.

``share_outside`` is the share of reward and *other*: a step without rollout, forward, backward and optimiser (goal: at
most 0.05). That leaves out what a rollout spends outside the model: the graph, the chat model, reading audio, and the
engine's own bookkeeping. So within the rollout the engine's model calls are timed too (``rollout_parts``): encoding
audio, embedding it, the text model, its scores, and choosing tokens. ``outside`` there is the clock of the rollout
without them, and ``share_outside_strict`` is ``share_outside`` with that added, as a share of the step. It has no goal.

    python benchmarks/train_step.py [--steps 6] [--warm 2]

With 24 questions the fourth step asks those of the first again, and what was heard then is in the store. ``encoded`` is
how many listens the encoder ran on in each step, warm ones included. On a larger dataset it runs on more: the share of
encoding is larger there, and the others are smaller.

Prints one JSON line. ``ratio`` is the goal over ``share_outside``: at least 1 where it is met.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from echo_agent.engine import batch
from echo_agent.families.nano import NanoFamily
from echo_agent.finetune.callbacks import Journal, read_log
from echo_agent.finetune.config import RLRecipe, read_recipe
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import write_dataset
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.grpo import ListeningGRPOTrainer
from echo_agent.finetune.rl import train_rl
from echo_agent.finetune.rollouts import Rollouts
from echo_agent.rows import read_rows

EXAMPLES = Path(__file__).parents[1] / "examples"
GOAL = 0.05
SAVE_EVERY = 2
PARTS = ("rollout", "reward", "forward", "backward", "optimiser")
MODEL = ("encode", "embed", "text", "scores", "choose")
"""Model calls of the engine."""
ENGINE = "echo-agent-engine"
"""Name of the engine's thread: the trainer calls the same functions of the family in its own."""


class Clock:
    """Records when functions were called, and for how long."""

    def __init__(self) -> None:
        """Start with nothing timed."""
        self.calls: list[tuple[str, float, float, int]] = []
        """Part, beginning, seconds, and what :meth:`time` was told to count."""

    def time(
        self, part: str, owner: Any, name: str, thread: str = "", count: Callable[[Any], int] = lambda _: 0
    ) -> None:
        """Replace ``owner.name`` by a timed function, permanently.

        Args:
            part: What its time belongs to.
            owner: A class or a module.
            name: Its function.
            thread: Only calls in the thread of this name; all if empty.
            count: Applied to what is returned.
        """
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if thread and threading.current_thread().name != thread:
                return function(*args, **kwargs)
            began = time.perf_counter()
            result = function(*args, **kwargs)
            self.calls.append((part, began, time.perf_counter() - began, count(result)))
            return result

        setattr(owner, name, timed)

    def begun(self, part: str) -> list[float]:
        """When calls of ``part`` began."""
        return sorted(began for name, began, _, _ in self.calls if name == part)

    def between(self, first: float, last: float) -> tuple[dict[str, float], Counter[str]]:
        """Seconds, and what was counted, of the calls that began in a stretch of time, by part."""
        seconds: dict[str, float] = defaultdict(float)
        counts: Counter[str] = Counter()
        for part, began, spent, counted in self.calls:
            if first <= began < last:
                seconds[part] += spent
                counts[part] += counted
        return seconds, counts


def make_dataset(folder: Path) -> Path:
    """The questions of the examples as a dataset for RL."""
    (folder / "audio").mkdir(parents=True)
    samples = []
    for row in read_rows(EXAMPLES / "questions.jsonl"):
        name = f"audio/{Path(row.audio).name}"
        shutil.copy(row.audio, folder / name)
        samples.append(Sample.model_validate(row.model_dump() | {"audio": name, "use": "rl"}))
    about = About(
        name="Examples", description="To time steps.", command="python benchmarks/train_step.py", seed=0
    )
    return write_dataset(folder, {"train": samples}, [], about)


def watch() -> Clock:
    """Time every part."""
    clock = Clock()
    clock.time("rollout", Rollouts, "run")
    clock.time("reward", ListeningGRPOTrainer, "reward")
    clock.time("forward", ListeningGRPOTrainer, "score")
    clock.time("backward", Accelerator, "backward")
    clock.time("optimiser", Accelerator, "clip_grad_norm_")
    clock.time("optimiser", AcceleratedOptimizer, "step")
    clock.time("save", ListeningGRPOTrainer, "_save_checkpoint", count=lambda _: 1)
    clock.time("save", Journal, "on_save")
    clock.time("encode", NanoFamily, "encode", ENGINE, len)
    clock.time("embed", NanoFamily, "audio_embeds", ENGINE)
    clock.time("text", NanoFamily, "forward_embeds", ENGINE)
    clock.time("scores", NanoFamily, "logits", ENGINE)
    clock.time("choose", batch, "choose", ENGINE)
    return clock


def main() -> None:
    """Train a little, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=6, help="measured steps")
    parser.add_argument("--warm", type=int, default=2, help="steps before them, not measured")
    options = parser.parse_args()
    if options.steps < SAVE_EVERY or options.warm < SAVE_EVERY:
        parser.error(f"--steps and --warm must be at least {SAVE_EVERY}")
    total = options.warm + options.steps + 1
    save_every = read_recipe("nano-rl").save_every
    smaller = ["rollout.questions=8", "optimiser.accumulation=2", "loss.rehearsal=0"]
    recipe = read_recipe("nano-rl", [f"optimiser.steps={total}", f"watch.save_every={SAVE_EVERY}", *smaller])
    assert isinstance(recipe, RLRecipe) and recipe.rollout.updates == 1
    clock = watch()
    with tempfile.TemporaryDirectory() as folder:
        dataset, out = make_dataset(Path(folder) / "data"), Path(folder) / "run"
        train_rl(recipe, dataset, out, report=lambda _: None)
        log = read_log(out)
    begun = clock.begun("rollout")
    assert len(begun) == total
    spent, counts = clock.between(begun[options.warm], begun[-1])
    save = spent["save"] / counts["save"]
    whole = begun[-1] - begun[options.warm] - spent["save"] + options.steps * save / save_every
    seconds = {part: spent[part] for part in PARTS}
    seconds["other"] = whole - sum(seconds.values())
    inside = {part: spent[part] for part in MODEL}
    inside["outside"] = seconds["rollout"] - sum(inside.values())
    outside = (seconds["reward"] + seconds["other"]) / whole
    rows = [row for row in log if options.warm < row["step"] < total and "rollout/listened" in row]
    line = {
        "benchmark": "train_step",
        "ratio": round(GOAL / outside, 2),
        "share_outside": round(outside, 4),
        "goal": GOAL,
        "share_outside_strict": round(outside + inside["outside"] / whole, 4),
        "shares": {part: round(value / whole, 4) for part, value in seconds.items()},
        "rollout_parts": {part: round(value / seconds["rollout"], 4) for part, value in inside.items()},
        "step_seconds": round(whole / options.steps, 3),
        "save_seconds": round(save, 3),
        "encoded": [clock.between(first, last)[1]["encode"] for first, last in pairwise(begun)],
        "rollouts_per_step": recipe.rollout.questions * recipe.rollout.group,
        "listened": round(sum(row["rollout/listened"] for row in rows) / len(rows), 3),
        "tokens": round(sum(row["completions/mean_length"] for row in rows) / len(rows), 1),
        "steps": options.steps,
        "model": recipe.model.name,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
