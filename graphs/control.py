"""Controls of what is delivered in the place of what was asked for: a wrong crop, silence, or the right crop.

A wrong crop and silence have the length and the transform of what was asked for; the right crop (``oracle``) is a gold
span, however long that is.

If listening again helps because of *what* is heard, the right crop must beat a wrong one that costs the same. The wrong
place overlaps neither with a gold span nor with what was asked for, is not silence, and follows from the seed. Where no
such place exists, the one with the least overlap is taken, and the record says so. Times are seconds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import ceil, floor

import numpy as np

from echo_agent.audio.recording import AudioRef, Recording, rms_db
from echo_agent.families.base import Limits
from echo_agent.spans import seconds_on, union
from echo_agent.stores import RecordingStore
from echo_agent.tools.relisten import RelistenArgs, resolve_span

SILENT_DB = -60.0
"""Level in dB of full scale up to which a stretch counts as silence."""

TRIES = 24
"""Places that are listened to before silence is accepted."""
STEP = 0.05
"""Grid on which the place of least overlap is looked for."""
RATE = 16000
SILENT_RATE = 8000
"""Samples per second of silence, in Hz."""


def wrong_crop(
    asked: AudioRef, avoid: Sequence[tuple[float, float]], store: RecordingStore, seed: int
) -> tuple[AudioRef, float]:
    """Another place for a crop.

    Args:
        asked: What was asked for.
        avoid: Spans that the crop must not lie on, besides what was asked for.
        store: Where the recording is, to hear whether a place is silent.
        seed: The place follows from the seed and from what was asked for.

    Returns:
        The crop, and the seconds by which it overlaps with what it should not.
    """
    length, duration = asked.end - asked.start, asked.duration
    taken = union([(asked.start, asked.end), *avoid])
    noise = random.Random(f"{seed}/{asked.key()}")
    free = [(ceil(a * 1000), floor((b - length) * 1000)) for a, b in _gaps(taken, duration)]
    free = [(first, last) for first, last in free if first <= last]
    best: tuple[float, AudioRef] | None = None
    for _ in range(TRIES if free else 0):
        crop = _moved(asked, _draw(free, noise), length)
        level = _level(crop, store)
        if best is None or level > best[0]:
            best = (level, crop)
        if level > SILENT_DB:
            break
    if best is not None and best[0] > SILENT_DB:
        return best[1], 0.0
    starts = np.arange(0.0, duration - length + 1e-9, STEP).tolist() or [0.0]
    noise.shuffle(starts)
    places = sorted((seconds_on((start, start + length), taken), i) for i, start in enumerate(starts))
    places = [place for place in places if place[0] > 0 or not free] or places  # the free ones were silent
    for _, i in places[:TRIES]:
        crop = _moved(asked, starts[i], length)
        if _level(crop, store) > SILENT_DB:
            return crop, round(seconds_on((crop.start, crop.end), taken), 3)
    crop = best[1] if best is not None else _moved(asked, starts[places[0][1]], length)
    return crop, round(seconds_on((crop.start, crop.end), taken), 3)


def silent_crop(asked: AudioRef, store: RecordingStore) -> AudioRef:
    """As much silence as was asked for, at the same seconds of a recording in which nothing is heard."""
    samples = np.zeros(ceil(asked.duration) * SILENT_RATE, dtype=np.float32)
    silence = store.add(Recording.from_array(samples, SILENT_RATE, "silence"))
    return silence.span(asked.start, asked.end, asked.transform)


def right_crop(
    asked: AudioRef, gold_spans: Sequence[tuple[float, float]], number: int, limits: Limits
) -> tuple[AudioRef, float]:
    """A place where the answer is, as a crop that the model can hear.

    Args:
        asked: What was asked for; its transform is kept.
        gold_spans: Where the answer is.
        number: Which call of the run it answers, from 0: each gold span is delivered in turn.
        limits: What the model can hear: a gold span is widened or cut to it, as one that is asked for would be.

    Returns:
        The crop, and the seconds of it that lie on gold spans. What was asked for itself, where there are none.
    """
    if not gold_spans:
        return asked, 0.0
    start, end = gold_spans[number % len(gold_spans)]
    args = RelistenArgs(start=start, end=end, **asked.transform.model_dump())
    crop = resolve_span(args, [asked.span()], limits).ref
    if crop is None:  # beyond the end of the recording
        return asked, 0.0
    return crop, round(seconds_on((crop.start, crop.end), union(gold_spans)), 3)


def _gaps(taken: Sequence[tuple[float, float]], duration: float) -> list[tuple[float, float]]:
    """What is left of a recording."""
    edges = [0.0, *(edge for span in taken for edge in span), duration]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]


def _draw(ranges: Sequence[tuple[int, int]], noise: random.Random) -> float:
    """A time in seconds from ranges of milliseconds, each millisecond as likely as any other."""
    first, last = noise.choices(ranges, [last - first + 1 for first, last in ranges])[0]
    return noise.randint(first, last) / 1000


def _moved(asked: AudioRef, start: float, length: float) -> AudioRef:
    """The same crop at another place."""
    start = max(0.0, min(start, asked.duration - length))
    end = min(start + length, asked.duration)
    return AudioRef(**asked.model_dump(exclude={"start", "end"}), start=start, end=end)


def _level(crop: AudioRef, store: RecordingStore) -> float:
    """Level in dB of a crop before its transform (a gain must not turn silence into sound)."""
    return rms_db(store.get(crop).read(crop.start, crop.end, RATE))
