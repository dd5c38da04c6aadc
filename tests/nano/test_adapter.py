"""The adapter: bins of the pool, and a branch that sees the middle layer only."""

from __future__ import annotations

import pytest
import torch

from echo_agent.nano.adapter import SCORE_SCALE, SoundBranch, StreamPool, pool
from echo_agent.nano.configuration import NanoConfig


@pytest.fixture(scope="module")
def branch() -> SoundBranch:
    torch.manual_seed(0)
    return SoundBranch(NanoConfig(encoder_dim=32, encoder_heads=2, branch_dim=16, branch_labels=7)).eval()


def test_mean_and_maximum_of_each_bin() -> None:
    frames = torch.tensor([[0.0, 9.0], [2.0, 1.0], [4.0, -5.0], [5.0, -6.0], [6.0, -7.0], [-1.0, 0.0]])
    assert pool(frames, 2).tolist() == [
        [2.0, pytest.approx(5 / 3), 4.0, 9.0],
        [pytest.approx(10 / 3), pytest.approx(-13 / 3), 6.0, 0.0],
    ]


def test_uneven_bins_cover_every_frame_once() -> None:
    frames = torch.eye(125)
    pooled = pool(frames, 48)
    mean, highest = pooled[:, :125], pooled[:, 125:]
    assert highest.sum(0).tolist() == [1.0] * 125  # each frame lies in exactly one bin
    torch.testing.assert_close(mean.sum(1), torch.ones(48))
    sizes = highest.sum(1)
    assert set(sizes.tolist()) <= {2.0, 3.0}
    order = highest.argmax(1)
    assert (order[1:] > order[:-1]).all()


def test_a_short_event_in_a_long_bin_still_shows() -> None:
    frames = torch.zeros(1250, 1)
    frames[777] = 1.0
    pooled = pool(frames, 48)
    assert pooled[:, 1].tolist() == [float(i == 777 * 48 // 1250) for i in range(48)]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 12, 13, 125])
@pytest.mark.parametrize("tokens", [1, 2, 6, 48])
def test_no_bin_is_empty(steps: int, tokens: int) -> None:
    """More tokens than steps repeat steps; nothing is ever made of no frames."""
    frames = torch.arange(1.0, steps + 1)[:, None].expand(-1, 2)
    pooled = pool(frames, tokens)
    assert pooled.shape == (tokens, 4)
    assert torch.isfinite(pooled).all()
    assert pooled.min() >= 1.0 and pooled.max() <= steps
    assert (pooled[1:, 0] >= pooled[:-1, 0]).all()


def test_branch_keeps_the_frame_rate(branch: SoundBranch) -> None:
    for steps in (1, 2, 25, 125):
        frames = torch.randn(2, steps, 64)
        assert branch(frames).shape == (2, steps, 16)
        assert branch.describe(frames).shape == (2, steps, 16 + 7)


def test_branch_reads_the_middle_layer_only(branch: SoundBranch) -> None:
    frames = torch.randn(1, 50, 64)
    last, middle = frames.clone(), frames.clone()
    last[..., 32:] += 1.0
    middle[..., 16:32] += 1.0
    torch.testing.assert_close(branch(last), branch(frames), atol=0, rtol=0)
    assert (branch(middle) - branch(frames)).abs().max() > 1e-3


def test_description_is_hidden_states_and_scaled_scores(branch: SoundBranch) -> None:
    frames = torch.randn(1, 20, 64)
    described = branch.describe(frames)
    torch.testing.assert_close(described[..., :16], branch(frames))
    torch.testing.assert_close(described[..., 16:], SCORE_SCALE * branch.head(branch(frames)))


@pytest.mark.parametrize(
    ("steps", "tokens", "piece"), [(1250, 48, 75), (601, 48, 600), (48, 48, 7), (125, 6, 1)]
)
def test_a_stream_of_frames_is_pooled_as_they_are_at_once(steps: int, tokens: int, piece: int) -> None:
    frames = torch.randn(steps, 3, generator=torch.Generator().manual_seed(1))
    stream = StreamPool(steps, tokens)
    for some in frames.split(piece):
        stream.add(some)
    stream.add(torch.full((2, 3), 99.0))  # beyond the last bin
    torch.testing.assert_close(stream.pooled(), pool(frames, tokens))
