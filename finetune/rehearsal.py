"""Rehearsal: in RL the policy goes on practising what it was taught, so that rewards do not make it forget.

Rewards for a few hundred questions teach a small policy where to listen, and wear away how to read what is heard there.
So the cross-entropy of reasoning from the training split can stand beside the loss of GRPO, as that of pretraining does
in PPO-ptx (Ouyang et al., arXiv 2203.02155, section 3.5).

Which examples a step practises is a function of the seed and the step, one for every rollout, so that batches and
processes share them as they share the rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from echo_agent.finetune.collate import IGNORED, Collator, Example
from echo_agent.finetune.hearing import Listen


class Rehearsal:
    """Draws examples and computes their loss; see the module."""

    def __init__(
        self, examples: Sequence[Example], listen: Listen, pad: int, *, weight: float, seed: int
    ) -> None:
        """Practise ``examples``.

        Args:
            examples: Trajectories with reasoning.
            listen: Fetches what their listens are made of.
            pad: Fills the ids.
            weight: Of this loss, where that of GRPO has 1.
            seed: Of the draws.
        """
        self._count, self._collate = len(examples), Collator(examples, listen, pad)
        self.weight, self._seed = weight, seed

    def draw(self, step: int, rows: range) -> list[int]:
        """Places of the examples that stand beside the rollouts ``rows`` of an optimiser step."""
        drawn = np.random.default_rng([self._seed, 17, step]).integers(self._count, size=rows.stop)
        return drawn[rows.start :].tolist()

    def loss(self, model: Any, places: Sequence[int]) -> Tensor:
        """Mean over examples of the mean cross-entropy, in nats, of what the policy writes in one."""
        batch = self._collate([{"example": place} for place in places])
        device = next(model.parameters()).device
        labels = batch.pop("labels")[:, 1:].to(device)
        audio = batch.pop("audio")
        logits = model(**{name: value.to(device) for name, value in batch.items()}, audio=audio).logits
        losses = functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        written = (labels != IGNORED).sum(1).clamp(min=1)
        return torch.mean(losses.sum(1) / written)
