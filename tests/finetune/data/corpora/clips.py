"""Real recordings of a given length, as small as they can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 8000


def clip(path: Path, seconds: float = 10.0) -> Path:
    """A quiet recording of noise; its format is that of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, round(seconds * RATE))
    soundfile.write(path, samples, RATE)
    return path


def broken(path: Path) -> Path:
    """A file that is called a recording and is none."""
    path.write_bytes(b"not a sound " * 200)
    return path


def write(path: Path, *lines: str, end: str = "\n", mark: str = "") -> Path:
    """A file of text, byte for byte."""
    path.write_bytes((mark + "".join(line + end for line in lines)).encode())
    return path
