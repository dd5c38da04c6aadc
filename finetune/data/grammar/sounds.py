"""Questions about which sounds are heard, in what order, how often, when, how long and how loud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

from echo_agent.finetune.data.grammar.balance import FAR
from echo_agent.finetune.data.grammar.draft import APART, Draft, Look, Maker, Scope

MARGIN_DB = 6.0
"""How much louder the loudest must be."""
LONGER = 1.6
"""How many times as long the longest must be."""
ALIKE, ALIKE_DB = 1.25, 2.0
"""Two sounds are compared only if sounds like them are usually about as long (ratio) and as loud (dB): else whoever
knows that thunder outlasts a beep need not listen."""
HITS = ("2", "3", "4", "5", "6")
PARTS = ("the first third", "the middle third", "the last third")
PAUSES = (0.8, 12.0)
"""Shortest and longest pause that is asked about, s; wrong choices lie between them too, or none would believe them."""
PAUSE_STEP = 1.8
"""Ratio of one length of a pause to the next among the choices."""
LONGEST_LIST = 24
"""Most events that are listed."""
ASIDE = 4
"""Seconds by which the choices of a time differ."""


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


def hits(scope: Scope) -> Draft | None:
    """``count/hits``: how often something is struck."""
    kind = "count/hits"
    bursts = [i for i in scope.once if scope.events[i].kind == "burst" and str(scope.events[i].hits) in HITS]
    if not bursts or not scope.record.complete:
        return None
    count = scope.balance.rarest(kind, sorted({str(scope.events[i].hits) for i in bursts}), scope.rng)
    fitting = [i for i in bursts if str(scope.events[i].hits) == count]
    if scope.balance.lead(kind, count, HITS) > FAR:
        return None
    label = scope.balance.least(f"{kind}/{count}", [scope.label(i) for i in fitting], scope.rng)
    i = next(i for i in fitting if scope.label(i) == label)
    scope.balance.least(kind, (count,), scope.rng)
    choices = None if scope.rng.random() < scope.open_share else HITS
    return Draft(kind, {"a": label}, count, choices, (Look(i, heard=f"{count} hits"),))


def second(scope: Scope) -> Draft | None:
    """``when/second``: when a sound begins; the other choices are times of other sounds where possible."""
    kind = "when/second"
    seconds = [math.floor(event.onset) for event in scope.events]
    length = max(math.ceil(scope.record.duration), 1)
    for i in scope.shuffled(scope.once):
        taken = [seconds[i]]
        others = [seconds[j] for j in scope.shuffled(range(len(seconds)))]
        for other in (*others, *scope.shuffled(range(length))):
            if len(taken) < 4 and all(abs(other - time) >= ASIDE for time in taken):
                taken.append(other)
        if len(taken) < 4:
            continue
        # No place in the order of the times is more often right than another.
        rank = sorted(taken).index(taken[0])
        if scope.balance.lead(kind, rank, range(4)) > 1:
            continue
        scope.balance.least(kind, (rank,), scope.rng)
        choices = scope.balance.place(kind, f"{taken[0]} s", [f"{time} s" for time in taken[1:]], scope.rng)
        return Draft(kind, {"a": scope.label(i)}, f"{taken[0]} s", choices, (Look(i),))
    return None


def part(scope: Scope) -> Draft | None:
    """``when/part``: in which third of the recording a sound is."""
    kind, third = "when/part", scope.record.duration / 3
    where = {
        i: int(scope.events[i].onset // third)
        for i in scope.once
        if scope.events[i].onset // third == scope.events[i].offset // third
        and min(scope.events[i].onset % third, third - scope.events[i].offset % third) > 1
    }
    if not where:
        return None
    answer = scope.balance.rarest(kind, sorted(set(where.values())), scope.rng)
    if scope.balance.lead(kind, answer, range(3)) > FAR:
        return None
    scope.balance.least(kind, (answer,), scope.rng)
    labels = [scope.label(i) for i in where if where[i] == answer]
    label = scope.balance.least(f"{kind}/{answer}", labels, scope.rng)
    i = next(i for i in where if scope.label(i) == label)
    return Draft(kind, {"a": label}, PARTS[answer], PARTS, (Look(i),))


def pause(scope: Scope) -> Draft | None:
    """``duration/pause``: how long it is quiet between two sounds in a row."""
    kind = "duration/pause"
    for i in scope.shuffled(scope.once):
        if i + 1 not in scope.once or not scope.follows(i, i + 1):
            continue
        gap = scope.events[i + 1].onset - scope.events[i].offset
        rank = scope.balance.rarest(kind, range(4), scope.rng)
        steps = [gap * PAUSE_STEP ** (k - rank) for k in range(4)]
        shown = [f"{step:.1f} s" for step in steps]
        if steps[0] < PAUSES[0] or steps[-1] > PAUSES[1]:
            continue
        scope.balance.least(kind, (rank,), scope.rng)
        wrong = [text for k, text in enumerate(shown) if k != rank]
        choices = scope.balance.place(kind, shown[rank], wrong, scope.rng)
        slots = {"a": scope.label(i), "b": scope.label(i + 1)}
        return Draft(kind, slots, shown[rank], choices, (Look(i), Look(i + 1)))
    return None


def _contest(scope: Scope, kind: str, pairs: Sequence[tuple[int, int]], heard: bool) -> Draft | None:
    """Which of two: a winner and a loser."""
    won = scope.duel(kind, [pairs[k] for k in scope.rng.permutation(len(pairs))])
    if won is None:
        return None
    choices, slots = scope.versus(kind, *won)
    looks = []
    for i in sorted(won, key=lambda i: slots["a"] != scope.label(i)):
        more = "more" if i == won[0] else "less"
        looks.append(Look(i, heard=_measured(scope, kind, i, more) if heard else ""))
    return Draft(kind, slots, scope.label(won[0]), choices, tuple(looks))


def _measured(scope: Scope, kind: str, i: int, more: str) -> str:
    """What a closer listen tells of one side of a contest."""
    if kind == "compare/hits":
        return f"{scope.events[i].hits} hits"
    if kind == "duration/longer":
        return f"{scope.events[i].offset - scope.events[i].onset:.1f} s"
    return "loud" if more == "more" else "soft"


def longer(scope: Scope) -> Draft | None:
    """``duration/longer``: which of two lasts longer."""
    length = {i: scope.events[i].offset - scope.events[i].onset for i in scope.once}
    usual = {i: scope.usual(scope.about.lengths, i) for i in scope.once}
    pairs = [
        (i, j)
        for i in length
        for j in length
        if length[i] >= max(LONGER * length[j], length[j] + 0.4)
        and usual[j] / ALIKE < usual[i] < usual[j] * ALIKE
    ]
    return _contest(scope, "duration/longer", pairs, heard=True)


def _levels(scope: Scope) -> dict[int, float]:
    """Levels of the sounds that are heard by themselves: of two at once, nobody can tell how loud each is."""
    level = {i: scope.events[i].level_db for i in scope.once if scope.alone(i)}
    return {i: value for i, value in level.items() if value is not None}


def louder(scope: Scope) -> Draft | None:
    """``loudness/louder``: which of two is louder."""
    known = _levels(scope)
    usual = {i: scope.usual(scope.about.levels, i) for i in known}
    pairs = [
        (i, j)
        for i in known
        for j in known
        if known[i] >= known[j] + MARGIN_DB and abs(usual[i] - usual[j]) < ALIKE_DB
    ]
    return _contest(scope, "loudness/louder", pairs, heard=True)


def loudest(scope: Scope) -> Draft | None:
    """``loudness/loudest``: the loudest of four."""
    kind = "loudness/loudest"
    known = _levels(scope)
    for i in scope.shuffled(list(known)):
        softer = [scope.label(j) for j in known if known[j] <= known[i] - MARGIN_DB]
        wrong = scope.distinct(scope.balance.overdue(kind, softer, scope.rng), [scope.label(i)], 3)
        if len(wrong) == 3 and scope.balance.may_win(kind, scope.label(i), wrong[0]):
            choices = scope.settle(kind, scope.label(i), wrong)
            heard = [i, *(j for j in known if scope.label(j) in wrong)]
            return Draft(kind, {}, scope.label(i), choices, tuple(Look(j) for j in sorted(heard)))
    return None


def more_hits(scope: Scope) -> Draft | None:
    """``compare/hits``: which of two is struck more often."""
    bursts = [i for i in scope.once if scope.events[i].kind == "burst"]
    pairs = [(i, j) for i in bursts for j in bursts if scope.events[i].hits >= scope.events[j].hits + 2]
    return _contest(scope, "compare/hits", pairs, heard=True)


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
    "presence/is": is_there,
    "presence/which": which_is_there,
    "presence/missing": which_is_missing,
    "count/hits": hits,
    "when/second": second,
    "when/part": part,
    "duration/pause": pause,
    "duration/longer": longer,
    "loudness/louder": louder,
    "loudness/loudest": loudest,
    "list/all": everything,
    "compare/hits": more_hits,
    "pattern/pair": pair,
}
"""Makers of drafts, by kind."""
