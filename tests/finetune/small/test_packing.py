"""Packing: a question in a pack is read as if it were alone."""

from __future__ import annotations

from typing import Any

import torch

from echo_agent.finetune.data.natural.asking import Asked
from echo_agent.finetune.small.packing import IGNORED, batch, first_text, pack, question_part, reply_part
from echo_agent.finetune.small.text_first import _additive, loss_of

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
    part = batch([packed], tokenizer.pad_token_id)
    learned = part.labels[0][part.labels[0] != IGNORED]
    # The first token of a reply follows the question, which is given.
    assert tokenizer.decode(learned) == "".join(reply_part(asked) for asked in QUESTIONS)


def test_a_question_in_a_pack_is_read_as_if_alone(tokenizer: Any, model: Any) -> None:
    other = pack(tokenizer, "nothing\nlength 4", QUESTIONS[2:])
    together = batch([pack(tokenizer, TIMELINE, QUESTIONS), other], tokenizer.pad_token_id)
    with torch.no_grad():
        hidden = model.model(
            input_ids=together.ids,
            attention_mask=_additive(together.mask).float(),
            position_ids=together.positions,
            use_cache=False,
        ).last_hidden_state
    start = len(tokenizer.encode(first_text(TIMELINE)))
    for asked in QUESTIONS:
        rest = tokenizer.encode(question_part(asked) + reply_part(asked))
        alone = torch.tensor([[*tokenizer.encode(first_text(TIMELINE)), *rest]])
        with torch.no_grad():
            expected = model.model(input_ids=alone, use_cache=False).last_hidden_state
        torch.testing.assert_close(
            hidden[0, start : start + len(rest)], expected[0, -len(rest) :], atol=1e-4, rtol=1e-4
        )
        start += len(rest)


def test_the_loss_is_finite_and_reaches_every_layer(tokenizer: Any, model: Any) -> None:
    part = batch([pack(tokenizer, TIMELINE, QUESTIONS)], tokenizer.pad_token_id)
    loss = loss_of(model, part)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.model.layers.parameters())
