"""Rehearsal: in RL the policy keeps practising what it was taught, so that rewards do not make it forget.

Rewards for a few hundred questions teach a small policy where to listen, and wear away how to read what is heard there.
So the cross-entropy of reasoning from the training split can be added to the loss of GRPO, as that of pretraining does
in PPO-ptx (Ouyang et al., arXiv 2203.02155, section 3.5).

One example is practised for every question that is asked. Which one is a function of the seed and the step; it is
processed with the first rollout of its question, so that passes and processes share examples as they share rollouts
(with several updates per generation they are dealt out at random, as those are).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from echo_agent.finetune.audio_inputs import LoadAudio
from echo_agent.finetune.batching import IGNORED, Collator, Example
from echo_agent.finetune.config import RLRecipe


class Rehearsal:
    """Draws examples and computes their loss; see the module."""

    def __init__(
        self, examples: Sequence[Example], load_audio: LoadAudio, recipe: RLRecipe, pad: int
    ) -> None:
        """Practise ``examples``, trajectories with reasoning, as the recipe says; ``pad`` fills their ids."""
        self._count, self._collate = len(examples), Collator(examples, load_audio, pad)
        self._group, self._seed = recipe.rollout.group, recipe.seed
        self.weight = recipe.loss.rehearsal
        """Of this loss, where that of GRPO has 1."""

    def draw(self, step: int, rows: range) -> list[int | None]:
        """Places of the examples that go along with the rollouts ``rows`` that are made at an optimiser step."""
        size = math.ceil(rows.stop / self._group)
        drawn = np.random.default_rng([self._seed, 17, step]).integers(self._count, size=size).tolist()
        return [None if row % self._group else drawn[row // self._group] for row in rows]

    def loss(self, model: Any, places: Sequence[int | None]) -> Tensor:
        """Cross-entropy, in nats, of what the policy writes in examples: means over tokens, averaged over questions.

        Args:
            model: What hears (:class:`~echo_agent.finetune.audio_inputs.AudioHook`).
            places: Of rollouts, as they were drawn, in any order and part. The sum of examples is divided by the
                questions that these rollouts make, so that the mean over equal parts is that of the whole.
        """
        device = next(model.parameters()).device
        chosen = [{"example": place} for place in places if place is not None]
        if not chosen:
            return torch.zeros((), device=device)
        batch = self._collate(chosen)
        labels = batch.pop("labels")[:, 1:].to(device)
        audio = batch.pop("audio")
        logits = model(**{name: value.to(device) for name, value in batch.items()}, audio=audio).logits
        losses = functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        written = (labels != IGNORED).sum(1).clamp(min=1)
        return torch.sum(losses.sum(1) / written) * self._group / len(places)
