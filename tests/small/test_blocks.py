"""Weights in few bits come back within half a step of their block."""

from __future__ import annotations

import pytest
import torch

from echo_agent.small.blocks import BLOCK, packed, quantised, unpacked


@pytest.mark.parametrize(("bits", "error"), [(4, 0.13), (5, 0.065), (8, 0.009)])
def test_a_matrix_comes_back(bits: int, error: float) -> None:
    weight = (
        torch.randn(10, 4 * BLOCK, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-3, 2, 10)[:, None]
    )
    weight[3] = 0.0
    written = packed({"a": weight, "b": weight[0], "n": torch.arange(3)}, lambda name: bits)
    assert written["a.codes"].shape == (10, 4 * BLOCK * bits // 8) and written["a.scales"].shape == (10, 4)
    read = unpacked(written)
    assert read.keys() == {"a", "b", "n"} and read["n"].tolist() == [0, 1, 2]
    lost = (read["a"] - weight).square().sum(1) / weight.square().sum(1).clamp(min=1e-20)
    assert lost.max().sqrt() < error and not read["a"][3].any()
    assert torch.equal(read["b"], weight[0].half().float())


def test_the_scale_is_better_than_that_of_the_widest_weight() -> None:
    weight = torch.randn(64, 8 * BLOCK, generator=torch.Generator().manual_seed(1))
    codes, scales = quantised(weight, 4)
    plain = weight.view(64, -1, BLOCK)
    widest = plain.abs().amax(-1, keepdim=True) / 7
    lost = ((plain / widest).round().clamp(-8, 7) * widest - plain).square().mean()
    read = unpacked({"w.codes": codes, "w.scales": scales})["w"]
    assert (read - weight).square().mean() < 0.97 * lost


def test_what_is_no_matrix_of_whole_blocks_stays_as_it_is() -> None:
    odd = torch.ones(4, BLOCK + 1)
    assert packed({"odd": odd, "kept": torch.ones(4, BLOCK)}, lambda name: 0 if name == "kept" else 4).keys() == {
        "odd", "kept",
    }  # fmt: skip
