"""Attention over packs: what is shared is seen by every question, and no question by another.

A row of packs (:mod:`echo_agent.finetune.small.packing`) is a row of trees: a stem, read in order, and branches that go
on from it, each as if it were alone. With a mask, every token would be held against every other of its row, and most
of these products be thrown away. Here each branch is held against its stem and itself alone, in float32, which also
spares a CPU from preparing its bfloat16 products anew for every new shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

TREES = "trees"
"""The name of this attention in transformers (``attn_implementation``); a call of the model has ``trees``."""


@dataclass(frozen=True)
class Tree:
    """Where a pack stands in its row."""

    start: int
    stem: int
    """Tokens that all branches see."""
    branches: tuple[int, ...] = ()
    """Tokens of each branch, which follow the stem in order."""


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    *,
    trees: Sequence[Tree],
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within trees that fill one row.

    Args:
        module: The layer, for transformers' sake.
        query: ``[1, heads, length, width]``
        key: ``[1, key heads, length, width]``, as ``value``.
        value: See ``key``.
        attention_mask: None: the trees say what is seen.
        scaling: Factor of the scores.
        trees: They cover the row from its first token to its last.
        others: What transformers hands to every attention (dropout, which Llama does not use).

    Returns:
        ``[1, length, heads, width]``, and no weights.
    """
    _, heads, length, width = query.shape
    groups = key.shape[1]
    queries = (query[0].float() * scaling).view(groups, heads // groups, length, width)
    keys, values = key[0].float(), value[0].float()
    seen: list[Tensor] = []
    for tree in trees:
        stem = slice(tree.start, tree.start + tree.stem)
        seen.append(_attended(queries[:, :, stem], keys[:, stem], values[:, stem]))
        end = stem.stop
        for size in tree.branches:
            own = slice(end, end + size)
            seen.append(
                _attended(
                    queries[:, :, own],
                    torch.cat([keys[:, stem], keys[:, own]], dim=1),
                    torch.cat([values[:, stem], values[:, own]], dim=1),
                )
            )
            end = own.stop
    out = torch.cat(seen, dim=2).reshape(1, heads, length, width)
    return out.transpose(1, 2).to(query.dtype), None


def _attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention of the last tokens to all before them ``[groups, heads of a group, tokens, width]``."""
    groups, heads, size, width = queries.shape
    seen = keys.shape[1]
    # The heads that share a key go through as one product.
    scores = (queries.reshape(groups, heads * size, width) @ keys.mT).view(groups, heads, size, seen)
    ahead = torch.ones(size, seen, dtype=torch.bool, device=keys.device).triu(seen - size + 1)
    weights = scores.masked_fill(ahead, -math.inf).softmax(-1)
    return (weights.view(groups, heads * size, seen) @ values).view(groups, heads, size, width)


AttentionInterface.register(TREES, tree_attention)
