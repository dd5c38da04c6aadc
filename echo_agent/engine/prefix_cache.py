"""The prefix cache: keys and values of contexts that have been computed, found again by exact ids and audio.

Contexts form a tree: each node holds the tokens by which it continues its parent, and the keys and values (KV) of those
tokens. By causality the KV of a token depends on what stands before it and on nothing after it, so any path from the
root, cut anywhere, is a valid prefix: runs that share a recording and a question share one node, a run's next turn
continues from its last, and a branch splits a node in two.

Keys and values are never written to once they are here. They live in a store with a byte limit that forgets the longest
unused first; a node whose KV was forgotten is dropped with everything below it, and computed again when it is needed.

A token is identified by its *symbol*: its id, or for an audio placeholder a negative number made from the audio's key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import torch

from echo_agent.engine.kv import KV
from echo_agent.stores import ByteStore

if TYPE_CHECKING:
    from echo_agent.families.base import PlaceholderRange

Symbols = np.ndarray
"""One int64 per token of a context."""


def symbols_of(ids: Sequence[int], ranges: Sequence[PlaceholderRange], keys: Sequence[str]) -> Symbols:
    """Symbols of a context, from its placeholder ranges (first index, length) and the keys of their audio."""
    symbols = np.array(ids, dtype=np.int64)
    for (first, length), key in zip(ranges, keys, strict=True):
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        symbols[first : first + length] = -1 - (int.from_bytes(digest, "little") >> 1)
    return symbols


def common(first: Symbols, second: Symbols) -> int:
    """Length of the common beginning of two sequences of symbols."""
    shorter = min(len(first), len(second))
    different = (first[:shorter] != second[:shorter]).nonzero()[0]
    return int(different[0]) if len(different) else shorter


class _Node:
    """Tokens that continue the parent's; the KV lies in the store under ``key``."""

    __slots__ = ("children", "key", "parent", "symbols")

    def __init__(self, key: int, symbols: Symbols, parent: _Node | None) -> None:
        self.key = key
        self.symbols = symbols
        self.parent = parent
        self.children: dict[int, _Node] = {}


class PrefixCache:
    """A tree of prefixes over a byte-limited store. Used by the engine's thread only."""

    def __init__(self, limit: int) -> None:
        """Keep at most ``limit`` bytes of KV."""
        self.store: ByteStore[int, KV] = ByteStore(limit)
        self._numbers = count(1)
        self._root = _Node(0, np.empty(0, np.int64), None)
        self._nodes = 0

    def match(self, symbols: Symbols) -> list[KV]:
        """KV of the longest prefix of ``symbols`` that is here, in consecutive parts; not to be written to."""
        path = self._walk(symbols)
        parts = self._use([node for node, _ in path])
        return [kv[:, :, :used] for kv, (_, used) in zip(parts, path, strict=False)]

    def insert(self, symbols: Symbols, parts: Sequence[KV]) -> None:
        """Keep the KV of ``symbols``, of which ``parts`` hold all, in consecutive parts (views are copied)."""
        self._sweep()
        path = self._walk(symbols)
        path = path[: len(self._use([node for node, _ in path]))]
        have = sum(used for _, used in path)
        if have == len(symbols):
            return
        parent = self._root
        if path:
            parent, used = path[-1]
            if used < len(parent.symbols):
                parent = self._split(parent, used)
        kv = gather(parts, have, len(symbols))
        node = self._add(symbols[have:].copy(), parent, kv)
        self._use([*(above for above, _ in path[:-1]), *([parent] if path else []), node])

    def clear(self) -> None:
        """Forget everything."""
        self.store.clear()
        self._root.children.clear()
        self._nodes = 0

    def __len__(self) -> int:
        """Number of nodes."""
        return self._nodes

    def _walk(self, symbols: Symbols) -> list[tuple[_Node, int]]:
        """The path along ``symbols``: each node with how many of its tokens agree."""
        path: list[tuple[_Node, int]] = []
        node, done = self._root, 0
        while done < len(symbols):
            child = node.children.get(int(symbols[done]))
            if child is None:
                break
            used = common(child.symbols, symbols[done:])
            path.append((child, used))
            done += used
            if used < len(child.symbols):
                break
            node = child
        return path

    def _use(self, path: Sequence[_Node]) -> list[KV]:
        """KV of a path's nodes, up to the first whose KV was forgotten: that one and those below it are dropped.

        From the leaf up, so that a node always counts as used after its children and is forgotten after them.
        """
        held: list[KV] = []
        for node in reversed(path):
            kv = self.store.get(node.key)
            if kv is None:
                self._drop(node)
                held.clear()
            else:
                held.append(kv)
        return held[::-1]

    def _add(self, symbols: Symbols, parent: _Node, kv: KV) -> _Node:
        """Hang a new node under ``parent``."""
        node = _Node(next(self._numbers), symbols, parent)
        parent.children[int(symbols[0])] = node
        self._nodes += 1
        self.store.put(node.key, kv, kv.nbytes)
        return node

    def _split(self, node: _Node, used: int) -> _Node:
        """Cut a node after ``used`` tokens; gives the upper half, to which another continuation can be added."""
        kv = self.store.get(node.key)
        assert kv is not None and node.parent is not None
        self.store.discard(node.key)
        self._nodes -= 1
        upper = self._add(node.symbols[:used], node.parent, _copied(kv[:, :, :used]))
        lower = self._add(node.symbols[used:], upper, _copied(kv[:, :, used:]))
        lower.children = node.children
        for child in lower.children.values():
            child.parent = lower
        return upper

    def _drop(self, node: _Node) -> None:
        """Take a node and everything below it out of the tree."""
        if node.parent is not None:
            node.parent.children.pop(int(node.symbols[0]), None)
        waiting = [node]
        while waiting:
            below = waiting.pop()
            waiting.extend(below.children.values())
            self.store.discard(below.key)
            self._nodes -= 1

    def _sweep(self) -> None:
        """Drop nodes whose KV was forgotten, once they are more than those that are alive."""
        if self._nodes <= 2 * len(self.store) + 64:
            return
        waiting = list(self._root.children.values())
        while waiting:
            node = waiting.pop()
            if node.key in self.store:
                waiting.extend(node.children.values())
            else:
                self._drop(node)


def gather(parts: Sequence[KV], start: int, end: int) -> KV:
    """KV of the tokens from ``start`` to ``end`` of consecutive parts, which shares memory with no other.

    A part that is wanted whole and owns its memory is given as it is: parts are never written to.
    """
    wanted: list[KV] = []
    done = 0
    for part in parts:
        size = part.tokens
        first, last = max(start - done, 0), min(end - done, size)
        if first < last:
            wanted.append(part[:, :, first:last] if last - first < size else part)
        done += size
    if len(wanted) > 1:
        return KV.joined(wanted)
    return wanted[0] if wanted[0].owns else _copied(wanted[0])


def _copied(kv: KV) -> KV:
    """The same in memory of its own."""
    return kv.each(lambda stack: stack.clone(memory_format=torch.contiguous_format))
