"""The composer: records in, samples out.

Runs over the records in their order, since what was asked so far decides what is asked next: categories are kept level,
and so are the answers (:mod:`echo_agent.finetune.data.questions.balance`). It takes well under a millisecond per
question, reads no audio and needs no network. Everything follows from the settings and the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from echo_agent.answers import normalise
from echo_agent.finetune.data.questions import ReasoningStyle, measures, music, order, presence, speech
from echo_agent.finetune.data.questions.balance import Balance
from echo_agent.finetune.data.questions.difficulty import difficulty
from echo_agent.finetune.data.questions.draft import About, Draft, Maker, Scope
from echo_agent.finetune.data.questions.phrasings import word
from echo_agent.finetune.data.questions.reasoning import reasoning, terse
from echo_agent.finetune.data.records import Record, Sample, Split

MAKERS: dict[str, Maker] = {
    **order.MAKERS,
    **presence.MAKERS,
    **measures.MAKERS,
    **speech.MAKERS,
    **music.MAKERS,
}
"""Makers of drafts, by kind (``category/variant``)."""
TAUGHT = ("list",)
"""Categories that are worth teaching, but make poor tests: nobody agrees on what belongs into a list of all sounds."""
CATEGORIES = tuple(sorted({kind.partition("/")[0] for kind in MAKERS} - set(TAUGHT)))

Share = Annotated[float, Field(ge=0, le=1)]


class GrammarSettings(BaseModel):
    """How a set of questions is composed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    fewest: Annotated[int, Field(ge=1)] = 5
    """Least questions per recording that are tried for."""
    most: Annotated[int, Field(ge=1)] = 8
    """Most questions per recording."""
    wording: Literal["train", "test"] = "train"
    """Which wordings are taken; those of tests are never met in training."""
    reasoning: ReasoningStyle = "sentences"
    """How reasoning is put (:mod:`echo_agent.finetune.data.questions.reasoning`)."""
    open_share: Share = 0.2
    """Share of questions without choices, in the categories that allow it."""
    listen_share: Share = 0.5
    """Share of questions whose reasoning listens again although the first listen may suffice."""
    rl_share: Share = 0.3
    """Share of training questions that are left to reinforcement learning, and come without reasoning."""
    voices: bool = False
    """Whether "voice" may be the answer to what is next to a sound or between two, whoever speaks."""
    categories: tuple[str, ...] = CATEGORIES
    """Which categories are asked."""


def compose(
    records: Sequence[Record],
    settings: GrammarSettings,
    split: Callable[[Record], Split] | None = None,
    *,
    most: int | None = None,
    name: str = "",
) -> Iterator[Sample]:
    """Ask every record what it offers, categories and answers kept level.

    Args:
        records: What is asked about; the same order gives the same questions.
        settings: How.
        split: Which split a record belongs to; the record's own where None.
        most: Stop after this many samples.
        name: Beginning of the samples' ids; those of the records where empty.
    """
    balance = Balance()
    about = About.of(records)
    kinds = {
        category: [k for k in MAKERS if k.partition("/")[0] == category] for category in settings.categories
    }
    count = 0
    for record in records:
        rng = np.random.default_rng([settings.seed, *record.id.encode()])
        scope = Scope(record, rng, balance, settings.open_share, about, settings.voices)
        wanted = int(rng.integers(settings.fewest, max(settings.fewest, settings.most) + 1))
        asked: set[str] = set()
        rounds = math.ceil(wanted / len(kinds))
        for category in (f for _ in range(rounds) for f in balance_order(balance, tuple(kinds), rng)):
            if len(asked) >= wanted or (most is not None and count >= most):
                break
            draft = _draft(scope, category, kinds[category])
            if draft is None:
                continue
            text, phrasing = word(draft.kind, draft.slots, settings.wording, rng)
            if normalise(text) in asked:
                continue
            asked.add(normalise(text))
            balance.least("category", (category,), rng)
            where = (split(record) if split else record.split) or "train"
            ident = f"{name}-{count:05d}" if name else f"{record.id}-{len(asked)}"
            yield _sample(scope, draft, text, phrasing, settings, where, ident)
            count += 1
        if most is not None and count >= most:
            return


def balance_order(balance: Balance, categories: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Categories, those first that were asked least."""
    order: list[str] = []
    left = list(categories)
    while left:
        category = balance.rarest("category", left, rng)
        left.remove(category)
        order.append(category)
    return order


def _draft(scope: Scope, category: str, kinds: Sequence[str]) -> Draft | None:
    """A draft of a category, of the kind that was asked least if it can be had."""
    left = list(kinds)
    while left:
        kind = scope.balance.rarest(f"kind/{category}", left, scope.rng)
        left.remove(kind)
        draft = MAKERS[kind](scope)
        if draft is not None:
            scope.balance.least(f"kind/{category}", (kind,), scope.rng)
            return draft
    return None


def _sample(
    scope: Scope, draft: Draft, text: str, phrasing: str, settings: GrammarSettings, split: Split, name: str
) -> Sample:
    """The sample of a worded draft."""
    record, rng = scope.record, scope.rng
    hard = difficulty(draft.kind, record.duration)
    listens = hard == "detail" or (
        draft.category not in TAUGHT and record.duration > SHORT and rng.random() < settings.listen_share
    )
    think = terse if settings.reasoning == "terse" else reasoning
    told = think(draft, record, rng, listens=listens)
    rl = split == "train" and rng.random() < settings.rl_share
    use = "" if split == "test" else "rl" if rl else "sft"
    gold = draft.gold or tuple(look.event for look in draft.looks)
    spans = dict.fromkeys((record.events[i].onset, record.events[i].offset) for i in sorted(gold))
    return Sample(
        id=name,
        audio=record.audio,
        duration=record.duration,
        question=text,
        choices=draft.choices,
        answer=draft.answer if draft.choices else None,
        answers=None if draft.choices else (draft.answer, *draft.answers),
        gold_spans=tuple(spans),
        category=draft.category,
        difficulty=hard,
        record=record.id,
        corpus=record.corpus,
        group=record.group or record.id,
        split=split,
        use=use,
        reasoning="" if rl else told,
        phrasing=phrasing,
        licence=record.licence,
        composer="grammar",
    )


SHORT = 20.0
"""Seconds up to which nothing is heard again: the first listen has 2.4 tokens a second and more."""
