"""Questions about music: the course of a melody, the instrument that plays it, the chords of a song."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from echo_agent.finetune.data.questions.balance import FAR
from echo_agent.finetune.data.questions.draft import Draft, Look, Maker, Scope
from echo_agent.finetune.data.questions.phrasings import place

COURSES = {
    "up": "rises",
    "down": "falls",
    "up and then down": "goes up and then down",
    "down and then up": "goes down and then up",
}
"""Courses of a melody, and what a melody does that has it."""
STEP = 2
"""Semitones by which each note must differ from the one before."""


def course(pitches: Sequence[int]) -> str | None:
    """The course of a melody (a key of :data:`COURSES`), or None where it is another or unclear."""
    steps = [b - a for a, b in pairwise(pitches)]
    if len(steps) < 2 or any(abs(step) < STEP for step in steps):
        return None
    ups = [step > 0 for step in steps]
    turns = sum(a != b for a, b in pairwise(ups))
    if turns > 1:
        return None
    begins, ends = ("up" if up else "down" for up in (ups[0], ups[-1]))
    return f"{begins} and then {ends}" if turns else begins


def _melodies(scope: Scope) -> dict[int, str]:
    """Melodies of a clear course, by event."""
    found: dict[int, str] = {}
    for i in scope.once:
        if scope.events[i].kind == "notes":
            moves = course(scope.events[i].pitches)
            if moves:
                found[i] = moves
    return found


def melody(scope: Scope) -> Draft | None:
    """``melody/course``: how a melody moves."""
    kind, found = "melody/course", _melodies(scope)
    if not found:
        return None
    answer = scope.balance.rarest(kind, sorted(set(found.values())), scope.rng)
    if scope.balance.lead(kind, answer, tuple(COURSES)) > FAR:
        return None
    labels = [scope.label(i) for i in found if found[i] == answer]
    label = scope.balance.least(f"{kind}/{answer}", labels, scope.rng)
    scope.balance.least(kind, (answer,), scope.rng)
    i = next(i for i in found if scope.label(i) == label)
    looks = (Look(i, heard=f"a tune that {COURSES[answer]}"),)
    return Draft(kind, {"a": label}, answer, tuple(COURSES), looks)


def plays(scope: Scope) -> Draft | None:
    """``instrument/plays``: which instrument plays the one melody of a course."""
    kind, found = "instrument/plays", _melodies(scope)
    notes = [i for i, event in enumerate(scope.events) if event.kind == "notes"]
    if not scope.record.complete or set(notes) != set(found):
        return None
    single = {i: moves for i, moves in found.items() if list(found.values()).count(moves) == 1}
    for label in scope.balance.due(kind, [scope.label(i) for i in single], scope.rng):
        i = next(i for i in single if scope.label(i) == label)
        others = [scope.label(j) for j in found if j != i]
        wrong = scope.among(kind, label, others, outside=scope.about.instruments)
        if wrong:
            choices = scope.settle(kind, label, wrong)
            how = COURSES[single[i]]
            return Draft(kind, {"how": how}, label, choices, (Look(i, heard=f"a tune that {how}"),))
    return None


def instrument(scope: Scope) -> Draft | None:
    """``instrument/where``: which instrument is played next to another sound."""
    kind = "instrument/where"
    played = [i for i in scope.once if scope.events[i].kind == "notes" and scope.neighbours(i)]
    for label in scope.balance.due(kind, [scope.label(i) for i in played], scope.rng):
        i = next(i for i in played if scope.label(i) == label)
        beside = [entry for entry in scope.neighbours(i) if scope.events[entry[1]].kind != "notes"]
        others = sorted({event.label for event in scope.events if event.kind == "notes"} - {label})
        wrong = scope.among(kind, label, others, outside=scope.about.instruments)
        if wrong and beside:
            side, j = beside[int(scope.rng.integers(len(beside)))]
            slots = {"where": place(scope.rng, **{side: scope.label(j)})}
            choices = scope.settle(kind, label, wrong)
            return Draft(kind, slots, label, choices, (Look(j), Look(i)), (i,))
    return None


def _chords(scope: Scope) -> list[int]:
    return [i for i, event in enumerate(scope.events) if event.kind == "chord"]


def chord_at(scope: Scope) -> Draft | None:
    """``chord/at``: the chord at a second."""
    kind, chords = "chord/at", _chords(scope)
    names = sorted({scope.label(i) for i in chords})
    for i in scope.shuffled(chords):
        middle = round((scope.events[i].onset + scope.events[i].offset) / 2)
        inside = scope.events[i].onset + 0.3 <= middle <= scope.events[i].offset - 0.3
        wrong = [name for name in scope.balance.overdue(kind, names, scope.rng) if name != scope.label(i)][:3]
        if inside and len(wrong) == 3:
            choices = scope.settle(kind, scope.label(i), wrong)
            return Draft(kind, {"t": str(middle)}, scope.label(i), choices, (Look(i, heard=scope.label(i)),))
    return None


def chord_next(scope: Scope) -> Draft | None:
    """``chord/next``: the chord after one that is heard once."""
    kind, chords = "chord/next", _chords(scope)
    labels = [scope.label(i) for i in chords]
    for k in scope.shuffled(range(len(chords) - 1)):
        i, j = chords[k], chords[k + 1]
        if labels.count(labels[k]) > 1 or labels[k] == labels[k + 1]:
            continue
        pool = [name for name in sorted(set(labels)) if name not in (labels[k], labels[k + 1])]
        wrong = scope.balance.overdue(kind, pool, scope.rng)[:3]
        if len(wrong) == 3:
            choices = scope.settle(kind, labels[k + 1], wrong)
            return Draft(
                kind, {"a": labels[k]}, labels[k + 1], choices, (Look(i), Look(j, heard=labels[k + 1])), (j,)
            )
    return None


MAKERS: dict[str, Maker] = {
    "melody/course": melody,
    "instrument/plays": plays,
    "instrument/where": instrument,
    "chord/at": chord_at,
    "chord/next": chord_next,
}
"""Makers of drafts, by kind."""
