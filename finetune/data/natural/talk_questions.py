"""Questions about a talk: one for each fact, and others about its words, its speakers and what it leaves unsaid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from echo_agent.finetune.data.natural.spoken import MADE, ONES, TENS, pick, words
from echo_agent.finetune.data.natural.talk import (
    NAMES,
    SENTENCE,
    SLOT,
    Fact,
    Talk,
    filling,
    genres,
    grammar,
    listed,
    make_talk,
)

Wordings = Mapping[str, Sequence[str]]
"""What a person may say or type, for each kind of question."""

UNSAID = "It is not said."
ALSO_UNSAID = ("not said", "It isn't said.", "It is not mentioned.", "It isn't mentioned.", "not mentioned")
ALSO_UNSAID += (
    "It is not stated.",
    "not stated",
    "It is not given.",
    "The recording does not say.",
    "unknown",
)
CLAUSE = re.compile(r"[,.;?!]+(?: |$)")
KIN = (("caller", "callee", "name", "who"), ("place", "room"), ("day", "date"), ("topic", "item"))
"""Kinds that a question without its thing could confuse."""
THINGS = ("caller", "callee", "name", "who", "place", "room", "day", "date", "hour", "item", "topic", "price")
"""Kinds whose answer is a thing that a sentence can be said to mention."""
NUMBER = re.compile(rf"(?:{'|'.join((*ONES, *TENS))}|oh|double|hundred|thousand|and|-)+")
VAGUE = ("action", "decision")
"""Kinds of which nearly every talk has something, so that "It is not said." could be disputed."""
TRACES = {
    "phone": r"number|extension|call|ring\b|phone",
    "price": r"pound|euro|dollar|cost|price|pay|free|penny|cheap",
    "date": "|".join(
        ("first", "second", "date", "January", "March", "May", "June", "July", "August", "tember", "ober")
    ),
    "day": r"day\b|tonight|tomorrow|evening|morning|week",
    "room": r"room|hall|floor|wing|studio|lab\b|canteen|workshop|basement|platform|gate",
}
"""Kinds to ask for where a talk has nothing of them, with the words that would be something."""


@dataclass(frozen=True)
class TalkQuestion:
    """A question with its answer, other spellings of it, the lines that hold it, and choices where it has some."""

    kind: str
    question: str
    answer: str
    accepted: tuple[str, ...]
    lines: tuple[int, ...]
    choices: tuple[str, ...] | None = None


def ask_talk(talk: Talk, rng: np.random.Generator, wordings: Wordings) -> list[TalkQuestion]:
    """Every fact asked for once (of many steps, three), then the topic, words, speakers, and something unsaid."""
    steps = [fact for fact in talk.facts if fact.kind == "step"]
    left_out = {int(x) for x in rng.permutation(len(steps))[3:]}
    facts = [x for x in talk.facts if x not in [steps[i] for i in left_out]]
    found = [_about_fact(talk, fact, rng, wordings) for fact in facts]
    makers = (_topic, _after, _transcribe, _speakers, _unknown)
    found += [make(talk, rng, wordings) for make in makers]
    return [question for question in found if question is not None]


def spellings(fact: Fact) -> tuple[str, ...]:
    """The answer and all that counts as it, in lower case."""
    return tuple(x.lower() for x in (fact.answer, *fact.accepted))


def holds(text: str, phrase: str) -> bool:
    """Whether a phrase stands in a text as whole words."""
    return re.search(rf"(?<![\w-]){re.escape(phrase.lower())}(?![\w-])", text.lower()) is not None


# --- facts --------------------------------------------------------------------------------------------------------


def _about_fact(talk: Talk, fact: Fact, rng: np.random.Generator, wordings: Wordings) -> TalkQuestion | None:
    question = _word(talk, fact, rng, wordings)
    if question is None:
        return None
    lines = [i for i, line in enumerate(talk.lines) if len(fact.answer) > 5 and holds(line.text, fact.answer)]
    choices = _choices(fact.answer, spellings(fact), _wrong(talk, fact, rng), rng, doubt=True)
    return TalkQuestion(
        fact.kind, question, fact.answer, fact.accepted, tuple(sorted({fact.line, *lines})), choices
    )


def _word(talk: Talk, fact: Fact, rng: np.random.Generator, wordings: Wordings) -> str | None:
    """A question for a fact: without its thing only where there is no other fact that it could mean."""
    about = fact.about["about"]
    kin = next((kinds for kinds in KIN if fact.kind in kinds), (fact.kind,))
    alone = fact.kind in ("caller", "callee") or not any(
        other.kind in kin for other in talk.facts if other != fact
    )
    kind = "who" if fact.kind == "name" and fact.about["fill"] in NAMES and rng.random() < 0.3 else fact.kind
    if rng.random() < 0.15:
        phrases = _fitting(grammar()["fillings"]["what"].get(fact.kind, []), about, alone)
        if phrases:
            what = _filled(pick(rng, phrases), fact.about)
            return _filled(pick(rng, wordings["talk/unknown"]), {"what": what})
    lines = _fitting(wordings[kind], about, alone)
    return _filled(pick(rng, lines), fact.about) if lines else None


def _fitting(lines: Sequence[str], about: str, alone: bool) -> list[str]:
    return [x for x in lines if (about if "{about}" in x else alone)]


def _filled(pattern: str, slots: Mapping[str, str]) -> str:
    text = SLOT.sub(lambda found: slots[found[1]], pattern)
    return text[0].upper() + text[1:] if pattern.startswith("{") else text


def _wrong(talk: Talk, fact: Fact, rng: np.random.Generator) -> Iterator[str]:
    """Wrong answers: first what the talk says of the same kind, then other fillings, written in the same way."""
    kin = next((kinds for kinds in KIN[:2] if fact.kind in kinds), (fact.kind,))
    said = [x.answer for x in talk.facts if x.kind in kin and not set(spellings(x)) & set(spellings(fact))]
    said += [x for x in fact.about.get("among", "").split("|") if x]
    rng.shuffle(said)
    yield from said[:2]
    yield from _others(fact, rng)


def _others(fact: Fact, rng: np.random.Generator) -> Iterator[str]:
    fill, country = fact.about["fill"], fact.about["country"]
    if "among" in fact.about:
        name, _, field = fill.partition(".")
        record = pick(rng, grammar()["fillings"][name])
        for point in record[field]:
            yield listed(point["name"] if isinstance(point, dict) else point).answer
        return
    digits = any(x.isdigit() for x in fact.answer)
    for _ in range(40):
        value = filling(fill, rng, country)
        forms = [value.answer, value.said, *value.accepted] if fill.split()[0] in MADE else [value.answer]
        alike = [x for x in forms if any(c.isdigit() for c in x) == digits or not fact.answer]
        if alike:
            yield alike[0]


def _choices(
    answer: str,
    right: Sequence[str],
    wrong: Iterable[str],
    rng: np.random.Generator,
    share: float = 0.5,
    doubt: bool = False,
) -> tuple[str, ...] | None:
    """The answer among three wrong ones, in any order; or none, for an open question."""
    if rng.random() > share:
        return None
    taken, chosen = {x.lower() for x in right}, [answer]
    for option in wrong:
        if option.lower() not in taken:
            taken.add(option.lower())
            chosen.append(option)
        if len(chosen) == 4:
            break
    if len(chosen) < 3:
        return None
    if doubt and answer != UNSAID and rng.random() < 0.15:
        chosen[-1] = UNSAID
    rng.shuffle(chosen)
    return tuple(chosen)


# --- the talk as a whole ------------------------------------------------------------------------------------------


def _topic(talk: Talk, rng: np.random.Generator, wordings: Wordings) -> TalkQuestion:
    near = make_talk(rng, talk.genre)
    far = [make_talk(rng, pick(rng, genres())) for _ in range(4)]
    wrong = [pick(rng, other.subjects) for other in (near, *far)]
    answer = pick(rng, talk.subjects)
    accepted = tuple(x for x in talk.subjects if x != answer)
    choices = _choices(answer, talk.subjects, wrong, rng, 0.7)
    return TalkQuestion("talk/topic", pick(rng, wordings["talk/topic"]), answer, accepted, (0,), choices)


def _after(talk: Talk, rng: np.random.Generator, wordings: Wordings) -> TalkQuestion | None:
    """What follows on some words, up to the end of the clause."""
    whole = " ".join(line.text for line in talk.lines)
    found: list[tuple[int, str, str]] = []
    for i, line in enumerate(talk.lines):
        if i in {fact.line for fact in talk.facts if fact.kind == "phone"}:
            continue  # the groups of a number are clauses of their own
        for clause in CLAUSE.split(line.text):
            parts, size = clause.split(), int(rng.integers(3, 6))
            start = " ".join(parts[:size])
            if (
                2 <= len(parts) - size <= 10
                and not _amid_number(parts, size)
                and whole.lower().count(start.lower()) == 1
            ):
                found.append((i, start, " ".join(parts[size:])))
    if not found:
        return None
    rng.shuffle(found)
    i, start, answer = found[0]
    question = _filled(pick(rng, wordings["talk/after"]), {"about": start})
    choices = _choices(answer, (answer,), [x[2] for x in found[1:]], rng, 0.3)
    return TalkQuestion("talk/after", question, answer, (), (int(i),), choices)


def _amid_number(parts: Sequence[str], place: int) -> bool:
    """Whether a cut before this word would part a number that is said in several words."""
    return all(NUMBER.fullmatch(x.lower()) is not None for x in parts[place - 1 : place + 1])


def _transcribe(talk: Talk, rng: np.random.Generator, wordings: Wordings) -> TalkQuestion | None:
    """All words of a short talk, or the one sentence that mentions something."""
    whole = " ".join(line.text for line in talk.lines)
    lines = wordings["talk/transcribe"]
    if len(whole.split()) <= 60 and rng.random() < 0.6:
        question = pick(rng, [x for x in lines if "{about}" not in x])
        return TalkQuestion("talk/transcribe", question, whole, (), tuple(range(len(talk.lines))))
    sentences = [(i, x) for i, line in enumerate(talk.lines) for x in SENTENCE.split(line.text)]
    found = []
    for fact in (x for x in talk.facts if x.kind in THINGS):
        where = [x for x in sentences if holds(x[1], fact.answer)]
        if len(where) == 1 and len(where[0][1].split()) >= len(fact.answer.split()) + 3:
            found.append((fact.answer, *where[0]))
    if not found:
        return None
    about, i, sentence = found[int(rng.integers(len(found)))]
    question = _filled(pick(rng, [x for x in lines if "{about}" in x]), {"about": about})
    return TalkQuestion("talk/transcribe", question, sentence, (), (i,))


def _speakers(talk: Talk, rng: np.random.Generator, wordings: Wordings) -> TalkQuestion:
    number = len({line.speaker for line in talk.lines})
    answer, plural = words(number), "person" if number == 1 else "people"
    accepted = (str(number), f"{answer} {plural}", f"{number} {plural}")
    wrong = [words(x) for x in (1, 2, 3, 4) if x != number]
    choices = _choices(answer, (answer,), wrong, rng, 0.4)
    question = pick(rng, wordings["talk/speakers"])
    return TalkQuestion("talk/speakers", question, answer, accepted, tuple(range(len(talk.lines))), choices)


def _unknown(talk: Talk, rng: np.random.Generator, wordings: Wordings) -> TalkQuestion | None:
    """Something that talks of this kind often say and this one does not, or a thing that is far from all it says."""
    whole = " ".join(line.text for line in talk.lines)
    said = {fact.kind for fact in talk.facts}
    country = talk.facts[0].about["country"]
    absent = [fact for fact in talk.missing if fact.kind not in VAGUE]
    if not absent or rng.random() < 0.25:
        for kind, trace in TRACES.items():
            if kind not in said and re.search(trace, whole, re.IGNORECASE) is None:
                about = {"about": "", "fill": kind, "country": country, "spot": "room"}
                absent.append(Fact(kind, "", (), -1, about))
    for place in rng.permutation(len(absent)):
        fact = absent[int(place)]
        question = _word(talk, fact, rng, wordings)
        if question is not None:
            choices = _choices(UNSAID, (UNSAID,), _wrong(talk, fact, rng), rng)
            return TalkQuestion("talk/unknown", question, UNSAID, ALSO_UNSAID, (), choices)
    return None
