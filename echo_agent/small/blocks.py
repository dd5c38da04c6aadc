"""Weights in a few bits: each block of a row has a scale of its own, and its weights are steps of it.

As llama.cpp's Q4_0 and Q8_0, with the scale of each block chosen for the least squared error. A matrix becomes two
tensors of a safetensors file, ``NAME.codes`` and ``NAME.scales``; what is no matrix stays as it is, in float16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

BLOCK = 64
"""Weights that share a scale."""
CODES, SCALES = ".codes", ".scales"
_TRIES = 12
"""Scales that are tried for each block, from a bit too small to just large enough."""


def quantised(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Codes (eight of them in ``bits`` bytes) ``[rows, columns * bits / 8]`` and scales ``[rows, columns / 64]``.

    Args:
        weight: A matrix; its columns are a multiple of 64.
        bits: 2 to 8.
    """
    top = 2 ** (bits - 1) - 1
    blocks = weight.detach().float().view(weight.shape[0], -1, BLOCK)
    widest = blocks.abs().amax(-1, keepdim=True)
    best, error = torch.zeros_like(widest), torch.full_like(widest, torch.inf)
    for attempt in range(_TRIES):
        # Fewer bits gain from cutting off the widest weight of a block.
        scale = (widest / top * (1 - attempt / _TRIES / top)).half().float()
        missed = (_codes(blocks, scale, top) * scale - blocks).square().sum(-1, keepdim=True)
        best, error = torch.where(missed < error, scale, best), torch.minimum(missed, error)
    codes = (_codes(blocks, best, top) + top + 1).long().view(len(weight), -1, 8)
    words = (codes << bits * torch.arange(8)).sum(-1, keepdim=True)
    packed = (words >> 8 * torch.arange(bits)) & 255
    return packed.to(torch.uint8).flatten(1), best.squeeze(-1).half()


def _codes(blocks: Tensor, scale: Tensor, top: int) -> Tensor:
    return (blocks / scale.clamp(min=1e-12)).round().clamp(-top - 1, top)


def rounded(weight: Tensor, bits: int) -> Tensor:
    """A matrix as it comes back from its blocks, quickly: the scale of each block is just large enough for it.

    Args:
        weight: A matrix; its columns are a multiple of 64.
        bits: 2 to 8.
    """
    top = 2 ** (bits - 1) - 1
    blocks = weight.detach().float().view(weight.shape[0], -1, BLOCK)
    scale = (blocks.abs().amax(-1, keepdim=True) / top).half().float()
    return (_codes(blocks, scale, top) * scale).view_as(weight)


def dequantised(codes: Tensor, scales: Tensor) -> Tensor:
    """The matrix, in float32; how many bits a weight has is told by the shapes."""
    bits = 8 * codes.shape[1] // (scales.shape[1] * BLOCK)
    words = (codes.view(len(codes), -1, bits).long() << 8 * torch.arange(bits)).sum(-1, keepdim=True)
    unpacked = (words >> bits * torch.arange(8)) & (2**bits - 1)
    steps = unpacked.float().sub_(2 ** (bits - 1)).view(len(codes), -1, BLOCK)
    return steps.mul_(scales.float()[..., None]).flatten(1)


def packed(tensors: Mapping[str, Tensor], bits: Callable[[str], int]) -> dict[str, Tensor]:
    """Tensors as they are written: matrices in codes and scales where ``bits`` of their name is not 0."""
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.shape[1] % BLOCK == 0 and bits(name):
            written[name + CODES], written[name + SCALES] = quantised(tensor, bits(name))
        else:
            written[name] = tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
    return written


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`packed` was given, in float32, but for what the codes lost."""
    read: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(CODES):
            whole = name.removesuffix(CODES)
            read[whole] = dequantised(tensor, tensors[whole + SCALES])
        elif not name.endswith(SCALES):
            read[name] = tensor.float() if tensor.is_floating_point() else tensor
    return read
