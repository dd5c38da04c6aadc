"""Trajectories to batches: ids, attention, labels, and what is heard.

Labels follow the origin of a token and never its value: what the policy wrote is learned, end of turn included; what a
prompt or a tool put there is not, and neither is padding. Nothing is tokenised, cut or changed here: a trajectory that
does not fit was refused before.

The order of examples is fixed for the whole run at once (:func:`sampler_order`), as a function of the
seed alone. Trainers draw a new order each time that they begin to pass over their data, from generators whose state is
lost when a run is resumed; so a trainer goes through the order once, and a resumed run finds its place by counting.

Shapes: ids, attention and labels are ``[batch, n]``, padded on the right; ``audio`` is one list of listens per row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from echo_agent.audio.recording import AudioRef
from echo_agent.finetune.audio_inputs import LoadAudio
from echo_agent.trajectory import Trajectory

IGNORED = -100
"""Label of a token that is not learned."""
STRETCH = 50
"""Steps whose examples are sorted by length together."""


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

    def __init__(self, examples: Sequence[Example], listen: LoadAudio, pad: int) -> None:
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


def sampler_order(count: int, total: int, seed: int) -> list[int]:
    """The places of ``count`` examples, shuffled again for each pass over them, until there are ``total``."""
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
