"""The live batch: all requests that are being decoded, in one KV cache, one token each per step.

The cache has rows of slots. A row's tokens lie in its slots from 0 on without holes, each row as long as it is; a step
writes one token per row into the row's own next slot and attends to as many slots as the longest row has, the rest
being masked. So nothing is padded, moved or allocated from one step to the next: a request that ends gives its row to
the last one, a request that joins is copied in, and the memory grows now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from echo_agent.engine.kv import KV
from echo_agent.engine.request import Request, SampledToken
from echo_agent.engine.sampling import Rows, choose

if TYPE_CHECKING:
    from echo_agent.families.base import Family

_ROUND = 64
"""Slots are allocated in multiples of this."""

_IDLE_BYTES = 256 << 20
"""A cache larger than this is given back when no request is left."""


class _DecodeLayer(CacheLayerMixin):
    """One layer of the live batch's cache, as transformers wants to see it."""

    is_sliding = False

    def __init__(self, kv: Tensor) -> None:
        """Take the layer's part of the cache, ``[2, rows, slots, heads, head width]``."""
        super().__init__()
        self.is_initialized = True
        self._keys, self._values = kv[0], kv[1]
        self._flat_keys, self._flat_values = self._keys.flatten(0, 1), self._values.flatten(0, 1)
        self._rows = self._width = 0
        self._slots: Tensor | None = None

    def prepare(self, rows: int, width: int, slots: Tensor) -> None:
        """Say where the next tokens go: ``slots`` counts over all rows, ``width`` includes the new ones."""
        self._rows, self._width, self._slots = rows, width, slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: the memory is the batch's."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one token per row; gives all slots ``[rows, heads, width, head width]``."""
        assert self._slots is not None
        self._flat_keys.index_copy_(0, self._slots, key_states[:, :, 0])
        self._flat_values.index_copy_(0, self._slots, value_states[:, :, 0])
        keys = self._keys[: self._rows, : self._width].transpose(1, 2)
        return keys, self._values[: self._rows, : self._width].transpose(1, 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what is attended to."""
        return self._width, 0

    def get_seq_length(self) -> int:
        """Slots before the new one of the longest row: no slot is later than a query, the mask does the rest."""
        return self._width - 1

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class LiveBatch:
    """The requests that are being decoded. Used by the engine's thread only."""

    def __init__(self, family: Family, max_rows: int) -> None:
        """Start empty; memory for at most ``max_rows`` rows is taken as it is needed."""
        self._family = family
        self._max_rows = max_rows
        self._banned = torch.tensor(sorted(family.banned_ids), dtype=torch.int64, device=family.device)
        self.requests: list[Request] = []
        self._kv: KV | None = None
        self._layers: list[_DecodeLayer] = []
        self._cache: Cache | None = None
        self._stale = True
        self._token_bytes = 0
        """Bytes of one slot, once that is known."""
        # Of the rows, as they are before the next step:
        self._width = 0
        self._rows: Rows | None = None
        self._lengths = self._offsets = self._tokens = self._slot_numbers = torch.empty(0)

    @property
    def nbytes(self) -> int:
        """Bytes of the cache."""
        return 0 if self._kv is None else self._kv.nbytes

    def choose(self, scores: Tensor, requests: Sequence[Request]) -> list[SampledToken]:
        """Choose the next token of ``requests`` from ``scores``, one row each: see :data:`SampledToken`."""
        rows = Rows.of([request.params for request in requests], scores.device)
        positions = torch.tensor([request.length for request in requests], device=scores.device)
        return _listed(*choose(scores, rows, positions, self._banned, _kept(requests)))

    def join(self, request: Request, parts: Sequence[KV]) -> None:
        """Add a request whose last token was sampled but not computed; ``parts`` are the KV of all tokens before it."""
        row, length = len(self.requests), request.length - 1
        kv = self._reserve(row + 1, length + 1, parts[0])
        done = 0
        for part in parts:
            kv[:, :, row, done : done + part.tokens] = part
            done += part.tokens
        assert done == length, f"KV of {done} tokens for a context of {length}"
        self.requests.append(request)
        self._stale = True

    def kv(self, row: int) -> KV:
        """A view of the KV of a row: of all its tokens but the last."""
        assert self._kv is not None
        return self._kv[:, :, row, : self.requests[row].length - 1]

    def leave(self, rows: Sequence[int]) -> None:
        """Take requests out; each row is filled with the last one."""
        for row in sorted(rows, reverse=True):
            last = len(self.requests) - 1
            if self._kv is not None and self.requests[row].dead:
                self._kv[:, :, row].each(Tensor.zero_)  # it may hold what is not a number
            if self._kv is not None and row < last:
                length = self.requests[last].length - 1
                self._kv[:, :, row, :length] = self._kv[:, :, last, :length]
            self.requests[row] = self.requests[last]
            self.requests.pop()
        self._stale = True
        if not self.requests and self.nbytes > _IDLE_BYTES:
            self.clear()

    def bytes_with(self, requests: Sequence[Request]) -> int:
        """Bytes that the cache would take with ``requests`` added, as far as that can be foreseen."""
        everyone = [*self.requests, *requests]
        if not everyone:
            return 0
        rows, slots = self._shape(len(everyone), max(request.length for request in everyone))
        return rows * slots * self._token_bytes

    def clear(self) -> None:
        """Drop all runs and give the memory back."""
        self.requests.clear()
        self._kv, self._cache, self._layers = None, None, []

    def step(self) -> list[SampledToken]:
        """Compute the last token of every request and choose the next: row by row."""
        if self._stale:
            self._refresh()
        count, width = len(self.requests), self._width + 1
        assert self._kv is not None and self._rows is not None
        if width > self._slots:
            self._reserve(count, width, self._kv[:, :, 0])
            self._refresh()
        slots = self._offsets + self._lengths
        for layer in self._layers:
            layer.prepare(count, width, slots)
        lengths = self._lengths[:, None]
        mask = self._slot_numbers[:, :width] <= lengths
        embeds = self._family.token_embeds(self._tokens[:, None])
        hidden, _ = self._family.forward_embeds(embeds, mask, lengths, self._cache)
        scores = self._family.logits(hidden[:, -1])
        self._lengths = self._lengths + 1
        chosen = choose(scores, self._rows, self._lengths, self._banned, _kept(self.requests))
        self._tokens = chosen[0]
        self._width = width
        return _listed(*chosen)

    def _refresh(self) -> None:
        """Rebuild the tensors that describe the rows, after rows or memory have changed."""
        assert self._kv is not None
        device, slots = self._kv.stacks[0].device, self._slots
        lengths = [request.length - 1 for request in self.requests]
        self._width = max(lengths)
        self._rows = Rows.of([request.params for request in self.requests], device)
        self._lengths = torch.tensor(lengths, device=device)
        self._tokens = torch.tensor([request.sampled[-1] for request in self.requests], device=device)
        self._offsets = torch.arange(len(lengths), device=device) * slots
        self._slot_numbers = torch.arange(slots, device=device)[None]
        self._stale = False

    def _reserve(self, rows: int, slots: int, like: KV) -> KV:
        """Make room for ``rows`` rows of ``slots`` slots; ``like`` is the KV of some tokens."""
        old = self._kv
        if old is not None and rows <= old.stacks[0].shape[2] and slots <= self._slots:
            return old
        # As much as is needed now: what requests that have left once needed is given back.
        rows, slots = self._shape(rows, max([slots, *(request.length for request in self.requests)]))
        self._token_bytes = like.token_bytes
        # Zeros: a masked slot is multiplied by zero, which only a number survives.
        kv = like.rows(rows, slots)
        if old is not None:
            for row, request in enumerate(self.requests):
                kv[:, :, row, : request.length - 1] = old[:, :, row, : request.length - 1]
        self._kv = kv
        self._layers = [_DecodeLayer(layer) for layer in kv.layers()]
        self._cache = Cache(layers=list(self._layers))
        self._stale = True
        return kv

    @property
    def _slots(self) -> int:
        """Slots of each row that there is memory for."""
        return 0 if self._kv is None else self._kv.stacks[0].shape[3]

    def _shape(self, rows: int, slots: int) -> tuple[int, int]:
        """Rows and slots to take memory for, so that not every step or request asks for more."""
        slots = max(slots + _ROUND, slots * 5 // 4)
        return min(self._max_rows, 1 << (rows - 1).bit_length()), -(-slots // _ROUND) * _ROUND


def _kept(requests: Sequence[Request]) -> dict[int, Sequence[int]]:
    """Of which ids the next token is sampled, for the rows inside a guided answer."""
    return {row: kept for row, request in enumerate(requests) if (kept := request.kept)}


def _listed(tokens: Tensor, logprobs: Tensor, ties: Tensor, steered: Tensor) -> list[SampledToken]:
    """The choices as numbers, brought over from the device at once (float64 holds an id exactly)."""
    table = torch.stack([tokens.double(), logprobs.double(), ties.double(), steered.double()], dim=1).tolist()
    return [(int(token), logprob, bool(tie), bool(off)) for token, logprob, tie, off in table]
