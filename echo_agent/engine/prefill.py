"""Computing contexts: many runs as one padded batch, and what they share only once.

The contexts that are let in together are laid out as a tree of *jobs*. A job is a stretch of tokens to compute after a
prefix whose keys and values are known by then: from the prefix cache, or from the job before it. Thirty-two requests
with the same prompt are one job; thirty-two questions about one recording are one job for the recording and one for
each question. Stretches that are longer than the token budget of one forward pass are cut into jobs that follow each
other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from echo_agent.engine.kv import KV
from echo_agent.engine.prefix_cache import Symbols, common
from echo_agent.engine.request import Request

if TYPE_CHECKING:
    from echo_agent.families.base import Family

WORTH_SHARING = 64
"""A common stretch becomes a job of its own if that saves computing this many tokens: a forward pass costs time too."""


@dataclass(eq=False)
class Job:
    """Tokens ``start`` to ``end`` of a context, to be computed after what stands before them."""

    request: Request
    """A request with these tokens (there may be others)."""
    ids: tuple[int, ...]
    """The context of that request."""
    symbols: Symbols
    """Its symbols."""
    start: int
    end: int
    cached: Sequence[KV] = ()
    """KV of the tokens before ``start``, where no job computes them."""
    parent: Job | None = None
    """The job that computes the tokens before ``start``."""
    finishing: list[Request] = field(default_factory=list)
    """Requests whose context ends here: their next token is sampled from this job's scores."""
    sharing: list[Request] = field(default_factory=list)
    """All requests that need these tokens."""
    kv: KV | None = None
    """KV of these tokens, once they are computed."""

    @property
    def ready(self) -> bool:
        """Whether everything before it has been computed."""
        return self.parent is None or self.parent.kv is not None

    def prefix(self) -> list[KV]:
        """KV of the tokens before ``start``, in consecutive parts."""
        if self.parent is None:
            return list(self.cached)
        assert self.parent.kv is not None
        return [*self.parent.prefix(), self.parent.kv]


def plan(requests: Sequence[tuple[Request, Sequence[KV]]], budget: int) -> list[Job]:
    """Lay out what must be computed for requests, each given with the KV of its cached prefix; parents come first."""
    groups: dict[tuple[int, ...], list[tuple[Request, tuple[int, ...], Symbols]]] = defaultdict(list)
    cached: dict[tuple[int, ...], Sequence[KV]] = {}
    for request, parts in requests:
        # Requests with the same cached prefix have the same parts of the same tensors.
        key = tuple(number for part in parts for number in (part.stacks[0].data_ptr(), part.tokens))
        cached[key] = parts
        groups[key].append((request, request.context(), request.symbols()))
    jobs: list[Job] = []
    for key, members in groups.items():
        start = sum(part.tokens for part in cached[key])
        _share(members, start, start, cached[key], None, budget, jobs)
    return jobs


def _share(
    members: Sequence[tuple[Request, tuple[int, ...], Symbols]],
    start: int,
    alike: int,
    cached: Sequence[KV],
    parent: Job | None,
    budget: int,
    jobs: list[Job],
) -> None:
    """Lay out requests that are alike up to ``alike``, whose first ``start`` tokens ``parent`` computes."""
    waiting = [(list(members), start, alike, parent)]
    while waiting:
        group, start, alike, parent = waiting.pop()
        first = group[0][2]
        alike += min(common(first[alike:], symbols[alike:]) for _, _, symbols in group)
        ends = all(len(symbols) == alike for _, _, symbols in group)
        if ends or (alike - start) * (len(group) - 1) >= WORTH_SHARING:
            request, ids, symbols = group[0]
            while start < alike:
                end = min(alike, start + budget)
                parent = Job(request, ids, symbols, start, end, () if parent else cached, parent)
                parent.sharing = [member[0] for member in group]
                jobs.append(parent)
                start = end
        branches: dict[int | None, list[tuple[Request, tuple[int, ...], Symbols]]] = defaultdict(list)
        for member in group:
            if len(member[2]) > alike:
                branches[int(member[2][alike])].append(member)
            elif start == alike and parent is not None:
                parent.finishing.append(member[0])
            else:  # it ends where others go on, and too little is shared
                branches[None].append(member)
        waiting.extend((branch, start, alike, parent) for branch in branches.values())


