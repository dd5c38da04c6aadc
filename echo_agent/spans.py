"""Spans of time: what several cover together, and how much of one lies on others. Times are seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Span = tuple[float, float]
"""Start and end."""


def union(spans: Iterable[Span]) -> list[Span]:
    """Disjoint spans, in order, that cover the same."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def seconds_on(span: Span, spans: Sequence[Span]) -> float:
    """Seconds of ``span`` that lie on disjoint ``spans``."""
    return sum(max(0.0, min(span[1], end) - max(span[0], start)) for start, end in spans)
