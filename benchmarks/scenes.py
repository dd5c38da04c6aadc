"""Seconds of scene that one core makes in a second: clips mixed, FLAC and records written, speech already spoken.

Each number is measured in a process of its own that reads the bank, mixes scenes of a minute with one worker, and ends.
``ratio`` is their seconds of sound over its CPU seconds, interpreter and imports left out, the reading of the bank
included. ``memory_mb`` is the most that it held (resident memory, 10^6 bytes) for few and for many scenes: it must not
grow with their number.

    python benchmarks/scenes.py [--bank FOLDER] [--few 50] [--many 400]

Without a bank one is generated: noises, tones as notes, and noises for spoken digits. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile

from echo_agent.finetune.data.bank.clips import SAMPLE_RATE
from echo_agent.finetune.data.bank.user_clips import bank_from_folder
from echo_agent.finetune.data.scenes.mixer import SceneSettings
from echo_agent.finetune.data.scenes.render import mix_scenes
from echo_agent.finetune.data.vocabulary import DIGITS

GOAL = 100
MEMORY_GOAL = 1.1
"""Memory for many scenes over memory for few."""
SECONDS = 60.0
LABELS = ("bell", "bird", "car", "dog", "door", "drum", "thunder", "typing", "water", "wolf")


def make_bank(folder: Path) -> Path:
    """A bank of generated clips, of about the lengths that recordings have."""
    rng = np.random.default_rng(0)
    sounds, rows = folder / "sounds", []
    sounds.mkdir(parents=True)
    described = [
        *(("sound", label, rng.uniform(0.2, 5.0), "") for label in LABELS for _ in range(8)),
        *(("background", "rain", 6.0, "") for _ in range(3)),
        *(("digit", digit, 0.4, voice) for digit in DIGITS for voice in ("one", "two")),
        *(("note", "piano", 1.0, "") for _ in range(8)),
    ]
    for number, (kind, label, seconds, voice) in enumerate(described):
        size = int(seconds * SAMPLE_RATE)
        samples = rng.uniform(-0.5, 0.5, size) * np.exp(-np.arange(size) / (0.4 * size))
        soundfile.write(sounds / f"{number}.wav", samples, SAMPLE_RATE)
        pitch = 48 + 4 * (number % 8) if kind == "note" else ""
        rows.append((f"sounds/{number}.wav", label, kind, voice, pitch, "train"))
    table = folder / "clips.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "kind", "voice", "pitch", "split"), *rows])
    bank_from_folder(table, folder / "bank")
    return folder / "bank"


def measure(bank: Path, out: Path, count: int) -> tuple[float, float, float]:
    """Mix ``count`` scenes in this process; CPU seconds, wall seconds and megabytes at most."""
    settings = SceneSettings(duration=(SECONDS, SECONDS))
    cpu, wall = time.process_time(), time.perf_counter()
    mix_scenes(bank, out, settings, count=count, seed=0, splits=["train"], split="train")
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return cpu, wall, peak / 1e6


def main() -> None:
    """Measure few and many scenes, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bank", type=Path, help="folder of a sound bank; without it, one is generated")
    parser.add_argument("--few", type=int, default=50, help="scenes of the shorter run")
    parser.add_argument("--many", type=int, default=400, help="scenes of the longer run")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="echo-agent-scenes-") as name:
        folder = Path(name)
        bank = options.bank or make_bank(folder)
        runs: dict[int, tuple[float, float, float]] = {}
        for count in (options.few, options.many):
            with get_context("spawn").Pool(1) as pool:
                runs[count] = pool.apply(measure, (bank, folder / str(count), count))
    cpu, wall, _ = runs[options.many]
    memory = {str(count): round(run[2]) for count, run in runs.items()}
    line = {
        "benchmark": "scenes",
        "ratio": round(options.many * SECONDS / cpu, 1),
        "goal": GOAL,
        "wall_ratio": round(options.many * SECONDS / wall, 1),
        "bank": "given" if options.bank else "generated",
        "seconds_per_scene": SECONDS,
        "memory_mb": memory,
        "memory_ratio": round(runs[options.many][2] / runs[options.few][2], 3),
        "memory_goal": MEMORY_GOAL,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
