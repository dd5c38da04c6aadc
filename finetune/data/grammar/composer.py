"""The composer: records in, samples out.

Runs over the records in their order, since what was asked so far decides what is asked next: families are kept level,
and so are the answers (:mod:`echo_agent.finetune.data.grammar.balance`). It takes well under a millisecond per
question, reads no audio and needs no network. Everything follows from the settings and the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from echo_agent.answers import normalise
from echo_agent.finetune.data.detail import difficulty
from echo_agent.finetune.data.grammar import ReasoningStyle, music, sounds, speech
from echo_agent.finetune.data.grammar.balance import Balance
from echo_agent.finetune.data.grammar.draft import About, Draft, Maker, Scope
from echo_agent.finetune.data.grammar.phrasings import word
from echo_agent.finetune.data.grammar.thoughts import reasoning, terse
from echo_agent.finetune.data.records import Record, Sample, Split

MAKERS: dict[str, Maker] = {**sounds.MAKERS, **speech.MAKERS, **music.MAKERS}
"""Makers of drafts, by kind (``family/variant``)."""
TAUGHT = ("list",)
"""Families that are worth teaching, but make poor tests: nobody agrees on what belongs into a list of all sounds."""
FAMILIES = tuple(sorted({kind.partition("/")[0] for kind in MAKERS} - set(TAUGHT)))

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
    """How reasoning is put (:mod:`echo_agent.finetune.data.grammar.thoughts`)."""
    open_share: Share = 0.2
    """Share of questions without choices, in the families that allow it."""
    listen_share: Share = 0.5
    """Share of questions that the first listen may suffice for whose reasoning listens again all the same."""
    rl_share: Share = 0.3
    """Share of training questions that are left to reinforcement learning, and come without reasoning."""
    voices: bool = False
    """Whether "voice" may be the answer to what is next to a sound or between two, whoever speaks."""
    families: tuple[str, ...] = FAMILIES
    """Which families are asked."""


def compose(
    records: Sequence[Record],
    settings: GrammarSettings,
    split: Callable[[Record], Split] | None = None,
    *,
    most: int | None = None,
    name: str = "",
) -> Iterator[Sample]:
    """Ask every record what it offers, families and answers kept level.

    Args:
        records: What is asked about; the same order gives the same questions.
        settings: How.
        split: Which split a record belongs to; the record's own where None.
        most: Stop after so many samples.
        name: Beginning of the samples' ids; those of the records where empty.
    """
    balance = Balance()
    about = About.of(records)
    kinds = {family: [k for k in MAKERS if k.partition("/")[0] == family] for family in settings.families}
    count = 0
    for record in records:
        rng = np.random.default_rng([settings.seed, *record.id.encode()])
        scope = Scope(record, rng, balance, settings.open_share, about, settings.voices)
        wanted = int(rng.integers(settings.fewest, max(settings.fewest, settings.most) + 1))
        asked: set[str] = set()
        rounds = math.ceil(wanted / len(kinds))
        for family in (f for _ in range(rounds) for f in balance_order(balance, tuple(kinds), rng)):
            if len(asked) >= wanted or (most is not None and count >= most):
                break
            draft = _draft(scope, family, kinds[family])
            if draft is None:
                continue
            text, phrasing = word(draft.kind, draft.slots, settings.wording, rng)
            if normalise(text) in asked:
                continue
            asked.add(normalise(text))
            balance.least("family", (family,), rng)
            where = (split(record) if split else record.split) or "train"
            ident = f"{name}-{count:05d}" if name else f"{record.id}-{len(asked)}"
            yield _sample(scope, draft, text, phrasing, settings, where, ident)
            count += 1
        if most is not None and count >= most:
            return


def balance_order(balance: Balance, families: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Families, those first that were asked least."""
    order: list[str] = []
    left = list(families)
    while left:
        family = balance.rarest("family", left, rng)
        left.remove(family)
        order.append(family)
    return order


def _draft(scope: Scope, family: str, kinds: Sequence[str]) -> Draft | None:
    """A draft of a family, of the kind that was asked least if it can be had."""
    left = list(kinds)
    while left:
        kind = scope.balance.rarest(f"kind/{family}", left, scope.rng)
        left.remove(kind)
        draft = MAKERS[kind](scope)
        if draft is not None:
            scope.balance.least(f"kind/{family}", (kind,), scope.rng)
            return draft
    return None


def _sample(
    scope: Scope, draft: Draft, text: str, phrasing: str, settings: GrammarSettings, split: Split, name: str
) -> Sample:
    """The sample of a worded draft."""
    record, rng = scope.record, scope.rng
    hard = difficulty(draft.kind, record.duration)
    listens = hard == "detail" or (
        draft.family not in TAUGHT and record.duration > SHORT and rng.random() < settings.listen_share
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
        family=draft.family,
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
