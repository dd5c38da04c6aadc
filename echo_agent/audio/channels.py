"""How channels become one: their mean, unless they cancel each other out in it.

A cable that was soldered the wrong way round, or an interview of which one channel was inverted, sounds all right on
loudspeakers and is silence in the mean. Where that is so, the inverted channels are turned round, or where that
would cancel out other places, the loudest channel is heard alone; and it is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Balance", "down_mix"]

_QUIET = 1e-6
"""Power below which a stretch says nothing: -60 dB of full scale."""
_FAR_BELOW = 1e-3
"""Nor does a stretch whose power is less than this share of the loudest."""
_LEFT = 0.1
"""Channels cancel out where the mean has less than this share of the power that unrelated channels leave in it."""
_OFTEN = 0.05
"""Share of the stretches that say something in which channels must cancel out for it to matter."""
_MOST = 20_000
"""Stretches that are kept."""


class Balance:
    """Collects how the channels of a recording go together, from short stretches of it."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._stretches: list[NDArray[np.float64]] = []

    def add(self, block: NDArray[Any]) -> None:
        """Take note of a stretch, floats `[samples, channels]`; a tenth of a second or so."""
        if len(block) and block.shape[1] > 1 and len(self._stretches) < _MOST:
            finite = np.nan_to_num(np.asarray(block, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
            self._stretches.append(finite.T @ finite / len(finite))

    def weights(self) -> tuple[tuple[float, ...] | None, str | None]:
        """With what each channel is to be taken, None for their mean; and what to say about it."""
        if not self._stretches:
            return None, None
        products = np.stack(self._stretches)
        power = np.trace(products, axis1=1, axis2=2)
        products = products[(power > _QUIET) & (power > _FAR_BELOW * power.max())]
        count = products.shape[1]
        mean = np.full(count, 1.0 / count)
        if not len(products) or not _cancels(products, mean):
            return None, None
        together = products.sum(axis=0)
        loud = np.diag(together)
        loudest = int(np.argmax(loud > 0.9 * loud.max()))  # the first of those that are about equally loud
        signs = np.where(together[loudest] < 0, -1.0, 1.0)
        said = "its channels cancel each other out when they are mixed (one is the other inverted); "
        if not _cancels(products, signs / count):
            return tuple(
                map(float, signs / count)
            ), said + "they are heard with the inverted ones turned round"
        alone = tuple(float(i == loudest) for i in range(count))
        return alone, said + f"channel {loudest + 1} is heard alone"


def _cancels(products: NDArray[np.float64], weights: NDArray[np.float64]) -> bool:
    """Whether a mix with these weights leaves next to nothing in a good part of the stretches."""
    count = len(weights)
    mixed = np.einsum("i,nij,j->n", weights, products, weights)
    unrelated = np.trace(products, axis1=1, axis2=2) / count**2
    return float(np.mean(mixed < _LEFT * unrelated)) > _OFTEN


def down_mix(block: NDArray[Any], weights: Sequence[float] | None) -> NDArray[Any]:
    """Make `[samples, channels]` into `[samples]`: the mean, or the sum with the weights."""
    if block.shape[1] == 1:
        return block[:, 0]
    return block.mean(axis=1) if weights is None else block @ np.asarray(weights, block.dtype)
