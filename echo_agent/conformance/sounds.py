"""Sounds and weights to test with: both drawn, so that no two stretches and no two layers are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import nn


def lively(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    """Tones and noise whose pitch changes every half second; float32 mono ``[samples]``."""
    draw = np.random.default_rng(seed)
    samples = round(seconds * rate)
    time = np.arange(samples) / rate
    pitch = draw.uniform(200, 3000, size=samples // (rate // 2) + 1)[(time * 2).astype(int)]
    return (0.3 * np.sin(2 * np.pi * pitch * time) + 0.05 * draw.standard_normal(samples)).astype(np.float32)


def randomise(model: nn.Module, seed: int = 0, std: float = 0.1) -> None:
    """Draw every matrix of a model (not its norms and biases) from a normal distribution.

    At the usual deviation of 0.02 the layers of so small a model hardly do anything, and a position that is off by one
    would not show.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