def next_batch(jobs: Sequence[Job], budget: int) -> list[Job]:
    """The jobs to compute next: ready ones of like length, at most ``budget`` tokens with padding (or one job)."""
    ready = sorted((job for job in jobs if job.ready), key=lambda job: job.start - job.end)
    batch: list[Job] = []
    longest, deepest = 0, 0
    for job in ready:
        longest, deepest = max(longest, job.end - job.start), max(deepest, job.start)
        rows = len(batch) + 1
        if batch and (rows * longest > budget or rows * deepest > 4 * budget):
            break
        batch.append(job)
    return batch


class _PrefillLayer(CacheLayerMixin):
    """One layer's cache for one forward pass: the prefix before it, and the new keys and values after it."""

    is_sliding = False

    def __init__(self, prefix: Tensor | None = None) -> None:
        """Take the prefix ``[2, rows, tokens, heads, width]``, padded on the right; None for none."""
        super().__init__()
        self.is_initialized = True
        self._prefix = None if prefix is None else prefix.transpose(2, 3)
        self.new: Tensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Note the new states ``[2, rows, heads, new, width]``; gives prefix and new states."""
        self.new = torch.stack([key_states, value_states])
        if self._prefix is None:
            return key_states, value_states
        keys, values = self._prefix
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of what is attended to."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Slots of the padded prefix."""
        return 0 if self._prefix is None else self._prefix.shape[3]

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


def compute(family: Family, jobs: Sequence[Job]) -> tuple[Tensor, list[KV]]:
    """Run one batch of jobs: the scores ``[jobs, vocabulary]`` after their last tokens, and the KV of their tokens.

    Slots are ``[prefix, padded | new, padded]``. What is padded is masked, and positions are spelled out.
    """
    device = family.device
    starts = [job.start for job in jobs]
    sizes = [job.end - job.start for job in jobs]
    before, new = max(starts), max(sizes)
    start, size = (torch.tensor(column, device=device)[:, None] for column in (starts, sizes))
    count = torch.arange(before + new, device=device)[None]
    mask = torch.cat([count[:, :before] < start, count[:, :new] < size], dim=1)
    positions = start + torch.minimum(count[:, :new], size - 1)
    rows = [
        [*job.ids[job.start : job.end], *[job.ids[job.end - 1]] * (new - n)]
        for job, n in zip(jobs, sizes, strict=True)
    ]
    embeds = family.token_embeds(torch.tensor(rows, device=device))
    for row, job in enumerate(jobs):
        _place_audio(embeds[row], job)
    cache = _prefix_cache(jobs, before) if before else Cache(layer_class_to_replicate=_PrefillLayer)
    hidden, _ = family.forward_embeds(embeds, mask, positions, cache)
    layers = [layer.new for layer in cache.layers if isinstance(layer, _PrefillLayer)]
    kv = KV.of([layer for layer in layers if layer is not None])
    own = [
        kv[:, :, row, :, :n].each(lambda stack: stack.transpose(2, 3).contiguous())
        for row, n in enumerate(sizes)
    ]
    return family.logits(hidden[torch.arange(len(jobs), device=device), size[:, 0] - 1]), own


def _place_audio(embeds: Tensor, job: Job) -> None:
    """Write audio embeddings over those of the placeholders of one row ``[tokens, hidden]``."""
    request = job.request
    for (first, count), key in zip(request.placeholders, request.keys, strict=True):
        start, end = max(first, job.start), min(first + count, job.end)
        if start < end:
            audio = request.embeds[key][start - first : end - first]
            embeds[start - job.start : end - job.start, : audio.shape[-1]] = audio.to(embeds)


def _prefix_cache(jobs: Sequence[Job], slots: int) -> Cache:
    """A cache that holds the prefixes of the jobs, padded to ``slots``."""
    prefixes = [job.prefix() for job in jobs]
    kv = next(part for prefix in prefixes for part in prefix).rows(len(jobs), slots)
    for row, prefix in enumerate(prefixes):
        done = 0
        for part in prefix:
            kv[:, :, row, done : done + part.tokens] = part
            done += part.tokens
    return Cache(layers=[_PrefillLayer(layer) for layer in kv.layers()])
