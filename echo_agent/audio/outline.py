"""The outline of a recording: its peaks and its spectrum in as many columns as there is room for.

A recording is read in blocks of a minute, so that a long one is never held in memory. Times are seconds on the
recording. Peaks are float32 ``[columns]`` in full scale; the spectrum is float32 ``[BANDS, columns]`` in decibels below
its loudest point, lowest band first. :func:`sketch` turns peaks into one line of block characters for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from echo_agent.audio.recording import Recording

BLOCK = 60.0
"""Seconds of audio that are read at once."""
WINDOW = 1024
"""Samples per spectrogram frame."""
BANDS = 128
"""Rows of the spectrum, evenly spaced on the mel scale."""
FLOOR_DB = 65.0
"""Decibels below the loudest point at which the spectrum ends."""
FRAMES = 4
"""Most spectrogram frames that are looked at per column; the loudest counts."""
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-~=+*#"


def clock(seconds: float, precise: bool = True) -> str:
    """Write a time as ``1:02:03.4``, or ``2:03.4`` where there are no hours; without tenths where not precise."""
    tenths = round(seconds * 10) if precise else round(seconds) * 10
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    last = f"{tenths // 10:02d}.{tenths % 10}" if precise else f"{tenths // 10:02d}"
    return f"{hours}:{minutes:02d}:{last}" if hours else f"{minutes}:{last}"


def described(heard: Mapping[str, Any]) -> str:
    """How a re-listen was heard, in a few words; empty for plain replay."""
    words = []
    if heard["speed"] != 1.0:
        words.append(f"speed {heard['speed']:g}")
    low, high = heard["low_hz"], heard["high_hz"]
    if low is not None and high is not None:
        words.append(f"{low:g} to {high:g} Hz")
    elif low is not None or high is not None:
        words.append(f"above {low:g} Hz" if high is None else f"below {high:g} Hz")
    if heard["gain_db"]:
        words.append(f"{heard['gain_db']:+g} dB")
    return ", ".join(words)


def mel(hertz: np.ndarray | float) -> np.ndarray:
    """Hertz on the mel scale."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def peaks(recording: Recording, columns: int, rate: int = 8000) -> np.ndarray:
    """Peak of the recording in each of ``columns`` equal parts."""
    found = np.zeros(columns, np.float32)
    for first, last, samples, starts in _blocks(recording, columns, rate, 0):
        for column in range(first, last):
            low, high = starts[column - first], starts[column - first + 1]
            found[column] = np.abs(samples[low : max(high, low + 1)]).max(initial=0.0)
    return found


def spectrum(recording: Recording, columns: int, rate: int) -> np.ndarray:
    """Mel spectrum of the recording up to ``rate / 2``, the loudest of a few frames in each column."""
    window = np.hanning(WINDOW).astype(np.float32)
    bank = _mel_bank(rate)
    power = np.zeros((columns, BANDS), np.float32)
    for first, last, samples, starts in _blocks(recording, columns, rate, WINDOW):
        count = int(np.clip((starts[1] - starts[0]) / (WINDOW / 2), 1, FRAMES))
        centres = starts[:-1, None] + np.diff(starts)[:, None] * (np.arange(count) + 0.5) / count
        frames = samples[np.rint(centres).astype(int).reshape(-1, 1) + np.arange(-WINDOW // 2, WINDOW // 2)]
        energy = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 @ bank
        power[first:last] = energy.reshape(last - first, count, BANDS).max(axis=1)
    decibels = 10 * np.log10(np.maximum(power.T, 1e-10))
    return np.maximum(decibels - max(decibels.max(), -50.0), -FLOOR_DB).astype(np.float32)


def sketch(
    outline: np.ndarray, duration: float, span: tuple[float, float] | None = None, *, ascii_only: bool = False
) -> list[tuple[str, bool]]:
    """Draw peaks as one line of block characters.

    Args:
        outline: From :func:`peaks`, one value per character.
        duration: Length of the recording in seconds.
        span: Start and end in seconds of what is to be marked; at least one character is.
        ascii_only: For terminals that cannot show block characters.

    Returns:
        Pieces of the line in order, each with whether it is marked.
    """
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    top = float(outline.max(initial=0.0)) or 1.0
    levels = np.rint((outline / top) ** 0.6 * (len(blocks) - 1)).astype(int)
    line = "".join(blocks[level] for level in levels)
    if span is None:
        return [(line, False)]
    low = min(int(span[0] / duration * len(line)), len(line) - 1)
    high = max(low + 1, round(span[1] / duration * len(line)))
    pieces = [(line[:low], False), (line[low:high], True), (line[high:], False)]
    return [piece for piece in pieces if piece[0]]


def _blocks(
    recording: Recording, columns: int, rate: int, margin: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Read a recording block by block, in whole columns.

    Yields the first and the last column of each block (half open), its samples at ``rate``, padded with zeros by at
    least ``margin`` on either side, and where its columns begin (and the last one ends) in those samples.
    """
    edges = np.rint(np.linspace(0, recording.duration, columns + 1) * rate).astype(int)
    step = max(1, int(columns * BLOCK / recording.duration))
    for first in range(0, columns, step):
        last = min(first + step, columns)
        low, high = max(edges[first] - margin, 0), min(edges[last] + margin, edges[-1])
        samples = recording.read(low / rate, min(high / rate, recording.duration), rate)
        samples = np.pad(samples, (margin, margin + high - low + 1 - min(len(samples), high - low)))
        yield first, last, samples, edges[first : last + 1] - low + margin


def _mel_bank(rate: int) -> np.ndarray:
    """Triangular filters ``[WINDOW // 2 + 1, BANDS]``, at least one bin wide each."""
    bins = mel(np.fft.rfftfreq(WINDOW, 1 / rate))
    centres = np.linspace(mel(40.0), mel(rate / 2), BANDS)
    width = np.maximum(centres[1] - centres[0], np.interp(centres, bins[1:], np.diff(bins)))
    return np.maximum(0.0, 1 - np.abs(bins[:, None] - centres) / width).astype(np.float32)
