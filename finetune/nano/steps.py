"""What trainings of embedded models share: the learning rate over the steps, the log, and the checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from echo_agent.disk import GO_ON, whole, write_whole, writing
from echo_agent.terminal import say

LOG = "log.jsonl"


def warmed_cosine(step: int, rate: float, warmup: int, steps: int, floor: float = 0.0) -> float:
    """Learning rate: linear warm-up to ``rate``, then a cosine to the share ``floor`` of it."""
    if step < warmup:
        return rate * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def cut_log(folder: Path, step: int) -> None:
    """Drop the lines of steps after the checkpoint: these steps are run again."""
    path = folder / LOG
    if path.exists():
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        write_whole(path, "".join(line for line in lines if json.loads(line)["step"] <= step).encode(), GO_ON)


def log_step(folder: Path, step: int, steps: int, losses: Sequence[float], seconds: float) -> None:
    """One line of the training log, and the same on the screen."""
    left = seconds / max(1, step) * (steps - step)
    row = {"step": step, "loss": round(sum(losses) / max(1, len(losses)), 4), "seconds": round(seconds)}
    with writing(folder / LOG, GO_ON), (folder / LOG).open("a") as file:
        file.write(json.dumps(row) + "\n")
    say(f"step {step}/{steps}  loss {row['loss']:.3f}  {left / 60:.0f} min left", flush=True)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint aside, then put it in its place."""
    with writing(path, GO_ON), whole(path) as partial:
        torch.save(dict(state), partial)
