"""Packing: many questions about one recording in one sequence, which share what comes first.

The recording (its timeline as text, later its audio tokens) stands at the beginning; every question follows with its
answer, sees the recording and itself, and none of the others; its positions begin where the recording ends. So what is
expensive to repeat is computed once, and the model sees exactly what it sees when it is asked one question alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from echo_agent.finetune.data.natural.asking import Asked
from echo_agent.finetune.small.tree_attention import Tree
from echo_agent.small.processing import ANSWER, ANSWER_END, ASSISTANT, TURN_END, USER

IGNORED = -100
STEP = 64
"""Rows are padded to a multiple of this: for each new shape the products on a CPU are prepared anew."""


def first_text(timeline: str) -> str:
    """What comes first: the user's turn, opened, with the recording in it."""
    return f"{USER}{timeline}\n"


def question_part(asked: Asked) -> str:
    """The question with its choices, and the assistant's turn, opened."""
    choices = "".join(f"\n- {choice}" for choice in asked.choices or ())
    return f"{asked.question}{choices}{ASSISTANT}"


def reply_part(asked: Asked) -> str:
    """What the model is to write."""
    return f"{asked.steps}{ANSWER}{asked.answer}{ANSWER_END}{TURN_END}"


@dataclass(frozen=True)
class Pack:
    """One sequence: a recording and its questions."""

    ids: list[int]
    labels: list[int]
    branch: list[int]
    """0 for what is shared, then the number of the question that each token belongs to."""
    positions: list[int]

    def with_fewer(self, token: int, most: int) -> Pack:
        """The same where no more than ``most`` of one token stand in a row; the others keep their positions.

        Empty places of a listen say nothing, and are most of what a lesson in listening would cost.
        """
        kept, run = list[int](), 0
        for place, one in enumerate(self.ids):
            run = run + 1 if one == token else 0
            if run <= most:
                kept.append(place)
        ids, labels, branch, positions = (
            [row[place] for place in kept] for row in (self.ids, self.labels, self.branch, self.positions)
        )
        return Pack(ids, labels, branch, positions)


def pack(tokenizer: Any, timeline: str, questions: Sequence[Asked]) -> Pack:
    """A recording as text with its questions."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    branches = [[Stretch(ids(question_part(one))), Stretch(ids(reply_part(one)), True)] for one in questions]
    return pack_branches(ids(first_text(timeline)), branches)


@dataclass(frozen=True)
class Stretch:
    """Some tokens in a row, given or written by the model."""

    ids: list[int]
    written: bool = False


def pack_branches(shared: Sequence[int], branches: Sequence[Sequence[Stretch]]) -> Pack:
    """What comes first, and what follows it for each question."""
    ids, labels, branch = list(shared), [IGNORED] * len(shared), [0] * len(shared)
    positions = list(range(len(shared)))
    for number, stretches in enumerate(branches, start=1):
        for stretch in stretches:
            ids += stretch.ids
            labels += stretch.ids if stretch.written else [IGNORED] * len(stretch.ids)
        size = sum(len(stretch.ids) for stretch in stretches)
        branch += [number] * size
        positions += range(len(shared), len(shared) + size)
    return Pack(ids, labels, branch, positions)


@dataclass(frozen=True)
class Row:
    """Packs one behind the other: all their tokens go through the layers at once."""

    ids: Tensor
    """``[1, length]``"""
    positions: Tensor
    labels: Tensor
    """The token that follows each place, -100 where it is not learned."""
    trees: tuple[Tree, ...]
    """Who sees whom: a tree for each pack, and one of padding."""


def row_of(packs: Sequence[Pack], pad: int) -> Row:
    """Lay packs in a row, padded at its end."""
    ids, positions, labels, trees = list[int](), list[int](), list[int](), list[Tree]()
    for one in packs:
        sizes = [len(list(run)) for _, run in groupby(one.branch)]
        trees.append(Tree(len(ids), sizes[0], tuple(sizes[1:])))
        ids += one.ids
        positions += one.positions
        # A token's label is the one behind it; the last of a branch has none, and the next begins with what is given.
        labels += [*one.labels[1:], IGNORED]
    spare = -len(ids) % STEP
    trees += [Tree(len(ids), spare)] if spare else []
    return Row(
        torch.tensor([ids + [pad] * spare]),
        torch.tensor([positions + list(range(spare))]),
        torch.tensor([labels + [IGNORED] * spare]),
        tuple(trees),
    )
