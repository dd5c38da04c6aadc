"""Keys and values (KV) of tokens, for all layers of a decoder that keep any.

In most decoders every layer keeps keys and values of one shape, and all of them lie in one tensor. Some have layers of
several shapes (in Gemma 4 those that look back over everything have wider heads than those that look back over a
window), and layers that keep nothing, since they read what an earlier one kept. So the KV of tokens is a *stack* of
layers for each shape, and what is done to it is done to each stack alike. Keys and values of one layer have one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class KV:
    """Keys and values of some tokens; an index or a change of one is that of every stack.

    Stacks are ``[layers, 2, ..., heads, head width]``; between them stand tokens, or rows and slots.
    """

    stacks: tuple[Tensor, ...]
    """One tensor for each shape."""
    order: tuple[int, ...]
    """In which stack each layer lies, from the first layer that keeps anything to the last."""

    @classmethod
    def of(cls, layers: Sequence[Tensor]) -> KV:
        """Stack the layers of a decoder, each ``[2, ..., heads, head width]`` (or with its axes in another order)."""
        shapes = list(dict.fromkeys(layer.shape for layer in layers))
        order = tuple(shapes.index(layer.shape) for layer in layers)
        alike = [[layer for layer in layers if layer.shape == shape] for shape in shapes]
        return cls(tuple(map(torch.stack, alike)), order)

    @classmethod
    def joined(cls, parts: Sequence[KV]) -> KV:
        """The tokens of several, ``[layers, 2, tokens, heads, head width]``, one after the other."""
        stacks = zip(*(part.stacks for part in parts), strict=True)
        return cls(tuple(torch.cat(stack, dim=2) for stack in stacks), parts[0].order)

    def layers(self) -> list[Tensor]:
        """Each layer by itself, in the order of the decoder."""
        rest = [iter(stack) for stack in self.stacks]
        return [next(rest[number]) for number in self.order]

    def each(self, change: Callable[[Tensor], Tensor]) -> KV:
        """The same change made to every stack."""
        return KV(tuple(map(change, self.stacks)), self.order)

    def rows(self, rows: int, slots: int) -> KV:
        """Zeros ``[layers, 2, rows, slots, heads, head width]`` like these tokens."""
        return self.each(lambda stack: stack.new_zeros(*stack.shape[:2], rows, slots, *stack.shape[-2:]))

    def __getitem__(self, index: Any) -> KV:
        """A view: the same part of every stack."""
        return self.each(lambda stack: stack[index])

    def __setitem__(self, index: Any, kv: KV) -> None:
        """Write to the same part of every stack."""
        for mine, other in zip(self.stacks, kv.stacks, strict=True):
            mine[index] = other

    @property
    def tokens(self) -> int:
        """Number of tokens, where tokens follow the layers."""
        return self.stacks[0].shape[2]

    @property
    def token_bytes(self) -> int:
        """Bytes of one token (or of one slot of one row)."""
        return sum(
            len(stack) * 2 * stack.shape[-2] * stack.shape[-1] * stack.element_size() for stack in self.stacks
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(stack.nbytes for stack in self.stacks)

    @property
    def owns(self) -> bool:
        """Whether it holds memory for nothing but itself."""
        return all(stack.untyped_storage().nbytes() == stack.nbytes for stack in self.stacks)
