"""Spans of time as answers: reading them, and how well they meet the right one. Times are seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence

Span = tuple[float, float]

THRESHOLDS = (0.3, 0.5, 0.7)
"""IoU from which a span counts as found."""
_CLOCK = re.compile(r"(\d+):(\d+)\s*-\s*(\d+):(\d+)")
_TIMES = re.compile(r"(?<![\d:.])(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d+)?)(?![\d:])")


def official_span(text: str) -> Span | None:
    """A span as LAT-Bench's own script reads it: the first ``MM:SS-MM:SS``, with or without brackets."""
    found = _CLOCK.search(text.replace("[", "").replace("]", ""))
    if found is None:
        return None
    first, second, third, fourth = (int(part) for part in found.groups())
    return (float(first * 60 + second), float(third * 60 + fourth))


def read_span(text: str | None) -> Span | None:
    """The one span of an answer: two times, as ``MM:SS``, ``H:MM:SS`` or seconds, the earlier first.

    Returns:
        None where there are fewer or more than two times, or they are not in order: nothing is guessed.
    """
    times = [_seconds(*found.groups()) for found in _TIMES.finditer(text or "")]
    if len(times) != 2 or times[0] >= times[1]:
        return None
    return times[0], times[1]


def clock_span(span: Span) -> str:
    """A span as LAT-Bench writes it: ``[MM:SS-MM:SS]`` in whole seconds."""
    return f"[{'-'.join(f'{int(t) // 60:02d}:{int(t) % 60:02d}' for t in map(round, span))}]"


def iou(one: Span | None, other: Span | None) -> float:
    """Intersection over union of two spans; 0 where one is missing or does not end after it begins."""
    if one is None or other is None or one[0] >= one[1] or other[0] >= other[1]:
        return 0.0
    both = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return both / ((one[1] - one[0]) + (other[1] - other[0]) - both)


def recalls(ious: Sequence[float]) -> dict[str, float]:
    """Mean IoU, and the share of spans that were found, by threshold; 0 where there are none."""
    count = len(ious) or 1
    found = {f"R@{bound:g}": sum(value >= bound for value in ious) / count for bound in THRESHOLDS}
    return {"mIoU": sum(ious) / count, **found}


def _seconds(first: str | None, second: str | None, last: str) -> float:
    """Seconds of a time of one, two or three parts."""
    seconds = 0.0
    for part in (first, second, last):
        seconds = seconds * 60 + float(part) if part is not None else seconds
    return seconds
