"""Time and memory of ``echo-agent ask`` from a cold start, by the length of the recording.

Each question is a process of its own; the recordings are the examples of this repository, one after another, as FLAC
files. ``wall`` is the whole process, interpreter and imports included; ``memory_mb`` is the most that it held (resident
memory, 10^6 bytes); the others are the timings that ``--json`` prints.

    python benchmarks/footprint.py [--model echo-nano] [--seconds 30,120,600]

Prints one JSON line. ``ratio`` is 15 s, the goal for the shortest recording from a cold start, over its wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

EXAMPLES = Path(__file__).parents[1] / "examples"
GOAL = 15.0
"""Seconds."""
CODE = "import sys; from echo_agent.cli import main; sys.exit(main(sys.argv[1:]))"


def ask(path: Path, model: str, device: str) -> dict[str, float]:
    """Ask one question in a process of its own; seconds, and megabytes at most."""
    arguments = ["ask", str(path), "Which digits are spoken after the drum?", "--json"]
    arguments += ["--model", model, "--device", device]
    read, write = os.pipe()
    began = time.perf_counter()
    command = [sys.executable, "-c", CODE, *arguments]
    process = os.posix_spawn(
        sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)]
    )
    os.close(write)
    with os.fdopen(read) as pipe:
        printed = pipe.read()
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status) not in (0, 3):  # 3: what was written is no answer
        raise SystemExit(f"{path.name}: echo-agent ended with {os.waitstatus_to_exitcode(status)}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    timings = {part: round(value, 3) for part, value in json.loads(printed)["timings"].items()}
    return {"wall": round(seconds, 2), "memory_mb": round(peak), **timings}


def main() -> None:
    """Measure each length, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="echo-nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", default="30,120,600", help="lengths of the recordings")
    options = parser.parse_args()
    parts = [soundfile.read(path, dtype="float32") for path in sorted(EXAMPLES.glob("*.flac"))]
    rate = parts[0][1]
    samples = np.concatenate([samples for samples, _ in parts])
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for seconds in map(int, options.seconds.split(",")):
            path = Path(folder) / f"{seconds}.flac"
            soundfile.write(path, np.resize(samples, seconds * rate), rate)
            measured[f"{seconds} s"] = ask(path, options.model, options.device)
    first = next(iter(measured.values()))
    line = {
        "benchmark": "footprint",
        "ratio": round(GOAL / first["wall"], 2),
        "goal": 1.0,
        "recordings": measured,
        "model": options.model,
        "device": options.device,
        "processors": os.cpu_count(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
