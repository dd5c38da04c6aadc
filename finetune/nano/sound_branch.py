"""Trains echo-nano's sound branch: per frame, which sounds are there.

Whisper's encoder was taught words. The branch is taught the sound classes on the encoded tiles (see
:mod:`echo_agent.finetune.nano.tiles`), with the exact onsets and offsets of their events as frame labels, so that the
pooled audio tokens say what a sound *is* and not only what a speech recogniser makes of it. It is frozen afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from echo_agent.finetune.nano.questions import SOUNDS
from echo_agent.finetune.nano.tiles import Tile
from echo_agent.nano.adapter import SoundBranch
from echo_agent.nano.encoder import FRAMES_PER_SECOND

LABELS = (*SOUNDS, "voice")
"""What each output of the branch's head stands for."""


@dataclass(frozen=True)
class BranchScore:
    """How well the branch names held-out events."""

    top1: float
    """Share of events whose class scores highest over their frames."""
    classes: float
    """The same, averaged over classes."""


def frame_labels(tile: Tile) -> Tensor:
    """``[frames, labels]``, 1 where a sound is there."""
    target = torch.zeros(tile.frames.shape[0], len(LABELS))
    for event in tile.events:
        first, last = int(event.onset * FRAMES_PER_SECOND), int(event.offset * FRAMES_PER_SECOND) + 1
        target[first:last, LABELS.index(event.label)] = 1.0
    return target


def train_branch(
    branch: SoundBranch,
    tiles: Sequence[Tile],
    *,
    epochs: int,
    seed: int = 0,
    rate: float = 2e-3,
    batch: int = 24,
) -> Iterator[float]:
    """Train in place; yields the mean loss after every epoch.

    Features are dropped for a whole stretch at random, so that the branch relies on no single direction of the encoder.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of the branch's own dropout
    rows = []
    for tile in tiles:
        for frames, target in zip(tile.frames.split(125), frame_labels(tile).split(125), strict=True):
            rows.append((frames, target))
    steps = epochs * max(1, len(rows) // batch)
    optimiser = torch.optim.AdamW(branch.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(2, steps), pct_start=0.1)
    branch.train()
    for _ in range(epochs):
        losses = []
        order = torch.randperm(len(rows), generator=generator).tolist()
        for first in range(0, max(1, len(order) - batch + 1), batch):
            chosen = [rows[i] for i in order[first : first + batch]]
            frames = torch.stack([f for f, _ in chosen]).float()
            target = torch.stack([t for _, t in chosen])
            keep = torch.rand(frames.shape[0], 1, frames.shape[2], generator=generator) > 0.15
            scores = branch.head(branch(frames * keep))
            weight = 1.0 + 4.0 * target
            loss = nn.functional.binary_cross_entropy_with_logits(scores, target, weight=weight)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(branch.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        yield sum(losses) / len(losses)
    branch.eval()


@torch.no_grad()
def score_branch(branch: SoundBranch, tiles: Sequence[Tile]) -> BranchScore:
    """Name each event of ``tiles`` by the class with the highest mean score over its frames."""
    branch.eval()
    right: dict[str, list[bool]] = {}
    for tile in tiles:
        scores = branch.head(branch(tile.frames.float()[None]))[0]
        for event in tile.events:
            first, last = int(event.onset * FRAMES_PER_SECOND), int(event.offset * FRAMES_PER_SECOND) + 1
            best = LABELS[int(scores[first:last].mean(0).argmax())]
            right.setdefault(event.label, []).append(best == event.label)
    hits = [hit for values in right.values() for hit in values]
    by_class = [sum(values) / len(values) for values in right.values()]
    return BranchScore(sum(hits) / len(hits), sum(by_class) / len(by_class))
