"""Packing: a question in a pack is read as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from echo_agent.finetune.data.natural.asking import Asked
from echo_agent.finetune.small.packing import (
    IGNORED,
    Pack,
    first_text,
    pack,
    question_part,
    reply_part,
    row_of,
)
from echo_agent.finetune.small.text_first import loss_of

TIMELINE = "2-5 telephone x3\n10-14 dishes\nlength 60"
QUESTIONS = [
    Asked(
        "order/first", "Which is first?", ("telephone", "dishes"), "telephone", ("telephone",), "telephone 2."
    ),
    Asked("count/hits", "How often does it ring?", None, "3", ("3",), "telephone 2 x3."),
    Asked("unknowable/sounds", "who is calling", None, "I cannot tell.", ("I cannot tell.",), ""),
]


def test_labels_are_the_replies_alone(tokenizer: Any) -> None:
    packed = pack(tokenizer, TIMELINE, QUESTIONS)
    row = row_of([packed, packed], tokenizer.pad_token_id)
    learned = row.labels[0][row.labels[0] != IGNORED]
    # The first token of a reply follows the question, which is given.
    assert tokenizer.decode(learned) == 2 * "".join(reply_part(asked) for asked in QUESTIONS)


def test_a_question_in_a_pack_is_read_as_if_alone(tokenizer: Any, model: Any) -> None:
    other = pack(tokenizer, "nothing\nlength 4", QUESTIONS[2:])
    packed = pack(tokenizer, TIMELINE, QUESTIONS)
    row = row_of([other, packed, other], tokenizer.pad_token_id)
    with torch.no_grad():
        hidden = model.model(
            input_ids=row.ids, position_ids=row.positions, use_cache=False, trees=row.trees
        ).last_hidden_state
    start = len(other.ids) + len(tokenizer.encode(first_text(TIMELINE)))
    model.set_attn_implementation("eager")
    for asked in QUESTIONS:
        rest = tokenizer.encode(question_part(asked) + reply_part(asked))
        alone = torch.tensor([[*tokenizer.encode(first_text(TIMELINE)), *rest]])
        with torch.no_grad():
            expected = model.model(input_ids=alone, use_cache=False).last_hidden_state
        torch.testing.assert_close(
            hidden[0, start : start + len(rest)], expected[0, -len(rest) :], atol=1e-4, rtol=1e-4
        )
        start += len(rest)


def test_the_loss_of_a_row_is_that_of_its_packs(tokenizer: Any, model: Any) -> None:
    packs = [pack(tokenizer, TIMELINE, QUESTIONS), pack(tokenizer, "nothing\nlength 4", QUESTIONS[2:])]
    loss = loss_of(model, row_of(packs, tokenizer.pad_token_id))
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.model.layers.parameters())
    rows = [row_of([one], tokenizer.pad_token_id) for one in packs]
    sizes = [int((row.labels != IGNORED).sum()) for row in rows]
    alone = sum(loss_of(model, row).item() * size for row, size in zip(rows, sizes, strict=True))
    assert loss.item() == pytest.approx(alone / sum(sizes), rel=1e-4)


def test_empty_places_are_left_out_and_the_others_keep_theirs() -> None:
    packed = Pack([5, 0, 0, 0, 6, 0, 7], [-100, 0, 0, 0, 6, -100, 7], [0, 0, 0, 0, 1, 1, 1], list(range(7)))
    fewer = packed.with_fewer(0, 1)
    assert fewer.ids == [5, 0, 6, 0, 7] and fewer.positions == [0, 1, 4, 5, 6]
    assert fewer.labels == [-100, 0, 6, -100, 7] and fewer.branch == [0, 0, 1, 1, 1]
