"""The sound branch: labels per frame, and that it learns what can be learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from echo_agent.finetune.data.records import Event
from echo_agent.finetune.nano.questions import SOUNDS
from echo_agent.finetune.nano.sound_branch import LABELS, frame_labels, score_branch, train_branch
from echo_agent.finetune.nano.tiles import Tile
from echo_agent.nano.adapter import SoundBranch
from echo_agent.nano.configuration import NanoConfig

DIM = 48
TOY = ("bell", "bird", "car", "water", "voice")


def toy_tiles(count: int, seed: int) -> list[Tile]:
    """Frames in which each sound is a direction of its own, in noise."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).standard_normal((len(TOY), DIM))
    tiles = []
    for number in range(count):
        seconds = 10 if number % 3 == 0 else 5
        frames = 0.5 * rng.standard_normal((25 * seconds, 2 * DIM))
        events = []
        for place in range(seconds // 5):
            which = int(rng.integers(len(TOY)))
            onset = 5 * place + rng.uniform(0.2, 2.0)
            event = Event(TOY[which], "sound", onset, onset + rng.uniform(1.0, 2.5))
            frames[int(event.onset * 25) : int(event.offset * 25) + 1, :DIM] += directions[which]
            events.append(event)
        tiles.append(Tile(seconds, tuple(events), torch.from_numpy(frames).half(), ()))
    return tiles


def new_branch(seed: int = 0) -> SoundBranch:
    torch.manual_seed(seed)
    return SoundBranch(NanoConfig(encoder_dim=DIM, encoder_heads=2, branch_dim=32, branch_blocks=1))


def test_frame_labels() -> None:
    events = (
        Event("bell", "sound", 0.2, 0.4),
        Event("voice", "digits", 0.36, 1.0),
        Event("bell", "sound", 1.9, 2.0),
    )
    labels = frame_labels(Tile(2, events, torch.zeros(50, 4), ()))
    assert labels.shape == (50, len(LABELS))
    bell, voice = labels[:, LABELS.index("bell")], labels[:, LABELS.index("voice")]
    assert bell.nonzero().flatten().tolist() == [5, 6, 7, 8, 9, 10, 47, 48, 49]
    assert voice.nonzero().flatten().tolist() == list(range(9, 26))
    assert labels.sum() == bell.sum() + voice.sum()


def test_labels_are_those_of_the_configuration() -> None:
    assert LABELS == (*SOUNDS, "voice")
    assert len(LABELS) == len(set(LABELS)) == NanoConfig().branch_labels


def test_learns_a_toy() -> None:
    branch, held_out = new_branch(), toy_tiles(40, seed=1)
    before = score_branch(branch, held_out)
    losses = list(train_branch(branch, toy_tiles(72, seed=0), epochs=12, rate=5e-3))
    assert len(losses) == 12 and losses[-1] < 0.5 * losses[0]
    after = score_branch(branch, held_out)
    assert before.top1 < 0.5 < 0.9 < after.top1
    assert after.classes > 0.9
    assert not branch.training


def test_same_seed_same_branch() -> None:
    def trained(seed: int, drawn_before: int = 0) -> list[torch.Tensor]:
        branch = new_branch()
        torch.rand(drawn_before)
        for _ in train_branch(branch, toy_tiles(24, seed=0), epochs=2, seed=seed):
            pass
        return list(branch.state_dict().values())

    first = trained(3)
    again, other = trained(3, drawn_before=5), trained(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_score_counts_events_and_classes() -> None:
    """A branch that says bell whatever it hears: three of four events, one of two classes."""
    branch = new_branch()
    with torch.no_grad():
        branch.head.weight.zero_()
        branch.head.bias.copy_(torch.eye(len(LABELS))[LABELS.index("bell")])
    events = [
        Event(label, "sound", n + 0.1, n + 0.5) for n, label in enumerate(("bell", "bell", "car", "bell"))
    ]
    score = score_branch(branch, [Tile(5, tuple(events), torch.zeros(125, 2 * DIM).half(), ())])
    assert score.top1 == pytest.approx(0.75) and score.classes == pytest.approx(0.5)


def test_few_tiles_are_learned_from_too() -> None:
    """Fewer windows than a batch holds are one batch."""
    losses = list(train_branch(new_branch(), toy_tiles(3, seed=0), epochs=8, rate=5e-3))
    assert len(losses) == 8 and losses[-1] < 0.8 * losses[0]
