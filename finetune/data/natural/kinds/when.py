"""Questions about when: seconds, parts of a recording, and what is heard at a time."""

from __future__ import annotations

from echo_agent.finetune.data.natural.kinds.view import Idea, Maker, View
from echo_agent.finetune.data.records import Event
from echo_agent.small.notes import second


def when(kind: str, end: bool) -> Maker:
    """When does it begin, or end?"""

    def make(view: View) -> Idea | None:
        i = view.pick(view.once)
        if i is None:
            return None
        event = view.events[i]
        right = second(event.offset if end else event.onset)
        length = int(view.record.duration)
        far = [t for t in range(0, length + 1) if abs(t - right) >= 4]
        marks = [second(e.onset) for e in view.events if abs(second(e.onset) - right) >= 4]
        wrong: list[int] = []
        for t in [*(marks[int(k)] for k in view.rng.permutation(len(marks))[:2]),
                  *(far[int(k)] for k in view.rng.permutation(len(far)))]:  # fmt: skip
            if len(wrong) < 3 and all(abs(t - other) >= 3 for other in wrong):
                wrong.append(t)
        other = tuple((str(t),) for t in wrong) if len(wrong) == 3 else ()
        return Idea(kind, "time", (str(right),), f"{view.span(i)}.", event.label, wrong=other, gold=(i,))

    return make


def part(kind: str, parts: tuple[str, ...]) -> Maker:
    """In which part of the recording is it?"""

    def make(view: View) -> Idea | None:
        size = view.record.duration / len(parts)
        inside = [
            i
            for i in view.once
            if view.events[i].onset // size == (view.events[i].offset - 0.01) // size
            and min(view.events[i].onset % size, size - view.events[i].offset % size) > 0.05 * size
        ]
        i = view.pick(inside)
        if i is None:
            return None
        answer = parts[int(view.events[i].onset // size)]
        marks = " ".join(str(round(size * k)) for k in range(1, len(parts)))
        steps = f"{view.at(i)} of {round(view.record.duration)}, parts at {marks}."
        wrong = tuple((part,) for part in parts if part != answer)
        return Idea(kind, "word", (answer,), steps, view.events[i].label, wrong=wrong, gold=(i,))

    return make


def at(view: View) -> Idea | None:
    """What is heard at a time?"""
    alone = [i for i, e in enumerate(view.events) if e.offset - e.onset > 1.2 and not _others_at(view, e)]
    i = view.pick(alone)
    if i is None:
        return None
    event = view.events[i]
    t = int(
        view.rng.integers(second(event.onset + 0.9), max(second(event.offset), second(event.onset + 0.9) + 1))
    )
    if not event.onset <= t <= event.offset:
        return None
    return Idea(
        "when/at", "sound", (event.label,), f"{view.span(i)}.", slots={"t": str(t)},
        wrong=view.others((event.label,)), gold=(i,),
    )  # fmt: skip


def _others_at(view: View, event: Event) -> bool:
    return any(
        o is not event and o.onset < event.offset + 1 and event.onset < o.offset + 1 for o in view.events
    )


def in_range(view: View) -> Idea | None:
    """What is heard from one time to another?"""
    if not (view.record.complete and len(view.events) >= 2):
        return None
    i = int(view.rng.integers(len(view.events)))
    j = min(len(view.events) - 1, i + int(view.rng.integers(0, 3)))
    start, end = second(view.events[i].onset), second(view.events[j].offset) + 1
    inside = [k for k, e in enumerate(view.events) if e.onset < end and e.offset > start]
    if inside != list(range(i, j + 1)) or end > view.record.duration + 1:
        return None
    keys = tuple(dict.fromkeys(view.events[k].label for k in inside))
    steps = ", ".join(view.at(k) for k in inside) + "."
    return Idea(
        "when/range", "sounds", keys, steps, slots={"t": str(start), "t2": str(end)}, gold=tuple(inside)
    )
