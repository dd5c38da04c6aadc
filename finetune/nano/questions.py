"""Questions about a scene, made from its event list alone, so that each has one right answer by construction.

Eight categories: order, between, presence, count, time, digit, digit_sequence and word; and two that are only taught:
the list of all sounds, and the places of several sounds. Anchors are sounds that occur once; distractors come from the
recording itself if possible; every question has the spans that must be heard and the steps by which its answer is
found. Choices are shuffled. Nothing here reads audio.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.vocabulary import DIGITS, WORDS

CATEGORIES = ("order", "between", "presence", "count", "time", "digit", "digit_sequence", "word")

SOUNDS = (
    "airplane", "beep", "bell", "bird", "bubbles", "car", "chopping", "clapping", "crowd", "cymbal", "door", "drum",
    "flute", "footsteps", "guitar", "gunshot", "harp", "helicopter", "laughter", "marimba", "organ", "piano", "saw",
    "scream", "splash", "sword", "telephone", "thunder", "trumpet", "typing", "violin", "water", "wolf",
)  # fmt: skip
"""The sounds and instruments that echo-nano is taught."""
ORDINALS = ("first", "second", "third", "fourth")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "first": (
        "Which is heard first, the {a} or the {b}?",
        "Which comes first: the {a} or the {b}?",
        "What starts earlier, the {a} or the {b}?",
        "Does the {a} or the {b} come first?",
    ),
    "next": (
        "What comes right after the {a}?",
        "Which sound follows the {a}?",
        "What is heard next after the {a}?",
        "After the {a}, what do you hear next?",
    ),
    "previous": (
        "What comes right before the {a}?",
        "Which sound is just before the {a}?",
        "What is heard immediately before the {a}?",
    ),
    "between": (
        "What is heard between the {a} and the {b}?",
        "Which sound comes between the {a} and the {b}?",
        "What happens after the {a} and before the {b}?",
        "Between the {a} and the {b}, what do you hear?",
    ),
    "presence": (
        "Is there a {a} in the recording?",
        "Can you hear the {a}?",
        "Does the recording contain a {a}?",
        "Is a {a} heard?",
    ),
    "count": (
        "How many times does the {a} sound?",
        "How often is the {a} struck?",
        "How many hits of the {a} are there?",
        "Count the {a}: how many times is it heard?",
    ),
    "time": (
        "When does the {a} start?",
        "At what second does the {a} begin?",
        "When is the {a} heard?",
        "At which time do you hear the {a}?",
    ),
    "digit": (
        "What is the {n} digit spoken {where}?",
        "Which digit is said {n} {where}?",
        "What is the {n} number said {where}?",
        "{Where}, digits are spoken. What is the {n} one?",
    ),
    "digit_sequence": (
        "Which digits are spoken {where}?",
        "What digits does the voice say {where}?",
        "What is the number read out {where}?",
        "{Where}, a voice says some digits. Which ones?",
    ),
    "word": (
        "What is the {n} word spoken {where}?",
        "Which word is said {n} {where}?",
        "{Where}, words are spoken. What is the {n} one?",
        "What is the {n} word that the voice says {where}?",
    ),
    "places": (
        "Where are the {a}?",
        "When do you hear the {a}?",
        "At which seconds are the {a}?",
    ),
    "list": (
        "What do you hear?",
        "What is heard in the recording?",
        "Which sounds are there?",
        "List the sounds in order.",
    ),
}
"""Phrasings per kind of question; ``{where}`` is a place such as "right after the bell"."""

AFTER = ("after the {a}", "right after the {a}", "just after the {a}")
ANYWHERE = "in the recording"
"""The place of the only phrase of a recording, if no sound next to it can name it."""
BEFORE = ("before the {a}", "right before the {a}", "just before the {a}")


@dataclass(frozen=True)
class Question:
    """One question with its answer and what must be heard for it."""

    category: str
    text: str
    choices: tuple[str, ...] | None
    answer: str
    gold_spans: tuple[tuple[float, float], ...]
    event: int | None = None
    """Index of the event that needs a closer listen; None if the first listen is meant to be enough."""
    heard: str = ""
    """What is to be heard there, in words."""
    named: tuple[str, ...] = ()
    """Sounds that the question names and from which its answer is found."""
    trace: tuple[int | None, ...] = ()
    """Indices of the events that lead to the answer: where the named sounds are (None: nowhere), then what is found
    from there."""


def ask(
    events: Sequence[Event], rng: np.random.Generator, category: str, open_share: float = 0.25
) -> Question | None:
    """A question of ``category`` about the events (in order of onset), or None where they offer none.

    Args:
        events: The event list of the recording.
        rng: Source of every choice.
        category: One of :data:`CATEGORIES`, or ``list``, or ``places``.
        open_share: Share of digit and word questions that come without choices.
    """
    unique = _unique(events)
    makers = {
        "order": _order, "between": _between, "presence": _presence, "count": _count, "time": _time, "list": _list,
        "places": _places,
    }  # fmt: skip
    if category in makers:
        return makers[category](events, unique, rng)
    return _spoken(events, unique, rng, category, open_share)


def _unique(events: Sequence[Event]) -> list[int]:
    """Indices of the sounds that occur once, voices apart."""
    counts = Counter(event.label for event in events)
    return [i for i, event in enumerate(events) if counts[event.label] == 1 and event.label != "voice"]


def pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    """One of the items, all equally likely."""
    return items[int(rng.integers(len(items)))]


def _fill(template: str, **names: str) -> str:
    text = template.format(Where=names.get("where", "").capitalize(), **names)
    return text[0].upper() + text[1:]


def _choose(rng: np.random.Generator, answer: str, wrong: Sequence[str], size: int = 4) -> tuple[str, ...]:
    """The answer among ``size - 1`` wrong ones (the first of ``wrong`` are preferred), in random order."""
    others = list(dict.fromkeys(w for w in wrong if w != answer))[: size - 1]
    options = [answer, *others]
    return tuple(options[int(i)] for i in rng.permutation(len(options)))


def _shuffled(rng: np.random.Generator, items: Sequence[str]) -> list[str]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def _span(event: Event) -> tuple[float, float]:
    return (event.onset, event.offset)


def _label_choices(
    events: Sequence[Event], rng: np.random.Generator, answer: str, taken: set[str]
) -> tuple[str, ...]:
    """Four labels with the answer: others of the recording first, then any."""
    inside = _shuffled(rng, sorted({event.label for event in events} - taken))
    outside = _shuffled(rng, sorted(set(SOUNDS) - {event.label for event in events}))
    return _choose(rng, answer, [*inside[:2], *outside])


def _order(events: Sequence[Event], unique: list[int], rng: np.random.Generator) -> Question | None:
    if len(unique) < 2:
        return None
    kind = pick(rng, ("first", "first", "next", "previous"))
    if kind == "first":
        i, j = (unique[int(k)] for k in rng.choice(len(unique), 2, replace=False))
        a, b = events[i].label, events[j].label
        text = _fill(pick(rng, TEMPLATES["first"]), a=a, b=b)
        return Question("order", text, (a, b), events[min(i, j)].label, (_span(events[i]), _span(events[j])),
                        named=(a, b), trace=(i, j))  # fmt: skip
    step = 1 if kind == "next" else -1
    anchors = [i for i in unique if 0 <= i + step < len(events) and events[i + step].label != events[i].label]
    if not anchors or len(events) < 3:
        return None
    i = anchors[int(rng.integers(len(anchors)))]
    answer = events[i + step].label
    choices = _label_choices(events, rng, answer, {events[i].label})
    text = _fill(pick(rng, TEMPLATES[kind]), a=events[i].label)
    spans = (_span(events[i]), _span(events[i + step]))
    return Question("order", text, choices, answer, spans, named=(events[i].label,), trace=(i, i + step))


def _between(events: Sequence[Event], unique: list[int], rng: np.random.Generator) -> Question | None:
    pairs = [i for i in unique if i + 2 in unique]
    if not pairs:
        return None
    i = pairs[int(rng.integers(len(pairs)))]
    a, middle, b = events[i], events[i + 1], events[i + 2]
    choices = _label_choices(events, rng, middle.label, {a.label, b.label})
    text = _fill(pick(rng, TEMPLATES["between"]), a=a.label, b=b.label)
    return Question(
        "between", text, choices, middle.label, (_span(middle),), named=(a.label,), trace=(i, i + 1)
    )


def _presence(events: Sequence[Event], unique: list[int], rng: np.random.Generator) -> Question | None:
    inside = sorted({event.label for event in events} - {"voice"})
    outside = sorted(set(SOUNDS) - set(inside))
    there = bool(rng.random() < 0.5)
    if not inside:
        return None
    label = pick(rng, inside if there else outside)
    places = [i for i, event in enumerate(events) if event.label == label]
    spans = tuple(_span(events[i]) for i in places)
    text = _fill(pick(rng, TEMPLATES["presence"]), a=label)
    answer = "yes" if there else "no"
    return Question(
        "presence", text, ("yes", "no"), answer, spans, named=(label,), trace=(places[0] if there else None,)
    )


def _count(events: Sequence[Event], unique: list[int], rng: np.random.Generator) -> Question | None:
    bursts = [i for i in unique if events[i].kind == "burst"]
    if not bursts:
        return None
    i = bursts[int(rng.integers(len(bursts)))]
    hits = events[i].hits
    lowest = int(rng.integers(max(1, hits - 3), min(hits, 4) + 1))
    choices = tuple(str(n) for n in range(lowest, lowest + 4))
    text = _fill(pick(rng, TEMPLATES["count"]), a=events[i].label)
    named = (events[i].label,)
    return Question("count", text, choices, str(hits), (_span(events[i]),), i, str(hits), named, (i,))


def _time(events: Sequence[Event], unique: list[int], rng: np.random.Generator) -> Question | None:
    if not unique or len(events) < 3:
        return None
    i = unique[int(rng.integers(len(unique)))]
    onset = math.floor(events[i].onset)
    length = math.ceil(events[-1].offset)
    others = [math.floor(event.onset) for event in events if event is not events[i]]
    wrong: list[int] = []
    for second in [*_shuffled_ints(rng, others), *_shuffled_ints(rng, list(range(length)))]:
        if all(abs(second - taken) >= 4 for taken in [onset, *wrong]):
            wrong.append(second)
    if len(wrong) < 3:
        return None
    choices = _choose(rng, f"{onset} s", [f"{second} s" for second in wrong])
    text = _fill(pick(rng, TEMPLATES["time"]), a=events[i].label)
    return Question(
        "time", text, choices, f"{onset} s", (_span(events[i]),), named=(events[i].label,), trace=(i,)
    )


def _list(events: Sequence[Event], unique: list[int], rng: np.random.Generator) -> Question | None:
    if not events:
        return None
    heard = dict.fromkeys(event.label for event in events)
    spans = tuple(_span(event) for event in events)
    text = pick(rng, TEMPLATES["list"])
    return Question("list", text, None, ", ".join(heard), spans, trace=tuple(range(len(events))))


def _places(events: Sequence[Event], unique: list[int], rng: np.random.Generator) -> Question | None:
    """Where three to six sounds are, most of them somewhere."""
    if len(unique) < 2:
        return None
    there = _shuffled_ints(rng, unique)[:5]
    absent = sorted(set(SOUNDS) - {event.label for event in events})
    asked = [(events[i].label, i) for i in there]
    asked += [(pick(rng, absent), None)] if rng.random() < 0.7 or len(asked) < 3 else []
    asked = [asked[int(k)] for k in rng.permutation(len(asked))]
    named = tuple(label for label, _ in asked)
    text = _fill(pick(rng, TEMPLATES["places"]), a=", the ".join(named))
    answer = ", ".join("none" if i is None else f"{math.floor(events[i].onset)} s" for _, i in asked)
    spans = tuple(_span(events[i]) for i in there)
    return Question("places", text, None, answer, spans, named=named, trace=tuple(i for _, i in asked))


def _shuffled_ints(rng: np.random.Generator, items: Sequence[int]) -> list[int]:
    return [items[int(i)] for i in rng.permutation(len(items))]


def _spoken(
    events: Sequence[Event], unique: list[int], rng: np.random.Generator, category: str, open_share: float
) -> Question | None:
    kind = "words" if category == "word" else "digits"
    phrases = [i for i, event in enumerate(events) if event.kind == kind]
    places: list[tuple[int, str, int | None]] = []
    for i in phrases:
        if i - 1 in unique:
            places.append((i, _fill(pick(rng, AFTER), a=events[i - 1].label).lower(), i - 1))
        if i + 1 in unique:
            places.append((i, _fill(pick(rng, BEFORE), a=events[i + 1].label).lower(), i + 1))
    if not places and len(phrases) == 1:
        places = [(phrases[0], ANYWHERE, None)]
    if not places:
        return None
    i, where, anchor = places[int(rng.integers(len(places)))]
    said = events[i].content
    heard = " ".join(said)
    position = int(rng.integers(len(said)))
    last = position == len(said) - 1 and rng.random() < 0.5
    ordinal = "last" if last else ORDINALS[position]
    text = _fill(pick(rng, TEMPLATES[category]), where=where, n=ordinal)
    if category == "digit_sequence":
        answer, wrong = heard, _other_sequences(events, i, rng)
    else:
        answer = said[position]
        pool = [word for event in events if event.kind == kind for word in event.content]
        wrong = [
            *_shuffled(rng, said),
            *_shuffled(rng, pool),
            *_shuffled(rng, WORDS if kind == "words" else DIGITS),
        ]
    choices = None if rng.random() < open_share else _choose(rng, answer, wrong)
    named = () if anchor is None else (events[anchor].label,)
    trace = (i,) if anchor is None else (anchor, i)
    return Question(category, text, choices, answer, (_span(events[i]),), i, heard, named, trace)


def _other_sequences(events: Sequence[Event], index: int, rng: np.random.Generator) -> list[str]:
    """Wrong digit sequences: first one that is spoken elsewhere in the recording, then variants of the right one."""
    said = events[index].content
    elsewhere = [" ".join(e.content) for e in events if e.kind == "digits" and len(e.content) == len(said)]
    variants = []
    for _ in range(12):
        digits = list(said)
        for place in rng.choice(len(said), int(rng.integers(1, 3)), replace=False):
            digits[int(place)] = pick(rng, DIGITS)
        variants.append(" ".join(digits))
    return [*_shuffled(rng, elsewhere)[:2], *variants]
