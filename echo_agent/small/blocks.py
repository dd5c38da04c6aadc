"""Weights in a few bits: 64 of them share a scale, and each is a number of steps above the lowest of them.

As llama.cpp's Q4_1 and Q5_1. A weight is taken row by row, whatever its shape, and becomes three tensors of a
safetensors file: ``NAME.codes``, ``NAME.scales`` and ``NAME.shape``. What has fewer than 64 weights in a row (biases,
norms, depthwise convolutions) stays as it is, in float16.

Weights that come from such a file lie on its steps. A training that goes on from them moves them by less than half a
step, and what is rounded to the same steps again has lost it.

Eight codes fill as many bytes as a code has bits, and lie in planes: first the first byte of all groups of eight, then
the second one. Bytes of one plane are alike, so that a zip, which a wheel is, makes the file smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

BLOCK = 64
"""Weights that share a scale."""
CODES, SCALES, SHAPE = ".codes", ".scales", ".shape"
GROUP = 8
"""Codes that are packed together."""
PART = 1 << 17
"""Groups that are unpacked at once: what is computed in between takes some twenty times the memory of the codes."""


def quantised(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes ``[bits, weights / 8]``, and of each block the step and the lowest weight ``[2, weights / 64]``.

    Args:
        weight: Of any shape; its weights are a multiple of 64.
        bits: 2 to 8.
    """
    top = 2**bits - 1
    blocks = weight.detach().float().reshape(-1, BLOCK)
    low, high = (edge.half().float() for edge in blocks.aminmax(dim=-1, keepdim=True))
    step = ((high - low) / top).half().float()
    codes = ((blocks - low) / step.clamp(min=1e-12)).round().clamp(0, top).long().view(-1, GROUP)
    words = (codes << bits * torch.arange(GROUP)).sum(-1)
    planes = (words >> 8 * torch.arange(bits)[:, None]) & 255
    return planes.to(torch.uint8), torch.stack([step, low]).squeeze(-1).half()


def dequantised(codes: Tensor, scales: Tensor) -> Tensor:
    """The weights ``[weights]`` in float32, part by part: they may be many."""
    bits = len(codes)
    weights = torch.empty(GROUP * codes.shape[1])
    for planes, part in zip(codes.split(PART, dim=1), weights.split(GROUP * PART), strict=True):
        words = (planes.long() << 8 * torch.arange(bits)[:, None]).sum(0)
        part.copy_(((words[:, None] >> bits * torch.arange(GROUP)) & (2**bits - 1)).flatten())
    step, low = scales.float()[:, :, None]
    weights.view(-1, BLOCK).mul_(step).add_(low)
    return weights


def packed(tensors: Mapping[str, Tensor], bits: Callable[[str], int]) -> dict[str, Tensor]:
    """Tensors as they are written: in blocks where ``bits`` of their name is not 0, and their rows are long enough."""
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        in_blocks = tensor.ndim > 1 and tensor[0].numel() >= BLOCK and not tensor.numel() % BLOCK
        if in_blocks and bits(name):
            written[name + CODES], written[name + SCALES] = quantised(tensor, bits(name))
            written[name + SHAPE] = torch.tensor(tensor.shape, dtype=torch.int32)
        else:
            written[name] = tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
    return written


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of what :func:`packed` was given."""
    found: dict[str, tuple[int, ...]] = {}
    for name, tensor in tensors.items():
        if name.endswith(SHAPE):
            found[name.removesuffix(SHAPE)] = tuple(tensor.tolist())
        elif not name.endswith((CODES, SCALES)):
            found[name] = tuple(tensor.shape)
    return found


def unpacked(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """What :func:`packed` was given, one after the other, in float32 but for what the codes lost."""
    for name, shape in shapes(tensors).items():
        if name in tensors:
            tensor = tensors[name]
            yield name, tensor.float() if tensor.is_floating_point() else tensor
        else:
            yield name, dequantised(tensors[name + CODES], tensors[name + SCALES]).view(shape)
