"""The gate's verdict: which categories are about *detail*, from which length of a recording on.

There a probe that is told where to look reads at least 25 points less from the first listen of echo-nano than from a
closer one. Measured by ``benchmarks/gate.py``; the table is frozen in ``benchmarks/results/gate.json``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

DETAIL_FROM: Mapping[str, float] = {"count": 16, "digit_sequence": 41, "word": 75, "digit": 84}
"""Seconds of recording from which a question of a category is about detail."""


READ_AS: Mapping[str, str] = {"compare/digit": "digit", "compare/hits": "count"}
"""Kinds of questions that are answered by reading what another category reads, in two places."""


def difficulty(kind: str, duration: float) -> str:
    """``detail`` where the gate says that the first listen is not enough, else ``plain``.

    Args:
        kind: A category, or ``category/variant``.
        duration: Seconds of the recording.
    """
    category = READ_AS.get(kind, kind.partition("/")[0])
    return "detail" if duration >= DETAIL_FROM.get(category, math.inf) else "plain"
