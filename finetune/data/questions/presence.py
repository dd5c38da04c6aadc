"""Questions about which sounds are heard at all, and which are not."""

from __future__ import annotations

from echo_agent.finetune.data.questions.draft import Draft, Look, Maker, Scope


def is_there(scope: Scope) -> Draft | None:
    """``presence/is``: whether a sound is heard."""
    kind = "presence/is"
    pools = {"yes": scope.present(), "no": scope.absent()}
    answer = scope.balance.rarest(kind, ("yes", "no"), scope.rng)
    if not pools[answer]:
        return None
    # Of every label, as often yes as no.
    order = [pools[answer][int(k)] for k in scope.rng.permutation(len(pools[answer]))]
    label = min(order, key=lambda one: scope.balance.lead(f"{kind}/{one}", answer, ("yes", "no")))
    if scope.balance.lead(f"{kind}/{label}", answer, ("yes", "no")) > 0:
        return None
    scope.balance.least(f"{kind}/{label}", (answer,), scope.rng)
    scope.balance.least(kind, (answer,), scope.rng)
    there = [i for i, event in enumerate(scope.events) if event.label == label]
    looks = tuple(Look(i) for i in there[:1])
    return Draft(
        kind, {"a": label}, answer, ("yes", "no"), looks, tuple(there), absent=() if there else (label,)
    )


def which_is_there(scope: Scope) -> Draft | None:
    """``presence/which``: the one of four that is heard."""
    kind, absent = "presence/which", scope.absent()
    for label in scope.balance.due(kind, scope.present(), scope.rng)[:4]:
        wrong = scope.distinct(scope.balance.overdue(kind, absent, scope.rng), [label], 3)
        if len(wrong) == 3:
            there = tuple(i for i, event in enumerate(scope.events) if event.label == label)
            choices = scope.settle(kind, label, wrong)
            return Draft(kind, {}, label, choices, (Look(there[0]),), there, absent=tuple(wrong))
    return None


def which_is_missing(scope: Scope) -> Draft | None:
    """``presence/missing``: the one of four that is not heard."""
    kind = "presence/missing"
    for label in scope.balance.due(kind, scope.absent(), scope.rng)[:4]:
        pool = scope.balance.overdue(kind, scope.present(), scope.rng)
        wrong = scope.distinct(pool, [label], 3)
        if len(wrong) == 3:
            heard = [next(i for i, e in enumerate(scope.events) if e.label == other) for other in wrong]
            choices = scope.settle(kind, label, wrong)
            looks = tuple(Look(i) for i in sorted(heard))
            return Draft(kind, {}, label, choices, looks, absent=(label,))
    return None


MAKERS: dict[str, Maker] = {
    "presence/is": is_there,
    "presence/which": which_is_there,
    "presence/missing": which_is_missing,
}
"""Makers of drafts, by kind."""
