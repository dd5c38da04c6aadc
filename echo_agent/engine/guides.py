"""Guided answers: between ``<answer>`` and ``</answer>``, a run may only write one of its choices.

A guide holds what may be written as a tree of tokens: each choice as it is shown in the prompt (escaped, so no control
token is in it) and the closing tag, as the family's tokenizer writes them, once with a space in front and once without
(answers are stripped when they are read; echo-nano was taught the space). A run's cursor waits for the opening tag,
wherever it comes from: sampled, or given at the end of the context by the request for the answer, also where some of
the answer has been written after it. From there the engine lets only the tree's next tokens be sampled, until a
spelling is complete; the policy's own probabilities choose among them, and nothing is written for it.

A run is free where it has not opened an answer, and where its answer does not begin as the tree does: one token may
hold the end of the tag and more (``>f``). White space there is skipped; with anything else the run stays free, and its
answer is read as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from echo_agent.answers import ANSWER, ANSWER_END
from echo_agent.engine.stops import StopStrings

if TYPE_CHECKING:
    from echo_agent.families.base import Family

_OPENING = 16
"""Most tokens that the opening tag and white space after it take: one per byte, and some."""


class Node(dict[int, "Node"]):
    """What may be sampled next, and where that leads; empty where a spelling is complete."""


class Guide:
    """The spellings of some choices; one object serves all runs with the same choices."""

    def __init__(self, choices: Sequence[str], family: Family) -> None:
        """Spell ``choices`` in the tokens of ``family``."""
        self.root = Node()
        self._detokenize = family.detokenize
        never = {*family.banned_ids, *family.eos_ids}
        self.reach = _OPENING
        """Most tokens of a run that matter: the opening tag and the longest spelling."""
        for choice in choices:
            plain = family.escape(choice).strip()
            for text in (plain, f" {plain}"):
                # Sampling stops at the first closing tag, also where a choice holds one itself.
                before = text.partition(ANSWER_END)[0]
                ids = family.tokenize(before + ANSWER_END) if before.strip() else []
                if ids and never.isdisjoint(ids):
                    node = self.root
                    for token in ids:
                        node = node.setdefault(token, Node())
                    self.reach = max(self.reach, _OPENING + len(ids))

    def opened(self, ids: Sequence[int]) -> bool:
        """Whether ``ids`` end with the opening tag, or with white space after it."""
        _, tag, rest = self._detokenize(ids).rpartition(ANSWER)
        return bool(tag) and not rest.strip()

    def enter(self, ids: Sequence[int]) -> Node | None:
        """Where a context that ends with ``ids`` stands: at the root or further down; None outside of an answer."""
        tail = ids[-self.reach :]
        if ANSWER not in self._detokenize(tail):
            return None
        # White space after the tag may be the beginning of a spelling, or stand before it: the first is tried first.
        for end in range(1, len(tail) + 1):
            if self.opened(tail[:end]):
                node: Node | None = self.root
                for token in tail[end:]:
                    node = node.get(token) if node is not None else None
                if node is not None:
                    return node
        return None


class Cursor:
    """Where one run stands in its guide."""

    def __init__(self, guide: Guide, opening: StopStrings, ids: Sequence[int]) -> None:
        """Begin after the context ``ids``; ``opening`` watches for the opening tag."""
        self._guide, self._opening = guide, opening
        self._node = guide.enter(ids)
        self._recent = list(ids[-_OPENING:])

    @property
    def kept(self) -> Sequence[int]:
        """Ids of which the next is sampled; none where the run is free."""
        return tuple(self._node) if self._node else ()

    def push(self, token: int) -> None:
        """Take a sampled token."""
        self._recent = [*self._recent[1 - _OPENING :], token]
        if self._node:
            self._node = self._node[token]
        elif self._opening.found(self._recent) and self._guide.opened(self._recent):
            self._node = self._guide.root


class Guides:
    """Cursors for the runs of one family; guides are kept between runs."""

    def __init__(self, family: Family) -> None:
        """Guide runs of ``family``."""
        self._opening = StopStrings((ANSWER,), family.detokenize)
        self.guide = lru_cache(maxsize=256)(lambda choices: Guide(choices, family))

    def cursor(self, choices: tuple[str, ...], ids: Sequence[int]) -> Cursor | None:
        """A cursor after the context ``ids``; None where there are no choices."""
        return Cursor(self.guide(choices), self._opening, ids) if choices else None
