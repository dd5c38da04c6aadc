"""Between encoder and decoder: the sound branch, pooling to the budget of a listen, and the projector.

*Sound branch*: a small convolutional network on the encoder's middle layer, trained to name the sounds of each frame
(Whisper was never taught any). *Pooling*: the frames of a listen are cut into as many equal bins as it has tokens; each
bin gives mean and maximum, so that a short event in a long bin still shows. *Projector*: pooled features to the
decoder's width. Only the projector is trained together with the decoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from echo_agent.errors import PlaceholderError
from echo_agent.nano.configuration import NanoConfig

SCORE_SCALE = 0.5
"""Brings the scores of the branch's head to about the size of the other features."""


class SoundBranch(nn.Module):
    """Dilated convolutions over pairs of the middle layer's frames, with a head that names sounds per frame."""

    def __init__(self, config: NanoConfig) -> None:
        """Build with random weights."""
        super().__init__()
        dim = config.branch_dim
        self.encoder_dim = config.encoder_dim
        self.enter = nn.Sequential(nn.LayerNorm(config.encoder_dim), nn.Linear(config.encoder_dim, dim))
        self.blocks, self.norms = dilated(dim, config.branch_blocks, dropout=0.1)
        self.leave = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, config.branch_labels)

    def forward(self, frames: Tensor) -> Tensor:
        """Hidden states ``[listens, steps, branch_dim]`` of encoder frames ``[listens, steps, 2 * encoder_dim]``."""
        steps = frames.shape[1]
        x = self.enter(_pairs(frames[..., : self.encoder_dim]))
        x = convolved(x, self.blocks, self.norms)
        return self.leave(x).repeat_interleave(2, dim=1)[:, :steps]

    def describe(self, frames: Tensor) -> Tensor:
        """Hidden states and scores side by side ``[listens, steps, branch_dim + branch_labels]``."""
        hidden = self(frames)
        return torch.cat([hidden, SCORE_SCALE * self.head(hidden)], dim=-1)


def dilated(dim: int, count: int, dropout: float) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Convolutions that reach twice as far each, and the norm before each of them; for :func:`convolved`."""
    blocks = nn.ModuleList(
        nn.Sequential(
            nn.Conv1d(dim, dim, 3, padding=2**n, dilation=2**n),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv1d(dim, dim, 1),
        )
        for n in range(count)
    )
    return blocks, nn.ModuleList(nn.LayerNorm(dim) for _ in range(count))


def convolved(x: Tensor, blocks: nn.ModuleList, norms: nn.ModuleList) -> Tensor:
    """``[listens, steps, dim]`` with what each block makes of it added, one after the other."""
    for norm, block in zip(norms, blocks, strict=True):
        x = x + block(norm(x).transpose(1, 2)).transpose(1, 2)
    return x


def _pairs(frames: Tensor) -> Tensor:
    """Mean of pairs of frames; an odd last frame stands alone."""
    x = nn.functional.avg_pool1d(frames.transpose(1, 2), 2, ceil_mode=True, count_include_pad=False)
    return x.transpose(1, 2)


def audio_places(input_ids: Tensor, audio_token_id: int, given: int) -> Tensor:
    """Where audio goes ``[batch, n, 1]``.

    Raises:
        PlaceholderError: There are not as many placeholders as features are given.
    """
    places = input_ids == audio_token_id
    if (wanted := int(places.sum())) != given:
        raise PlaceholderError(f"{wanted} audio placeholders in the ids, but {given} audio features")
    return places[..., None]


def pool(frames: Tensor, tokens: int) -> Tensor:
    """Mean and maximum of ``tokens`` bins of about equal size: ``[steps, dim]`` to ``[tokens, 2 * dim]``.

    No bin is empty: where there are more tokens than steps, steps are taken more than once.
    """
    steps = frames.shape[0]
    edges = torch.tensor([round(i * steps / tokens) for i in range(tokens + 1)])
    first = edges[:-1].clamp(max=steps - 1)
    sizes = (edges[1:] - first).clamp(min=1)
    inside = torch.arange(int(sizes.max())) < sizes[:, None]
    places = first[:, None] + torch.arange(int(sizes.max())).where(inside, 0)
    bins = frames[places.to(frames.device)]
    inside, sizes = inside.to(frames.device), sizes.to(frames.device)
    mean = (bins * inside[..., None]).sum(1) / sizes[:, None]
    return torch.cat([mean, bins.amax(1)], dim=1)


class StreamPool:
    """What :func:`pool` gives of frames that come a few at a time: mean and maximum of each bin are kept."""

    def __init__(self, steps: int, tokens: int) -> None:
        """Pool ``steps`` frames, of which there are at least ``tokens``, into ``tokens`` bins."""
        self.edges = torch.tensor([round(i * steps / tokens) for i in range(tokens + 1)])
        self.seen = 0
        """Frames so far."""
        self._sums: Tensor | None = None
        self._most: Tensor | None = None

    def add(self, frames: Tensor) -> None:
        """Take the next frames ``[n, dim]``; those beyond the last bin are left out."""
        frames = frames[: max(0, int(self.edges[-1]) - self.seen)]
        if not len(frames):
            return
        bins = len(self.edges) - 1
        if self._sums is None or self._most is None:
            self._sums = frames.new_zeros(bins, frames.shape[1])
            self._most = frames.new_full((bins, frames.shape[1]), float("-inf"))
        while len(frames):
            row = int(torch.bucketize(self.seen, self.edges[1:], right=True))
            part = frames[: int(self.edges[row + 1]) - self.seen]
            self._sums[row] += part.sum(0)
            self._most[row] = torch.maximum(self._most[row], part.amax(0))
            self.seen += len(part)
            frames = frames[len(part) :]

    def pooled(self) -> Tensor:
        """Mean and maximum of every bin ``[tokens, 2 * dim]``."""
        assert self._sums is not None and self._most is not None and self.seen == int(self.edges[-1])
        sizes = self.edges.diff().to(self._sums.device)
        return torch.cat([self._sums / sizes[:, None], self._most], dim=1)


class Adapter(nn.Module):
    """Sound branch and projector."""

    def __init__(self, config: NanoConfig) -> None:
        """Build with random weights."""
        super().__init__()
        width = config.text_config.hidden_size
        self.branch = SoundBranch(config)
        self.project = nn.Sequential(
            nn.LayerNorm(config.feature_dim),
            nn.Linear(config.feature_dim, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
