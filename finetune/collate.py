"""Trajectories to batches: ids, attention, labels, and what is heard.

Labels follow the origin of a token and never its value: what the policy wrote is learned, end of turn included; what a
prompt or a tool put there is not, and neither is padding. Nothing is tokenised, cut or changed here: a trajectory that
does not fit was refused before.

Shapes: ids, attention and labels are ``[batch, n]``, padded on the right; ``audio`` is one list of listens per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from echo_agent.finetune.hearing import Listen
from echo_agent.recording import AudioRef
from echo_agent.trajectory import Trajectory

IGNORED = -100
"""Label of a token that is not learned."""


@dataclass(frozen=True)
class Example:
    """A trajectory as a trainer needs it."""

    ids: tuple[int, ...]
    mask: tuple[int, ...]
    """1 where the policy wrote the token."""
    audio: tuple[AudioRef, ...]
    """What the runs of placeholders stand for, in order."""

    @classmethod
    def of(cls, trajectory: Trajectory) -> Example:
        """Ids, mask and audio of a trajectory."""
        return cls(trajectory.ids, trajectory.mask, trajectory.audio)


class Collator:
    """Makes batches of rows that name an example by its place: ``{"example": 3}``."""

    def __init__(self, examples: Sequence[Example], listen: Listen, pad: int) -> None:
        """Batch ``examples``, with what ``listen`` fetches; ``pad`` fills the ids."""
        self._examples, self._listen, self._pad = examples, listen, pad

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One batch."""
        examples = [self._examples[row["example"]] for row in rows]
        longest = max(len(example.ids) for example in examples)
        ids = torch.full((len(examples), longest), self._pad)
        real = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        for row, example in enumerate(examples):
            size = len(example.ids)
            ids[row, :size] = torch.tensor(example.ids)
            real[row, :size] = 1
            written = torch.tensor(example.mask, dtype=torch.bool)
            labels[row, :size][written] = ids[row, :size][written]
        heard = iter(self._listen([ref for example in examples for ref in example.audio]))
        audio = [[next(heard) for _ in example.audio] for example in examples]
        return {"input_ids": ids, "attention_mask": real, "labels": labels, "audio": audio}
