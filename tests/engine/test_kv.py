"""Keys and values of layers of several shapes: what is done to one is done to all, and layers keep their order."""

from __future__ import annotations

import torch

from echo_agent.engine.kv import KV

SHAPES = (2, 8), (1, 4), (2, 8), (2, 8), (1, 4)
"""Heads and head width of five layers."""


def layers(tokens: int) -> list[torch.Tensor]:
    return [torch.randn(2, tokens, *shape) for shape in SHAPES]


def same(one: KV, other: KV) -> bool:
    """Whether two hold the same layers."""
    return one.order == other.order and all(
        torch.equal(mine, theirs) for mine, theirs in zip(one.layers(), other.layers(), strict=True)
    )


def test_layers_come_back_in_the_order_of_the_decoder() -> None:
    given = layers(7)
    kv = KV.of(given)
    assert [tuple(stack.shape) for stack in kv.stacks] == [(3, 2, 7, 2, 8), (2, 2, 7, 1, 4)]
    assert kv.order == (0, 1, 0, 0, 1) and kv.tokens == 7
    for mine, layer in zip(kv.layers(), given, strict=True):
        assert torch.equal(mine, layer)


def test_bytes_are_those_of_all_stacks() -> None:
    kv = KV.of(layers(7))
    assert kv.token_bytes == (3 * 2 * 8 + 2 * 4) * 2 * 4
    assert kv.nbytes == 7 * kv.token_bytes
    assert kv.rows(2, 5).token_bytes == kv.token_bytes and kv.rows(2, 5).nbytes == 10 * kv.token_bytes


def test_a_part_is_a_view_and_knows_that_it_is_one() -> None:
    kv = KV.of(layers(7))
    part = kv[:, :, 2:5]
    assert kv.owns and not part.owns and part.tokens == 3
    part.each(torch.Tensor.zero_)
    assert all((layer[:, 2:5] == 0).all() and (layer[:, :2] != 0).all() for layer in kv.layers())
    assert same(KV.joined([kv[:, :, :3], kv[:, :, 3:]]), kv)


def test_tokens_are_written_into_the_slots_of_a_row() -> None:
    kv = KV.of(layers(3))
    rows = kv.rows(4, 6)
    rows[:, :, 2, 1:4] = kv
    assert same(rows[:, :, 2, 1:4], kv)
    for before, after in zip(rows.layers(), kv.layers(), strict=True):
        assert before.shape == (2, 4, 6, *after.shape[2:])
        assert int((before != 0).sum()) == after.numel()
