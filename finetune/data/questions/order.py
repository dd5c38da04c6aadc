"""Questions about the order of sounds: which is first, last, next to another, what comes twice, and all of it."""

from __future__ import annotations

from itertools import combinations

from echo_agent.finetune.data.questions.draft import APART, Draft, Look, Maker, Scope

LONGEST_LIST = 24
"""Most events that are listed."""


def _apart(scope: Scope, i: int, j: int) -> bool:
    return abs(scope.events[i].onset - scope.events[j].onset) >= APART


def first_of_two(scope: Scope) -> Draft | None:
    """``order/first``: which of two begins first."""
    pairs = [(i, j) for i, j in combinations(scope.once, 2) if _apart(scope, i, j)]
    won = scope.duel("order/first", [pairs[k] for k in scope.rng.permutation(len(pairs))])
    if won is None:
        return None
    choices, slots = scope.versus("order/first", *won)
    named = sorted(won, key=lambda i: slots["a"] != scope.label(i))
    return Draft("order/first", slots, scope.label(won[0]), choices, tuple(Look(i) for i in named))


def _extreme(scope: Scope, kind: str, first: bool) -> Draft | None:
    """Of four sounds, the earliest or the latest."""
    once = [i for i in scope.once if scope.clear(i)]
    for _ in range(4):
        drawn = scope.shuffled(once)
        four = [i for i in once if scope.label(i) in scope.distinct([scope.label(i) for i in drawn], [], 4)]
        if len(four) < 4:
            return None
        answer = min(four) if first else max(four)
        wrong = [scope.label(i) for i in four if i != answer]
        if all(scope.balance.may_win(kind, scope.label(answer), label) for label in wrong[:1]):
            choices = scope.settle(kind, scope.label(answer), wrong)
            return Draft(kind, {}, scope.label(answer), choices, tuple(Look(i) for i in four))
    return None


def earliest(scope: Scope) -> Draft | None:
    """``order/earliest``: which of four begins first."""
    return _extreme(scope, "order/earliest", first=True)


def latest(scope: Scope) -> Draft | None:
    """``order/latest``: which of four begins last."""
    return _extreme(scope, "order/latest", first=False)


def _beside(scope: Scope, kind: str, step: int) -> Draft | None:
    """The sound right after or before one that is named."""
    anchors = {
        i + step: i
        for i in scope.once
        if 0 <= i + step < len(scope.events)
        and scope.found(i + step)
        and scope.follows(min(i, i + step), max(i, i + step))
    }
    for label in scope.balance.due(kind, [scope.label(j) for j in anchors], scope.rng):
        answer = next(j for j in anchors if scope.label(j) == label)
        anchor = anchors[answer]
        wrong = scope.among(kind, label, scope.elsewhere((answer, anchor)), [scope.label(anchor)])
        if wrong:
            choices = scope.settle(kind, label, wrong)
            return Draft(
                kind, {"a": scope.label(anchor)}, label, choices, (Look(anchor), Look(answer)),
            )  # fmt: skip
    return None


def next_sound(scope: Scope) -> Draft | None:
    """``order/next``: the sound right after another."""
    return _beside(scope, "order/next", 1)


def previous_sound(scope: Scope) -> Draft | None:
    """``order/previous``: the sound right before another."""
    return _beside(scope, "order/previous", -1)


def between(scope: Scope) -> Draft | None:
    """``between/which``: the one sound between two others."""
    middles = [
        i
        for i in range(len(scope.events))
        if scope.found(i)
        and {i - 1, i + 1} <= set(scope.once)
        and scope.follows(i - 1, i)
        and scope.follows(i, i + 1)
    ]
    kind = "between/which"
    for label in scope.balance.due(kind, [scope.label(i) for i in middles], scope.rng):
        i = next(i for i in middles if scope.label(i) == label)
        a, b = scope.label(i - 1), scope.label(i + 1)
        wrong = scope.among(kind, label, scope.elsewhere((i - 1, i, i + 1)), [a, b])
        if wrong:
            choices = scope.settle(kind, label, wrong)
            return Draft(kind, {"a": a, "b": b}, label, choices, (Look(i - 1), Look(i), Look(i + 1)), (i,))
    return None


def _edge(scope: Scope, kind: str, i: int) -> Draft | None:
    """The first or last sound of all."""
    if not (scope.record.complete and i in scope.once and scope.clear(i) and len(scope.events) >= 3):
        return None
    label = scope.label(i)
    pool = [scope.label(j) for j in scope.once if j != i]
    wrong = scope.among(kind, label, pool)
    if wrong is None or not all(scope.balance.may_win(kind, label, other) for other in wrong[:1]):
        return None
    return Draft(kind, {}, label, scope.settle(kind, label, wrong), (Look(i),))


def first_sound(scope: Scope) -> Draft | None:
    """``first_last/first``: with which sound the recording begins."""
    return _edge(scope, "first_last/first", 0)


def last_sound(scope: Scope) -> Draft | None:
    """``first_last/last``: with which sound the recording ends."""
    return _edge(scope, "first_last/last", len(scope.events) - 1)


def pair(scope: Scope) -> Draft | None:
    """``pattern/pair``: the two sounds that come twice in the same order; no other pair does."""
    if not scope.record.complete:
        return None
    rows: dict[tuple[str, str], list[int]] = {}
    for i in range(len(scope.events) - 1):
        if scope.is_sound(i) and scope.is_sound(i + 1):
            rows.setdefault((scope.label(i), scope.label(i + 1)), []).append(i)
    twice = {row: places for row, places in rows.items() if len(places) > 1 and row[0] != row[1]}
    sound = [
        row
        for row, places in twice.items()
        if len(places) == 2 and places[1] >= places[0] + 2 and all(scope.follows(i, i + 1) for i in places)
    ]
    if not sound:
        return None
    chosen = sound[int(scope.rng.integers(len(sound)))]
    first, again = twice[chosen]
    answer = f"{chosen[0]}, then {chosen[1]}"
    # Each label stands in one choice only, so that no choice looks like the one that the others are made of.
    others = [label for label in scope.present() if not any(label in row for row in twice)]
    if len(others) < 6:
        return None
    drawn = scope.balance.overdue("pattern/pair", others, scope.rng)[:6]
    wrong = [f"{a}, then {b}" for a, b in zip(drawn[::2], drawn[1::2], strict=True)]
    for label, against in zip(chosen, (drawn[::2], drawn[1::2]), strict=True):
        scope.balance.decide("pattern/pair", label, against)
    choices = scope.balance.place("pattern/pair", answer, wrong, scope.rng)
    return Draft(
        "pattern/pair", {}, answer, choices, tuple(Look(i) for i in (first, first + 1, again, again + 1))
    )


def everything(scope: Scope) -> Draft | None:
    """``list/all``: all that is heard, in the order in which it begins."""
    looks = tuple(Look(i) for i in range(len(scope.events)))
    if not (scope.record.complete and 2 <= len(looks) <= LONGEST_LIST):
        return None
    return Draft("list/all", {}, ", ".join(dict.fromkeys(map(scope.label, range(len(looks))))), None, looks)


MAKERS: dict[str, Maker] = {
    "order/first": first_of_two,
    "order/earliest": earliest,
    "order/latest": latest,
    "order/next": next_sound,
    "order/previous": previous_sound,
    "between/which": between,
    "first_last/first": first_sound,
    "first_last/last": last_sound,
    "list/all": everything,
    "pattern/pair": pair,
}
"""Makers of drafts, by kind."""
