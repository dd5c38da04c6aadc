"""Sounds that tests make, and the files that they put them in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent.audio.ffmpeg import find_ffmpeg
from echo_agent.audio.transforms import Samples


def lively(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> Samples:
    """Noise whose level changes every tenth of a second and a tone: no two stretches are alike.

    Returns `[samples]` for one channel, `[samples, channels]` for more; peaks stay under 0.9.
    """
    generator = np.random.default_rng(seed)
    count = round(seconds * rate)
    level = np.repeat(generator.random(count // max(1, rate // 10) + 1), max(1, rate // 10))[:count]
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(count) / rate)
    wave = tone[:, None] + level[:, None] * generator.uniform(-0.5, 0.5, (count, channels))
    return (wave[:, 0] if channels == 1 else wave).astype(np.float32)


def tone(hertz: float, seconds: float, rate: int = 16_000, level: float = 0.5) -> Samples:
    """A sine of `level`."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference between two arrays of one shape; `pytest.approx` takes seconds for that."""
    assert one.shape == other.shape
    return float(np.abs(np.asarray(one, np.float64) - other).max(initial=0.0))


def write(path: Path, samples: np.ndarray, rate: int, subtype: str | None = None) -> Path:
    """Write a sound file; in blocks, because libsndfile crashes when it writes a long Ogg at once."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, subtype) as file:
        for start in range(0, len(samples), 8192):
            file.write(samples[start : start + 8192])
    return path


NOT_MADE = ("Unknown encoder", "muxing codec currently unsupported")
"""What ffmpeg says of a format that it was built without."""


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg; a failure fails the test with its report, and a file that this ffmpeg cannot make skips it."""
    program = find_ffmpeg()
    assert program is not None, "the tests need ffmpeg or imageio-ffmpeg"
    done = subprocess.run(
        [program, "-nostdin", "-v", "error", "-y", *map(str, arguments)], capture_output=True, text=True
    )
    if any(words in done.stderr for words in NOT_MADE):
        pytest.skip(f"this ffmpeg does not make such files: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr


def half(path: Path, target: Path) -> Path:
    """Write the first half of a file's bytes to `target`: a download that broke off."""
    data = path.read_bytes()
    target.write_bytes(data[: len(data) // 2])
    return target
