"""Packing: many questions about one recording in one sequence, which share what comes first.

The recording (its timeline as text, later its audio tokens) stands at the beginning; every question follows with its
answer, sees the recording and itself, and none of the others; its positions begin where the recording ends. So what is
expensive to repeat is computed once, and the model sees exactly what it sees when it is asked one question alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from echo_agent.finetune.data.natural.asking import Asked
from echo_agent.small.processing import ANSWER, ANSWER_END, ASSISTANT, TURN_END, USER

IGNORED = -100
STEP = 64
"""Batches are padded to a multiple of this: for each new shape the products on a CPU are prepared anew."""


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
class Batch:
    """Several packs, padded on the right."""

    ids: Tensor
    """``[batch, length]``"""
    positions: Tensor
    mask: Tensor
    """What each token may see ``[batch, 1, length, length]``."""
    labels: Tensor
    """The token that follows each place, -100 where it is not learned."""


def batch(packs: Sequence[Pack], pad: int) -> Batch:
    """Pad packs to one batch."""
    size = math.ceil(max(len(pack.ids) for pack in packs) / STEP) * STEP

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (size - len(row))] for row in rows])

    branch = padded([p.branch for p in packs], -1)
    same = branch[:, :, None] == branch[:, None, :]
    earlier = torch.ones(size, size, dtype=torch.bool).tril()
    mask = (same | (branch == 0)[:, None, :]) & earlier
    # A token's label is the one after it; the first of each question follows the last that is shared, and is given.
    labels = padded([p.labels for p in packs], IGNORED)
    following = torch.full_like(labels, IGNORED)
    following[:, :-1] = torch.where(same.diagonal(1, 1, 2), labels[:, 1:], IGNORED)
    return Batch(
        padded([p.ids for p in packs], pad), padded([p.positions for p in packs], 0), mask[:, None], following
    )
