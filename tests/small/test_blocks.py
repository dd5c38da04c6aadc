"""Weights in few bits come back within half a step of their block."""

from __future__ import annotations

import pytest
import torch

from echo_agent.small import blocks
from echo_agent.small.blocks import BLOCK, dequantised, packed, quantised, shapes, unpacked


@pytest.mark.parametrize(("bits", "error"), [(4, 0.13), (5, 0.065), (8, 0.009)])
def test_a_matrix_comes_back(bits: int, error: float) -> None:
    weight = (
        torch.randn(10, 4 * BLOCK, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-3, 2, 10)[:, None]
    )
    weight[3] = 0.0
    written = packed({"a": weight, "b": weight[0], "n": torch.arange(3)}, lambda name: bits)
    assert written["a.codes"].shape == (bits, 10 * 4 * BLOCK // 8) and written["a.scales"].shape == (2, 40)
    read = dict(unpacked(written))
    assert read.keys() == {"a", "b", "n"} and read["n"].tolist() == [0, 1, 2]
    assert shapes(written) == {name: tuple(value.shape) for name, value in read.items()}
    lost = (read["a"] - weight).square().sum(1) / weight.square().sum(1).clamp(min=1e-20)
    assert lost.max().sqrt() < error and not read["a"][3].any()
    assert torch.equal(read["b"], weight[0].half().float())


def test_no_weight_is_off_by_more_than_half_a_step_of_its_block() -> None:
    weight = (
        torch.rand(16, 4 * BLOCK, generator=torch.Generator().manual_seed(1)) ** 3 + 1.0
    )  # none is near zero
    low, high = weight.view(-1, BLOCK).aminmax(dim=-1)
    read = dequantised(*quantised(weight, 4)).view_as(weight)
    off = (read - weight).view(-1, BLOCK).abs().amax(-1)
    assert (off <= 0.51 * (high - low) / 15 + 1e-3).all()


def test_a_convolution_is_taken_row_by_row() -> None:
    weight = torch.randn(6, BLOCK // 2, 4, 3, generator=torch.Generator().manual_seed(2))
    written = packed({"conv": weight}, lambda name: 8)
    assert written["conv.shape"].tolist() == [6, BLOCK // 2, 4, 3]
    (name, read), *others = unpacked(written)
    assert name == "conv" and not others and read.shape == weight.shape
    assert (read - weight).norm() < 0.009 * weight.norm()


def test_it_is_unpacked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(7, 5 * BLOCK, generator=torch.Generator().manual_seed(3))
    codes, scales = quantised(weight, 5)
    whole = dequantised(codes, scales)
    monkeypatch.setattr(blocks, "PART", 24)
    assert torch.equal(dequantised(codes, scales), whole)


@pytest.mark.parametrize(
    ("shape", "bits"), [((4, BLOCK + 1), 4), ((4, BLOCK), 0), ((BLOCK, 1, 3, 3), 8), ((2 * BLOCK,), 8)]
)
def test_what_is_not_in_whole_blocks_stays_as_it_is(shape: tuple[int, ...], bits: int) -> None:
    assert packed({"odd": torch.ones(shape)}, lambda name: bits).keys() == {"odd"}
