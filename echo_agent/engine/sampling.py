"""Choosing the next token of many runs at once, so that it does not matter which runs share a batch.

The noise of a run is a function of (seed, run, position in the context, token id) alone: a counter-based hash, computed
for the whole vocabulary in a handful of integer operations on the model's device. The token is chosen by the Gumbel-max
trick, in the form ``argmax p / E`` with ``E`` exponential: equal in law to sampling from ``p``, and a small change of
the scores changes the choice only where the two best candidates nearly tie. Such near ties are counted.

Shapes: ``[rows, vocabulary]`` float32 scores; one row per run.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from echo_agent.engine.generation import SamplingParams

NEAR = 1e-4
"""Two perturbed scores closer than this (in nats) are a near tie; also the slack at the edge of the top-p set."""

_HALF = math.log(0.5)
_LOW32 = 0xFFFFFFFF
_HEAD = 64
"""How many of the likeliest tokens are looked at first for top-p, before sorting the whole vocabulary."""


def noise_key(seed: int, run: int) -> tuple[int, int]:
    """Two 32-bit words that stand for (seed, run); any integers will do."""
    digest = hashlib.blake2b(f"{seed}/{run}".encode(), digest_size=8).digest()
    first, second = struct.unpack("<II", digest)
    return first, second


@dataclass(frozen=True)
class Rows:
    """The sampling parameters of the rows of a batch, as tensors; rebuilt when the batch's rows change."""

    temperature: Tensor | None
    """``[rows, 1]``, 1 for greedy rows; None where all are 1."""
    greedy: Tensor | None
    """``[rows, 1]`` bool; None where no row is greedy."""
    noisy: bool
    """Whether any row is sampled with noise."""
    top_p: Tensor | None
    """``[rows, 1]``; None where all are 1."""
    keys: Tensor
    """``[rows, 2]`` int64: :func:`noise_key` of each row."""

    @classmethod
    def of(cls, params: Sequence[SamplingParams], device: torch.device) -> Rows:
        """The parameters of these runs, in this order."""
        greedy = [p.temperature == 0 for p in params]
        temperatures = [p.temperature or 1.0 for p in params]
        # Greedy rows have no top-p set: the likeliest token is always in it.
        top_p = [1.0 if g else p.top_p for p, g in zip(params, greedy, strict=True)]
        keys = [noise_key(p.seed, p.run) for p in params]

        def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)[:, None]

        return cls(
            temperature=None if set(temperatures) == {1.0} else column(temperatures, torch.float32),
            greedy=column(greedy, torch.bool) if any(greedy) and not all(greedy) else None,
            noisy=not all(greedy),
            top_p=None if set(top_p) == {1.0} else column(top_p, torch.float32),
            keys=torch.tensor(keys, dtype=torch.int64, device=device),
        )


