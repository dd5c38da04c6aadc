"""Ears: which sounds are heard when, by name, from two frozen networks that have heard far more than any bank holds.

YAMNet's features and scores, and the middle layer of Whisper's encoder, every 0.48 s; a small convolutional head is
trained on them to name the sounds of each step. A sound that the head was never taught is named by YAMNet alone, by the
classes of AudioSet that mean it, so that what has a name can be named without a clip to train on. How certain YAMNet
must be is another matter for each name: it must stand above what YAMNet says of it where it is not. The head has
thresholds too: those at which it is most often right on scenes that it was not taught on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from echo_agent.nano.adapter import convolved, dilated
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.whisper import FRAMES_PER_SECOND
from echo_agent.small.yamnet import CLASSES, HOP_SECONDS, WIDTH, Yamnet, patches

STEP_SECONDS = HOP_SECONDS
"""Seconds of one step."""
PATCHES = 64
"""Most patches that go through YAMNet at once."""
NEVER = -30.0
"""Logit of a sound that YAMNet has no class for."""
_FRAMES = round(STEP_SECONDS * FRAMES_PER_SECOND)
"""Frames of Whisper's encoder in a step."""


class SoundHead(nn.Module):
    """Names the sounds of each step: dilated convolutions over what both networks say."""

    def __init__(self, config: SmallConfig) -> None:
        """Build with random weights."""
        super().__init__()
        self._widths, dim = (WIDTH, CLASSES, 2 * config.whisper_config.d_model), config.head_dim
        # Each of the three is on a scale of its own: under one norm the largest would drown the others.
        self.scales = nn.ModuleList(nn.LayerNorm(width) for width in self._widths)
        self.enter = nn.Linear(sum(self._widths), dim)
        self.blocks, self.norms = dilated(dim, config.head_blocks, dropout=0.2)
        self.leave = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, len(config.sounds)))

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[listens, steps, sounds]`` of features ``[listens, steps, width]``."""
        sources = zip(self.scales, features.split(self._widths, dim=-1), strict=True)
        scaled = torch.cat([scale(source) for scale, source in sources], dim=-1)
        return self.leave(convolved(self.enter(scaled), self.blocks, self.norms))


class Ears(nn.Module):
    """YAMNet and the head; which sounds the head was taught, and where each begins, stands in the configuration."""

    def __init__(self, config: SmallConfig) -> None:
        """Build with random weights."""
        super().__init__()
        self.yamnet = Yamnet()
        self.head = SoundHead(config)
        self.config = config

    def features(self, samples: Tensor, middle: Tensor) -> Tensor:
        """What both networks say of a listen ``[steps, width]``.

        Args:
            samples: 16 kHz ``[n]``.
            middle: The middle layer of Whisper's encoder over the whole listen ``[frames, d_model]``.
        """
        parts = [self.yamnet(part.to(middle)) for part in patches(samples.cpu()).split(PATCHES)]
        heard = torch.cat([torch.cat(part, dim=1) for part in parts])
        return torch.cat([heard, _steps(middle, len(heard))], dim=1)

    def scores(self, features: Tensor) -> Tensor:
        """How certain each sound is at each step ``[steps, sounds]``, 0 to 1."""
        learned = self.head(features[None])[0]
        taught = torch.tensor(self.config.taught, device=learned.device)
        thresholds = torch.tensor(self.config.thresholds, device=learned.device)
        return (torch.where(taught, learned, self.named(features)) - thresholds).sigmoid()

    def named(self, features: Tensor) -> Tensor:
        """YAMNet's logit of each sound: that of its likeliest class ``[steps, sounds]``."""
        logits = features[:, WIDTH : WIDTH + CLASSES]
        return torch.stack([_greatest(logits, classes) for classes in self.config.yamnet_classes], dim=1)


def _steps(middle: Tensor, steps: int) -> Tensor:
    """Mean and maximum of Whisper's frames in each step ``[steps, 2 * d_model]``; silence behind the end."""
    wanted = steps * _FRAMES
    filled = nn.functional.pad(middle, (0, 0, 0, max(0, wanted - len(middle))))[:wanted]
    bins = filled.view(steps, _FRAMES, -1)
    return torch.cat([bins.mean(1), bins.amax(1)], dim=1)


def _greatest(logits: Tensor, classes: Sequence[int]) -> Tensor:
    return logits[:, list(classes)].amax(1) if classes else logits.new_full((len(logits),), NEVER)


def class_indices(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Places of display names among YAMNet's; those that it does not know are left out."""
    places = {name: place for place, name in enumerate(known)}
    return [places[name] for name in names if name in places]
