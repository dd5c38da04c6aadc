"""Questions about how often, when, how long and how loud sounds are heard."""

from __future__ import annotations

import math
from collections.abc import Sequence

from echo_agent.finetune.data.questions.balance import FAR
from echo_agent.finetune.data.questions.draft import Draft, Look, Maker, Scope

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
ASIDE = 4
"""Seconds by which the choices of a time differ."""


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


MAKERS: dict[str, Maker] = {
    "count/hits": hits,
    "when/second": second,
    "when/part": part,
    "duration/pause": pause,
    "duration/longer": longer,
    "loudness/louder": louder,
    "loudness/loudest": loudest,
    "compare/hits": more_hits,
}
"""Makers of drafts, by kind."""