def choose(
    scores: Tensor,
    rows: Rows,
    positions: Tensor,
    banned: Tensor,
    kept: Mapping[int, Sequence[int]] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose one token per row. ``scores`` is used up: it is written into.

    Args:
        scores: The model's scores ``[rows, vocabulary]``, float32.
        rows: Sampling parameters of the rows.
        positions: ``[rows]`` int64, the position in the context of the token that is chosen.
        banned: Ids that are never chosen, int64.
        kept: For some rows, the ids of which one is chosen; none of them is banned.

    Returns:
        Token ids ``[rows]``, their log-probabilities under the full softmax at the row's temperature, whether the
        choice was a near tie, and whether ``kept`` left less than half of the probability.
    """
    if rows.temperature is not None:
        scores = scores / rows.temperature
    share = _keep(scores, kept) if kept else scores.new_zeros(len(scores))
    steered = share < _HALF
    if not rows.noisy:
        normaliser = scores.logsumexp(1)
        best = scores.index_fill_(1, banned, float("-inf")).topk(2, dim=1)
        values, tokens = best.values, best.indices[:, 0]
        return tokens, values[:, 0] - normaliser + share, values[:, 1] >= values[:, 0] - NEAR, steered

    outside = scores.index_select(1, banned)
    scores.index_fill_(1, banned, float("-inf"))
    top = scores.amax(1, keepdim=True)
    weights = (scores - top).exp_()
    total = weights.sum(1, keepdim=True)
    # A banned token may stand far above all others: its share is added in the log domain.
    normaliser = torch.logaddexp(total.log(), (outside - top).logsumexp(1, keepdim=True)) + top
    noise = log_uniform(rows.keys, positions, scores.shape[1])
    if rows.greedy is not None:
        noise.masked_fill_(rows.greedy, -1.0)
    keys = weights / noise  # at most 0; the least is chosen

    if rows.top_p is None:
        best = keys.topk(2, dim=1, largest=False)
        tokens, values = best.indices[:, :1], best.values
        ties = values[:, 1] <= values[:, 0] * (1 - NEAR)
    else:
        # Just inside, at, and just outside the edge of the set: where that changes the winner, it is a near tie.
        inner, edge, outer = _thresholds(weights, total, rows.top_p)
        least = keys.where(weights >= inner, 0).amin(1, keepdim=True)
        ties = ((weights >= outer) & (keys <= least * (1 - NEAR))).sum(1) > 1
        tokens = keys.where(weights >= edge, 0).argmin(1, keepdim=True)
    logprobs = scores.gather(1, tokens) - normaliser
    return tokens[:, 0], logprobs[:, 0] + share, ties, steered


def _keep(scores: Tensor, kept: Mapping[int, Sequence[int]]) -> Tensor:
    """Ban, in place, all but the ``kept`` ids of some rows; gives each row's log-share of probability that is left."""
    device = scores.device
    rows = torch.tensor(list(kept), device=device)
    which = torch.tensor([i for i, ids in enumerate(kept.values()) for _ in ids], device=device)
    columns = torch.tensor([token for ids in kept.values() for token in ids], device=device)
    free = scores.index_select(0, rows)
    left = torch.full_like(free, float("-inf"))
    left[which, columns] = free[which, columns]
    scores.index_copy_(0, rows, left)
    share = left.logsumexp(1) - free.logsumexp(1)
    return torch.zeros(len(scores), device=device).index_copy_(0, rows, share)


def log_uniform(keys: Tensor, positions: Tensor, vocabulary: int) -> Tensor:
    """Logarithms of uniform noise ``[rows, vocabulary]``, below 0: their negatives are exponentially distributed.

    A function of each row's key, its position, and the token id.
    """
    words = _mix((keys + positions[:, None] * _strides(keys.device)) & _LOW32).to(torch.int32)
    value = _token_words(vocabulary, keys.device) ^ words[:, :1]
    value *= words[:, 1:] | 1
    value ^= value >> 15
    value *= 0x2C1B3C6D
    value ^= value >> 12
    value &= 0x7FFFFFFF
    # log(1 - u) for u in (0, 1): small u, by which the likely winners are decided, are held most finely.
    return value.to(torch.float32).add_(0.5).mul_(-(2.0**-31) * (1 - 2.0**-22)).log1p_()


def _mix(words: Tensor) -> Tensor:
    """A bijection of 32-bit words (held as int64) in which every bit depends on every bit."""
    words = words ^ (words >> 16)
    words = (words * 0x21F0AAAD) & _LOW32
    words = words ^ (words >> 15)
    words = (words * 0x735A2D97) & _LOW32
    return words ^ (words >> 15)


@lru_cache(maxsize=8)
def _token_words(vocabulary: int, device: torch.device) -> Tensor:
    """One well-mixed word per token id ``[1, vocabulary]`` int32."""
    return _mix((torch.arange(1, vocabulary + 1, device=device) * 0x9E3779B1) & _LOW32).to(torch.int32)[None]


@lru_cache(maxsize=8)
def _strides(device: torch.device) -> Tensor:
    """By how much the two words of a key move from one position to the next."""
    return torch.tensor([[0x9E3779B1, 0x85EBCA77]], device=device)


def _thresholds(weights: Tensor, total: Tensor, top_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least weight in the top-p set: for a slightly smaller set, the set itself, and a slightly larger one."""
    head = min(_HEAD, weights.shape[1])
    values = weights.topk(head, dim=1).values
    mass = values.cumsum(1) / total
    if head < weights.shape[1] and bool((mass[:, -1:] < (top_p + NEAR).where(top_p < 1, 0)).any()):
        values = weights.sort(dim=1, descending=True).values
        mass = values.cumsum(1) / total
    before = mass - values / total

    def least(limit: Tensor) -> Tensor:
        count = (before < limit).sum(1, keepdim=True).clamp_(min=1)
        return values.gather(1, count - 1).where(limit < 1, 0)

    return least(top_p - NEAR).where(top_p < 1, 0), least(top_p), least(top_p + NEAR)
