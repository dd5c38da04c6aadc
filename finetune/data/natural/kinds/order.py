"""Questions about order: what comes first, next, last, between, in which sequence."""

from __future__ import annotations

from echo_agent.finetune.data.natural.kinds.view import Idea, Maker, View, coin, named, two_once
from echo_agent.finetune.data.natural.sounds import kin

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")


def first_of_two(kind: str, later: bool) -> Maker:
    """Which of two is first, or last?"""

    def make(view: View) -> Idea | None:
        two = two_once(view)
        if two is None:
            return None
        i, j = two
        a, b = named(view, i, j)
        won = j if later else i
        steps = f"{view.at(i)}, {view.at(j)}: {view.name(won)}."
        return Idea(kind, "sound", (view.events[won].label,), steps, a, b, gold=two)

    return make


def before(view: View) -> Idea | None:
    """Is one before the other?"""
    two = two_once(view)
    if two is None:
        return None
    i, j = two
    a, b = named(view, i, j)
    answer = "yes" if a == view.events[i].label else "no"
    steps = f"{view.at(i)}, {view.at(j)}: first {view.name(i)}."
    return Idea("order/before", "yes-no", (answer,), steps, a, b, gold=two)


def beside(kind: str, step: int) -> Maker:
    """What comes right after a sound, or right before it?"""

    def make(view: View) -> Idea | None:
        events, last = view.events, len(view.events) - 1
        if not (view.record.complete and view.ordered):
            return None
        anchors = [
            i for i in view.once if 0 <= i + step <= last and not kin(events[i].label, events[i + step].label)
        ]
        i = view.pick(anchors)
        if i is None:
            return None
        answer = events[i + step].label
        steps = f"{view.at(i)}, {'then' if step > 0 else 'before it'} {view.at(i + step)}."
        wrong = view.others((answer, events[i].label))
        return Idea(kind, "sound", (answer,), steps, events[i].label, wrong=wrong, gold=(i, i + step))

    return make


def sequence(view: View) -> Idea | None:
    """In which order are they heard?"""
    events = view.events
    if not (view.record.complete and view.ordered and 2 <= len(events) <= 6):
        return None
    keys = tuple(e.label for e in events)
    wrong: list[tuple[str, ...]] = []
    for _ in range(12):
        other = tuple(keys[int(i)] for i in view.rng.permutation(len(keys)))
        if other != keys and other not in wrong:
            wrong.append(other)
    steps = ", ".join(view.at(i) for i in range(len(events))) + "."
    return Idea(
        "order/sequence", "sounds", keys, steps, wrong=tuple(wrong[:3]), gold=tuple(range(len(events)))
    )


def nth(view: View) -> Idea | None:
    """What is the third sound, the last, the second to last?"""
    events = view.events
    if not (view.record.complete and view.ordered and len(events) >= 2):
        return None
    names = [(n, i) for i, n in enumerate(ORDINALS[: len(events)])]
    names += [("last", len(events) - 1)] * 2
    if len(events) >= 3:
        names += [("second to last", len(events) - 2), ("second last", len(events) - 2)]
    name, i = names[int(view.rng.integers(len(names)))]
    if name in ORDINALS:
        steps = ", ".join(f"{k + 1} {view.name(k)}" for k in range(i + 1)) + "."
    else:
        steps = ", ".join(view.at(k) for k in range(i, len(events))) + "."
    answer = events[i].label
    return Idea(
        "order/nth", "sound", (answer,), steps, slots={"n": name}, wrong=view.others((answer,)), gold=(i,)
    )  # fmt: skip


def between(view: View) -> Idea | None:
    """What is between two others?"""
    if not (view.record.complete and view.ordered):
        return None
    middles = [i for i in range(1, len(view.events) - 1) if i - 1 in view.once and i + 1 in view.once]
    i = view.pick(middles)
    if i is None:
        return None
    a, answer, b = (view.events[k].label for k in (i - 1, i, i + 1))
    steps = ", ".join(view.at(k) for k in (i - 1, i, i + 1)) + "."
    wrong = view.others((answer, a, b))
    first, last = (a, b) if coin(view) else (b, a)
    return Idea("between/which", "sound", (answer,), steps, first, last, wrong=wrong, gold=(i,))
