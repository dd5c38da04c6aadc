"""What is done to a clip before it is mixed: pitch and tempo, band, room, strokes, level; and what fills the room.

All of it is small signal processing on float32 mono ``[samples]`` at 16 kHz, in numpy. Random choices come from the
generator that is passed in, in a fixed order, so that a seed gives the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RATE = 16000
"""Samples per second of all clips and scenes."""


def vary(
    samples: np.ndarray,
    rng: np.random.Generator,
    speeds: tuple[float, float] | None = (0.88, 1.14),
    band: float = 0.3,
    cutoffs: tuple[float, float] = (2500, 6500),
) -> np.ndarray:
    """A clip at a slightly other pitch and tempo, at times band-limited.

    Args:
        samples: The clip; not changed.
        rng: Source of every choice.
        speeds: How fast it is played; None leaves it.
        band: Chance that it is band-limited.
        cutoffs: Upper end of the band, Hz.
    """
    if speeds:
        samples = resample(samples, rng.uniform(*speeds))
    if rng.random() < band:
        samples = low_pass(samples, rng.uniform(*cutoffs))
    return samples


def resample(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play ``factor`` times as fast, pitch and all."""
    size = max(2, int(len(samples) / factor))
    return np.interp(np.arange(size) * factor, np.arange(len(samples)), samples).astype(np.float32)


def low_pass(samples: np.ndarray, cutoff: float) -> np.ndarray:
    """Gentle low-pass at ``cutoff`` Hz in the frequency domain."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    return np.fft.irfft(spectrum / (1 + (frequencies / cutoff) ** 8), len(samples)).astype(np.float32)


def impulse(rng: np.random.Generator, decays: tuple[float, float] = (0.1, 0.4)) -> np.ndarray:
    """The response of a small synthetic room: the sound itself, then exponentially decaying noise.

    Args:
        rng: Source of every choice.
        decays: Seconds until the noise is 60 dB down.
    """
    size = int(rng.uniform(*decays) * RATE)
    response = rng.standard_normal(size) * np.exp(-6.9 * np.arange(size) / size)
    response *= rng.uniform(0.1, 0.4) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    return response


def reverberated(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Samples in a room, with the first half of its tail."""
    size = len(response)
    total = len(samples) + size // 2
    n = 1 << (len(samples) + size - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, n) * np.fft.rfft(response, n), n)
    return wet[:total].astype(np.float32)


def fade(samples: np.ndarray, seconds: float = 0.03) -> np.ndarray:
    """Fade the end out, so that a cut does not click."""
    samples = samples.copy()
    size = min(len(samples), int(seconds * RATE))
    samples[-size:] *= np.linspace(1, 0, size, dtype=np.float32)
    return samples


def sequence(parts: Sequence[np.ndarray], gap: float) -> np.ndarray:
    """Parts one after another, ``gap`` samples apart."""
    silence = np.zeros(int(gap), np.float32)
    joined: list[np.ndarray] = []
    for part in parts:
        joined += [fade(part), silence]
    return np.concatenate(joined[:-1])


def strike(samples: np.ndarray, hits: int, period: float, rng: np.random.Generator) -> np.ndarray:
    """The same sound several times, at about equal distances of ``period`` samples and about equal strength."""
    parts = [samples * rng.uniform(0.8, 1.0) for _ in range(hits)]
    starts = [int(i * period + rng.uniform(-0.06, 0.06) * period * (i > 0)) for i in range(hits)]
    total = np.zeros(max(s + len(p) for s, p in zip(starts, parts, strict=True)), np.float32)
    for start, part in zip(starts, parts, strict=True):
        total[start : start + len(part)] += part
    return total


def loudness(samples: np.ndarray) -> float:
    """The root mean square of the loudest quarter of the samples; never 0, so that it can be divided by."""
    loud = np.sort(np.abs(samples))[-max(1, len(samples) // 4) :]
    return float(np.sqrt(np.mean(loud**2))) + 1e-6


def scaled(samples: np.ndarray, level: float) -> np.ndarray:
    """Samples at a root mean square of ``level``."""
    return (samples * (level / (np.sqrt(np.mean(samples**2)) + 1e-9))).astype(np.float32)


def coloured(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise between white and pink; its end leads into its beginning, so it can be looped."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    slope = rng.uniform(0.0, 1.0)
    spectrum[1:] /= np.arange(1, len(spectrum)) ** slope
    return np.fft.irfft(spectrum, size)


def looped(samples: np.ndarray, start: int, size: int) -> np.ndarray:
    """``size`` samples of a clip played over and over, from ``start``."""
    return np.resize(np.roll(samples, -start), size)


def seamless(samples: np.ndarray, seconds: float = 0.1) -> np.ndarray:
    """A clip whose end is blended into its beginning, so that it does not click when looped."""
    size = min(len(samples) // 2, int(seconds * RATE))
    if not size:
        return samples
    rise = np.sqrt(np.linspace(0, 1, size, dtype=np.float32))
    blended = samples[: len(samples) - size].copy()
    blended[:size] = blended[:size] * rise + samples[len(samples) - size :] * rise[::-1]
    return blended
