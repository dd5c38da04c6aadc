"""What a recording of hours takes of memory: no more than one of ten minutes, but for a little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16_000
ASKED = """
import json, sys
from echo_agent import EchoAgent

with EchoAgent.from_pretrained("echo-nano", "cpu") as agent:
    result = agent.ask(sys.argv[1], "When is a bell heard?", max_relistens=3)
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(json.dumps({"answer": result.answer, "kilobytes": peak, "search": result.model_dump(mode="json").get("search")}))
"""


def recording(path: Path, seconds: int) -> Path:
    """Noise with a tone every minute, written a minute at a time."""
    generator = np.random.default_rng(0)
    minute = generator.normal(0.0, 0.01, 60 * RATE).astype(np.float32)
    minute[: 2 * RATE] += 0.2 * np.sin(2 * np.pi * 880 * np.arange(2 * RATE) / RATE).astype(np.float32)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for at in range(0, seconds, 60):
            file.write(minute[: min(60, seconds - at) * RATE])
    return path


def asked(path: Path) -> dict:
    """What a process that asks about a recording says, and how much memory it took at most."""
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux says how much memory was taken"
)
def test_three_hours_take_no_more_memory_than_ten_minutes(tmp_path: Path) -> None:
    short = asked(recording(tmp_path / "short.flac", 600))
    long = asked(recording(tmp_path / "long.flac", 3 * 3600))
    assert short["search"] is None and long["search"]["listens"][0]["end"] == 3 * 3600
    assert long["search"]["window"] is not None and long["answer"] is not None
    assert long["kilobytes"] <= 1.5 * short["kilobytes"]
