"""Trajectories: everything one run put into the context, token by token, each with its origin.

A run adds to its context in steps. Each step is a :class:`TokenDelta`: the segments that were appended since the last
one, and what was sampled after them. A :class:`Trajectory` is the fold over the deltas. Token in, token out: text is
never tokenised again, nothing is popped or rewritten, so a checkpoint can be replayed and branched, and a trainer can
take the ids exactly as they were sampled.

Invariants:

- the ids along a trajectory equal what the model saw, in order;
- ``mask`` comes from the origin of a token and never from its value: 1 = sampled, 0 = prompt or tool;
- ``audio`` holds one reference per run of placeholders, in order;
- a delta names (by hash) the prefix that it continues, so a delta on an edited history is noticed, not trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from echo_agent.audio.recording import AudioRef
from echo_agent.errors import ContextError

Origin = Literal["prompt", "sampled", "tool"]
"""Who put a token into the context: the question, the policy, or a tool."""

RUN_MINIMUM = 4
"""Runs of at least this many equal ids are written as ``[id, n]``; shorter ones are not worth it."""


def pack_ids(ids: Sequence[int]) -> list[Any]:
    """Write ids as JSON, long runs (of placeholders, mostly) as ``[id, n]`` pairs."""
    packed: list[Any] = []
    i = 0
    while i < len(ids):
        j = i
        while j < len(ids) and ids[j] == ids[i]:
            j += 1
        if j - i >= RUN_MINIMUM:
            packed.append([ids[i], j - i])
        else:
            packed.extend(ids[i:j])
        i = j
    return packed


def unpack_ids(packed: Iterable[Any]) -> tuple[int, ...]:
    """The inverse of :func:`pack_ids`; plain ids pass through."""
    ids: list[int] = []
    for item in packed:
        if isinstance(item, int):
            ids.append(item)
        else:
            token, count = item
            ids.extend([token] * count)
    return tuple(ids)


class Segment(BaseModel):
    """Consecutive tokens of one origin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: Origin
    ids: tuple[int, ...]
    """Token ids, placeholders expanded."""
    logprobs: tuple[float, ...] | None = None
    """For sampled tokens: natural log-probabilities of the full softmax at the sampling temperature."""
    audio: tuple[AudioRef, ...] = ()
    """One reference per run of placeholders among ``ids``, in order."""

    @field_validator("ids", mode="before")
    @classmethod
    def _unpack(cls, value: Any) -> Any:
        return unpack_ids(value) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _agree(self) -> Segment:
        if self.logprobs is not None and len(self.logprobs) != len(self.ids):
            raise ValueError(f"{len(self.ids)} ids but {len(self.logprobs)} log-probabilities")
        if self.origin == "sampled" and self.audio:
            raise ValueError("audio placeholders are never sampled")
        return self


class TokenDelta(BaseModel):
    """What one step of a run added to its context. Plain JSON, so that it survives any checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: str
    """Hash of the trajectory that this delta continues; the hash of the empty one at the start."""
    segments: tuple[Segment, ...]
    rerendered: bool = False
    """The messages before it did not match a known trajectory and were rendered again: never trained on."""

    def to_json(self) -> dict[str, Any]:
        """JSON for ``response_metadata["echo"]``: runs of placeholders packed, no tuples."""
        data = self.model_dump(mode="json", exclude_none=True)
        for segment in data["segments"]:
            segment["ids"] = pack_ids(segment["ids"])
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TokenDelta:
        """Read what :meth:`to_json` wrote, as it comes back from a checkpoint; raises ``pydantic.ValidationError``."""
        return cls.model_validate(data)


@dataclass(frozen=True)
class Trajectory:
    """The fold over the token deltas of one run (immutable; :meth:`append` gives a new one)."""

    segments: tuple[Segment, ...] = ()
    rerendered: bool = False
    hash: str = field(default="")

    def __post_init__(self) -> None:
        """Derive the hash where it was not carried over."""
        if not self.hash:
            digest = EMPTY_HASH
            for segment in self.segments:
                digest = _chain(digest, segment)
            object.__setattr__(self, "hash", digest)

    @property
    def ids(self) -> tuple[int, ...]:
        """All token ids, in the order in which the model saw them."""
        return tuple(token for segment in self.segments for token in segment.ids)

    @property
    def mask(self) -> tuple[int, ...]:
        """1 where the token was sampled by the policy, 0 where it was given to it; same length as :attr:`ids`."""
        return tuple(int(s.origin == "sampled") for s in self.segments for _ in s.ids)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Log-probability per token, 0.0 where the token was not sampled; same length as :attr:`ids`."""
        values: list[float] = []
        for segment in self.segments:
            values.extend(segment.logprobs or (0.0,) * len(segment.ids))
        return tuple(values)

    @property
    def audio(self) -> tuple[AudioRef, ...]:
        """The audio of the placeholder runs, in order; the first listen is the first."""
        return tuple(ref for segment in self.segments for ref in segment.audio)

    def count(self, origin: Origin) -> int:
        """Number of tokens of one origin."""
        return sum(len(s.ids) for s in self.segments if s.origin == origin)

    def append(self, *segments: Segment) -> Trajectory:
        """A trajectory with ``segments`` after this one's; empty segments are dropped."""
        kept = tuple(s for s in segments if s.ids)
        digest = self.hash
        for segment in kept:
            digest = _chain(digest, segment)
        return Trajectory((*self.segments, *kept), self.rerendered, digest)

    def extend(self, delta: TokenDelta) -> Trajectory:
        """Fold one delta in; raises ContextError where it continues another prefix."""
        if delta.rerendered:
            return Trajectory((), True).append(*delta.segments)
        if delta.prefix != self.hash:
            raise ContextError(
                f"token delta continues prefix {delta.prefix[:12]}, but the messages before it give {self.hash[:12]}: "
                "the history was edited or trimmed"
            )
        return self.append(*delta.segments)


def _chain(digest: str, segment: Segment) -> str:
    """Hash of a prefix and one more segment; log-probabilities do not count, they are not part of the context."""
    block = hashlib.sha256(digest.encode())
    block.update(segment.origin.encode())
    block.update(b",".join(str(token).encode() for token in segment.ids))
    for ref in segment.audio:
        block.update(ref.key().encode())
    return block.hexdigest()


EMPTY_HASH = hashlib.sha256(b"echo-agent trajectory").hexdigest()
"""Hash of the trajectory with nothing in it."""
