"""Questions about how many, how often, how long and how loud."""

from __future__ import annotations

from echo_agent.finetune.data.natural.kinds.view import Idea, View, coin, named, numbers_near
from echo_agent.finetune.data.natural.sounds import kin, sounds
from echo_agent.small.notes import LOUD, SOFT, second

LONGER, MORE_SECONDS = 1.6, 1.5
"""How much longer the longer of two is, as a ratio and in seconds."""


def times(view: View) -> Idea | None:
    """How many times is it heard? Where it is a row of strokes, these are what is counted."""
    key = view.keys[int(view.rng.integers(len(view.keys)))] if view.keys else None
    if key is None or not view.record.complete:
        return None
    found = [i for i, e in enumerate(view.events) if e.label == key]
    strokes = [view.events[i].hits for i in found]
    if len(found) > 1 and max(strokes) > 1:
        return None
    number = max(len(found), *strokes)
    places = ", ".join(str(second(view.events[i].onset)) for i in found)
    row = f" x{number}" if len(found) < number else ""
    steps = f"{sounds()[key].plain} {places}{row}: {number}."
    return Idea(
        "count/times",
        "number",
        (str(number),),
        steps,
        key,
        wrong=numbers_near(view, number),
        gold=tuple(found),
    )


def hits(view: View) -> Idea | None:
    """How many strokes are in a row?"""
    i = view.pick([i for i in view.once if view.events[i].hits > 1])
    if i is None:
        return None
    hits, event = view.events[i].hits, view.events[i]
    steps = f"{view.at(i)} x{hits}."
    return Idea(
        "count/hits", "number", (str(hits),), steps, event.label, wrong=numbers_near(view, hits), gold=(i,)
    )


def different(view: View) -> Idea | None:
    """How many different sounds are there?"""
    if not view.record.complete or len(view.keys) < 1:
        return None
    steps = ", ".join(f"{k + 1} {sounds()[key].plain}" for k, key in enumerate(view.keys)) + "."
    size = len(view.keys)
    return Idea("count/different", "number", (str(size),), steps, wrong=numbers_near(view, size))


def repeat(view: View) -> Idea | None:
    """Once or more often?"""
    if not (view.keys and view.record.complete):
        return None
    several = [key for key in view.keys if sum(e.label == key for e in view.events) > 1]
    pool = several if several and coin(view) else view.keys
    key = pool[int(view.rng.integers(len(pool)))]
    found = [i for i, e in enumerate(view.events) if e.label == key]
    if any(view.events[i].hits > 1 for i in found):
        return None
    answer = "more than once" if len(found) > 1 else "once"
    places = ", ".join(str(second(view.events[i].onset)) for i in found)
    wrong = (("once",),) if len(found) > 1 else (("more than once",),)
    return Idea(
        "repeat/once",
        "word",
        (answer,),
        f"{sounds()[key].plain} {places}.",
        key,
        wrong=wrong,
        gold=tuple(found),
    )


def how_long(view: View) -> Idea | None:
    """How long does it last?"""
    i = view.pick(view.once)
    if i is None:
        return None
    event, length = view.events[i], view.length(i)
    if length < 1:
        return None
    steps = f"{view.at(i)}, {length}s."
    wrong = tuple((str(round(length * f) + 1 * k),) for k, f in ((1, 1.7), (2, 2.6), (4, 3.6)))
    return Idea("duration/how_long", "time", (str(length),), steps, event.label, wrong=wrong, gold=(i,))


def longer(view: View) -> Idea | None:
    """Which of two lasts longer?"""
    pairs = [
        (i, j)
        for i in view.once
        for j in view.once
        if view.length(i) >= max(LONGER * view.length(j), view.length(j) + MORE_SECONDS)
        and not kin(view.events[i].label, view.events[j].label)
    ]
    if not pairs:
        return None
    i, j = pairs[int(view.rng.integers(len(pairs)))]
    a, b = named(view, i, j)
    lengths = ", ".join(f"{view.name(k)} {view.length(k)}s" for k in sorted((i, j)))
    steps = f"{lengths}: {view.name(i)}."
    return Idea("duration/longer", "sound", (view.events[i].label,), steps, a, b, gold=(i, j))


def louder(view: View) -> Idea | None:
    """Which of two is louder?"""

    def level(i: int) -> int:
        db = view.events[i].level_db
        return 0 if db is None else 1 if db > LOUD else -1 if db < SOFT else 0

    pairs = [
        (i, j)
        for i in view.once
        for j in view.once
        if level(i) > level(j) and not kin(view.events[i].label, view.events[j].label)
    ]
    if not pairs or any(view.events[i].level_db is None for i in view.once):
        return None
    i, j = pairs[int(view.rng.integers(len(pairs)))]
    a, b = named(view, i, j)
    words = ("normal", "loud", "soft")
    steps = ", ".join(f"{view.name(k)} {words[level(k)]}" for k in sorted((i, j))) + f": {view.name(i)}."
    return Idea("loudness/louder", "sound", (view.events[i].label,), steps, a, b, gold=(i, j))
