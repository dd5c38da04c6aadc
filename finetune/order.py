"""In which order a training meets its examples: a function of the seed alone, for the whole run at once.

Trainers draw a new order each time that they begin to pass over their data, from generators whose state is not that of
the first run when a run is gone on with later. So the order of all passes is laid down beforehand, and a trainer goes
through it once, from the first row to the last: a stopped run finds its place by counting.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STRETCH = 50
"""Steps whose examples are sorted by length together."""


def passes(count: int, total: int, seed: int) -> list[int]:
    """The places of ``count`` examples, shuffled anew for each pass over them, until there are ``total``."""
    rng = np.random.default_rng([seed, 19])
    rounds = -(-total // count)
    return [int(place) for _ in range(rounds) for place in rng.permutation(count)][:total]


def by_length(places: Sequence[int], lengths: Sequence[int], step: int, seed: int) -> list[int]:
    """The same places, moved within stretches so that the ``step`` examples of one step are about equally long.

    The step with the longest example of all comes first: if it does not fit into memory, that is known at once.

    Args:
        places: In order; a multiple of ``step``.
        lengths: By place.
        step: Examples per optimiser step.
        seed: Of the order of steps within a stretch.
    """
    rng = np.random.default_rng([seed, 23])
    steps: list[Sequence[int]] = []
    for first in range(0, len(places), STRETCH * step):
        stretch = sorted(places[first : first + STRETCH * step], key=lambda place: lengths[place])
        cut = [stretch[start : start + step] for start in range(0, len(stretch), step)]
        steps += [cut[int(i)] for i in rng.permutation(len(cut))]
    longest = max(range(len(steps)), key=lambda i: max(lengths[place] for place in steps[i]))
    steps[0], steps[longest] = steps[longest], steps[0]
    return [place for one in steps for place in one]
