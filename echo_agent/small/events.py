"""From scores to events: what is heard from when to when, how loud, and how often it is struck.

A sound begins where its score passes ``BEGIN`` and lasts while it stays above ``GO_ON``; short gaps are closed. Sounds
may lie over one another; two that begin and end together are one sound by two names, of which the more certain one
stands. Strokes are peaks of loudness within the event.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from echo_agent.nano.encoder import SAMPLE_RATE
from echo_agent.small.ears import STEP_SECONDS
from echo_agent.small.notes import Heard

BEGIN, GO_ON = 0.5, 0.25
"""Scores at which an event begins, and below which it ends."""
GAP_STEPS = 1
"""Steps below that do not end it."""
TOGETHER = 0.6
"""Share of their time from which on two events are one: two sounds seldom begin and end together."""
FRAME = 160
"""Samples of a frame of loudness: 10 ms."""
FLOOR_DB = -70.0
"""Level of silence."""
STROKE_DB, STROKE_FRAMES = 6.0, 12
"""How far a stroke stands out of what is before it, and frames between two of them."""


def events(
    scores: np.ndarray,
    samples: np.ndarray,
    names: Sequence[str],
    struck: Sequence[bool],
    start: float = 0.0,
    pace: float = 1.0,
) -> list[Heard]:
    """Events of a listen in order of onset.

    Args:
        scores: ``[steps, sounds]``, 0 to 1.
        samples: What was heard, at 16 kHz.
        names: Of the sounds.
        struck: Which of them come in strokes, which are counted.
        start: Second of the recording at which the listen begins.
        pace: Seconds of the recording that pass in a second of what was heard, which may be slowed down.
    """
    levels = frame_levels(samples)
    end = len(samples) / SAMPLE_RATE
    found: list[Heard] = []
    for number in np.flatnonzero(scores.max(axis=0) >= BEGIN).tolist():
        for first, last in stretches(scores[:, number]):
            onset, offset = _edges(levels, first * STEP_SECONDS, min(end, last * STEP_SECONDS))
            if offset <= onset:
                continue
            part = levels[int(onset * 100) : max(int(offset * 100), int(onset * 100) + 1)]
            found.append(
                Heard(
                    names[number],
                    start + pace * onset,
                    start + pace * offset,
                    hits=strokes(part) if struck[number] else 1,
                    level_db=float(np.percentile(part, 90)) if len(part) else None,
                    score=float(scores[first:last, number].max()),
                )
            )
    return sorted(_one_name_each(found), key=lambda event: (event.onset, event.name))


def _one_name_each(found: Sequence[Heard]) -> list[Heard]:
    """Events without those that begin and end with a more certain one: that is one sound by two names."""
    kept: list[Heard] = []
    for event in sorted(found, key=lambda event: (-event.score, event.name)):
        if all(_shared(event, other) < TOGETHER for other in kept):
            kept.append(event)
    return kept


def _shared(one: Heard, other: Heard) -> float:
    """How much of the time that either lasts both do."""
    both = min(one.offset, other.offset) - max(one.onset, other.onset)
    return max(0.0, both) / (max(one.offset, other.offset) - min(one.onset, other.onset))


def stretches(scores: np.ndarray) -> list[tuple[int, int]]:
    """Where one sound is heard: pairs of the first step and the one after the last."""
    found: list[tuple[int, int]] = []
    above = np.flatnonzero(scores >= GO_ON)
    if not len(above):
        return found
    cuts = np.flatnonzero(np.diff(above) > GAP_STEPS + 1)
    for part in np.split(above, cuts + 1):
        if scores[part].max() >= BEGIN:
            found.append((int(part[0]), int(part[-1]) + 1))
    return found


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """Level of every 10 ms in dB re full scale."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return 10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10)))


def _edges(levels: np.ndarray, onset: float, offset: float) -> tuple[float, float]:
    """Onset and offset moved inward over what is silent: a step is half a second, a sound begins within it."""
    part = levels[int(onset * 100) : int(np.ceil(offset * 100))]
    if not len(part):
        return onset, offset
    loud = np.flatnonzero(part > max(part.max() - 35.0, FLOOR_DB + 3.0))
    if not len(loud):
        return onset, offset
    return onset + float(loud[0]) / 100, onset + float(loud[-1] + 1) / 100


def strokes(levels: np.ndarray) -> int:
    """How many times loudness jumps up, at least once; from the levels of every 10 ms."""
    smooth = np.convolve(np.pad(levels, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    count, lowest, last = 0, FLOOR_DB, -STROKE_FRAMES
    for place, level in enumerate(smooth):
        lowest = min(lowest, level)
        if level - lowest >= STROKE_DB:
            if place - last >= STROKE_FRAMES:
                count, last = count + 1, place
            lowest = level
    return max(1, count)
