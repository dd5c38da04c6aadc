"""Questions about what is heard at all: sounds, their classes, the place they tell of, and what nobody can know."""

from __future__ import annotations

from collections import Counter

from echo_agent.finetune.data.natural.kinds.view import Idea, View, coin
from echo_agent.finetune.data.natural.sounds import kin, sounds

CLASSES = ("animal", "instrument", "vehicle", "alarm", "tool")
UNKNOWN = "I cannot tell that from the sound."


def presence_is(view: View) -> Idea | None:
    """Is it heard?"""
    if view.keys and coin(view):
        i = int(view.rng.integers(len(view.events)))
        return Idea("presence/is", "yes-no", ("yes",), f"{view.at(i)}.", view.events[i].label, gold=(i,))
    missing = view.absent(1)
    if not missing:
        return None
    steps = f"no {sounds()[missing[0]].plain}."
    return Idea("presence/is", "yes-no", ("no",), steps, missing[0])


def presence_which(view: View) -> Idea | None:
    """Which of these is heard?"""
    i, missing = view.pick(range(len(view.events))), view.absent(3)
    if i is None or len(missing) < 3:
        return None
    wrong = tuple((key,) for key in missing)
    return Idea("presence/which", "sound", (view.events[i].label,), f"{view.at(i)}.", wrong=wrong, gold=(i,))


def presence_missing(view: View) -> Idea | None:
    """Which of these is not heard?"""
    missing = view.absent(1)
    if not missing or len(view.keys) < 3:
        return None
    heard = [view.keys[int(k)] for k in view.rng.permutation(len(view.keys))[:3]]
    found = [next(i for i, e in enumerate(view.events) if e.label == key) for key in heard]
    steps = ", ".join(view.at(i) for i in sorted(found)) + f", no {sounds()[missing[0]].plain}."
    return Idea("presence/missing", "sound", (missing[0],), steps, wrong=tuple((key,) for key in heard))


def presence_either(view: View) -> Idea | None:
    """Which of the two is heard?"""
    i, missing = view.pick(range(len(view.events))), view.absent(1)
    if i is None or not missing:
        return None
    a, b = view.events[i].label, missing[0]
    steps = f"{view.at(i)}, no {sounds()[b].plain}."
    first, last = (a, b) if coin(view) else (b, a)
    return Idea("presence/either", "sound", (a,), steps, first, last, gold=(i,))


def _of_class(view: View, kind: str) -> list[int]:
    return [i for i, e in enumerate(view.events) if sounds()[e.label].kind == kind]


def kind_which(view: View) -> Idea | None:
    """Which animal is it?"""
    found_by = {kind: _of_class(view, kind) for kind in CLASSES}
    fitting = [kind for kind, found in found_by.items() if len({view.events[i].label for i in found}) == 1]
    if not (fitting and view.record.complete):
        return None
    kind = fitting[int(view.rng.integers(len(fitting)))]
    found = found_by[kind]
    key = view.events[found[0]].label
    same = [
        k for k, s in sounds().items() if s.kind == kind and k in view.record.labels and not kin(k, key)
    ]  # fmt: skip
    wrong = tuple((same[int(i)],) for i in view.rng.permutation(len(same))[:3])
    return Idea(
        "kind/which", "sound", (key,), f"{kind}: {view.at(found[0])}.", slots={"class": kind},
        wrong=wrong if len(wrong) == 3 else (), gold=(found[0],),
    )  # fmt: skip


def kind_any(view: View) -> Idea | None:
    """Is any animal heard?"""
    if not view.record.complete:
        return None
    there = [kind for kind in CLASSES if _of_class(view, kind)]
    gone = [kind for kind in CLASSES if kind not in there]
    pool = there if there and (coin(view) or not gone) else gone
    kind = pool[int(view.rng.integers(len(pool)))]
    if kind in there:
        i = _of_class(view, kind)[0]
        return Idea(
            "kind/any", "yes-no", ("yes",), f"{kind}: {view.at(i)}.", slots={"class": kind}, gold=(i,)
        )
    return Idea("kind/any", "yes-no", ("no",), f"no {kind}.", slots={"class": kind})


def scene(view: View) -> Idea | None:
    """What kind of place do the sounds tell of?"""
    counts = Counter(place for key in view.keys for place in sounds()[key].places)
    if len(counts) == 0:
        return None
    (place, most), *rest = counts.most_common(2)
    if most < 2 or (rest and rest[0][1] >= most):
        return None
    telling = [sounds()[key].plain for key in view.keys if place in sounds()[key].places]
    every = sorted({p for s in sounds().values() for p in s.places} - counts.keys())
    wrong = tuple((every[int(i)],) for i in view.rng.permutation(len(every))[:3])
    return Idea(
        "scene/where", "word", (place,), f"{', '.join(telling)}.", wrong=wrong if len(wrong) == 3 else ()
    )


def indoors(view: View) -> Idea | None:
    """Indoors or outdoors?"""
    where = [(key, sounds()[key].indoors) for key in view.keys]
    inside = [key for key, is_inside in where if is_inside is True]
    outside = [key for key, is_inside in where if is_inside is False]
    if bool(inside) == bool(outside):
        return None
    answer = "indoors" if inside else "outdoors"
    steps = ", ".join(sounds()[key].plain for key in (inside or outside)) + "."
    return Idea("scene/indoor", "word", (answer,), steps, wrong=((("outdoors" if inside else "indoors"),),))


def list_all(view: View) -> Idea | None:
    """What is heard?"""
    if not view.record.complete:
        return None
    if not view.events:
        return Idea("list/all", "sentence", ("Nothing, it is silent.",), "nothing.")
    return Idea("list/all", "sounds", tuple(view.keys), "", gold=())


def summary(view: View) -> Idea | None:
    """Summarise the recording."""
    if not (view.record.complete and view.ordered):
        return None
    if not view.events:
        return Idea("describe/summary", "sentence", ("It is silent.",), "nothing.")
    return Idea("describe/summary", "sounds", tuple(e.label for e in view.events), "")


def absent(view: View) -> Idea | None:
    """When is something heard that is not there?"""
    missing = view.absent(1)
    if not missing:
        return None
    return Idea(
        "absent/when",
        "sentence",
        ("There is no {a} in it.",),
        f"no {sounds()[missing[0]].plain}.",
        missing[0],
    )


def unknowable(view: View) -> Idea | None:
    """What no sound can tell."""
    i = view.pick(range(len(view.events)))
    if i is None:
        return None
    return Idea("unknowable/sounds", "sentence", (UNKNOWN,), "", view.events[i].label)
