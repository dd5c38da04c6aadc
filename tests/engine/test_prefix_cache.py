"""The prefix cache against a model of it: KV that follows from the symbols before it, and from nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from echo_agent.engine.kv import KV
from echo_agent.engine.prefix_cache import PrefixCache, Symbols, common, gather, symbols_of
from tests.engine.test_kv import same

SHAPES = (1, 3), (2, 2), (1, 3)
"""Heads and head width of three layers."""
TOKEN_BYTES = (3 + 4 + 3) * 2 * 4


def true_kv(symbols: Symbols) -> KV:
    """KV in which every token's value is made from all symbols up to it."""
    values, state = [], 0
    for symbol in symbols.tolist():
        state = (state * 31 + symbol + 1) % 100_003
        values.append(state)
    column = torch.tensor(values, dtype=torch.float32)[None, :, None, None]
    return KV.of([column.expand(2, -1, *shape).contiguous() for shape in SHAPES])


def found(cache: PrefixCache, symbols: Symbols) -> int:
    """Length of the prefix found, after checking that what was found is right."""
    parts = cache.match(symbols)
    length = sum(part.tokens for part in parts)
    if parts:
        assert same(KV.joined(parts), true_kv(symbols)[:, :, :length])
    return length


def text(*values: int) -> Symbols:
    return np.array(values, dtype=np.int64)


def test_the_longest_prefix_is_found_wherever_contexts_part() -> None:
    cache = PrefixCache(10**6)
    first, second = text(1, 2, 3, 4, 5), text(1, 2, 3, 9, 9, 9)
    cache.insert(first, [true_kv(first)])
    cache.insert(second, [true_kv(second)])
    assert found(cache, first) == 5
    assert found(cache, second) == 6
    assert found(cache, text(1, 2, 3, 9, 7)) == 4
    assert found(cache, text(1, 2, 8)) == 2
    assert found(cache, text(5)) == 0
    assert found(cache, text(1, 2, 3, 4, 5, 6, 7)) == 5
    # Shared tokens are held once: 3 + 2 + 3.
    assert cache.store.stats.nbytes == 8 * TOKEN_BYTES and len(cache) == 3


def test_a_prefix_of_what_is_held_adds_nothing() -> None:
    cache = PrefixCache(10**6)
    whole = text(1, 2, 3, 4)
    cache.insert(whole, [true_kv(whole)])
    cache.insert(whole[:2], [true_kv(whole[:2])])
    assert (len(cache), cache.store.stats.nbytes) == (1, 4 * TOKEN_BYTES)
    assert found(cache, whole) == 4


def test_parts_are_copied_unless_they_are_whole_and_their_own() -> None:
    kv = true_kv(text(*range(6)))
    assert gather([kv], 0, 6) is kv
    view = kv[:, :, :4]
    copied = gather([view], 0, 4)
    kv.each(torch.Tensor.zero_)
    assert same(copied, true_kv(text(*range(4)))) and copied.owns and not view.owns
    again = true_kv(text(*range(6)))
    joined = gather([again[:, :, :2], again[:, :, 2:]], 1, 5)
    assert same(joined, again[:, :, 1:5])


@pytest.mark.parametrize("limit", [0, 7, 20, 60, 10**4])
def test_whatever_is_forgotten_what_is_found_is_right(limit: int) -> None:
    """Random contexts over three symbols, which share a lot and part everywhere; a limit in tokens."""
    draw = random.Random(limit)
    cache = PrefixCache(limit * TOKEN_BYTES)
    hits = 0
    for _ in range(600):
        symbols = text(*(draw.randrange(3) for _ in range(draw.randrange(1, 12))))
        hits += found(cache, symbols)
        cache.insert(symbols, [true_kv(symbols)])
        held = found(cache, symbols)
        assert held == len(symbols) or limit < 60
        assert cache.store.stats.nbytes <= limit * TOKEN_BYTES
        assert len(cache) <= 2 * len(cache.store) + 66
    assert (hits > 0) == (limit > 0)
    cache.clear()
    assert (len(cache), cache.store.stats.nbytes, found(cache, text(1, 1))) == (0, 0, 0)


def test_what_was_used_lately_stays_with_all_that_stands_before_it() -> None:
    cache = PrefixCache(12 * TOKEN_BYTES)
    kept = text(1, 2, 3, 4)
    cache.insert(kept[:2], [true_kv(kept[:2])])
    cache.insert(kept, [true_kv(kept)])
    for other in range(10, 30):
        symbols = text(*[other] * 4)
        cache.insert(symbols, [true_kv(symbols)])
        assert found(cache, kept) == 4
    assert cache.store.stats.evictions > 0


def test_symbols_tell_audio_apart_and_ids_from_audio() -> None:
    ids, runs = [5, 7, 7, 7, 6], [(1, 3)]
    a, b = (symbols_of(ids, runs, [key]) for key in ("one", "two"))
    assert common(a, symbols_of(ids, runs, ["one"])) == 5
    assert common(a, b) == 1
    assert a[0] == 5 and a[4] == 6 and (a[1:4] < 0).all()
    assert common(a, np.array(ids)) == 1
    assert common(text(), a) == 0
