"""Questions about what is said, and by whom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from echo_agent.finetune.data.questions.draft import Draft, Look, Maker, Scope, akin
from echo_agent.finetune.data.questions.phrasings import ORDINALS, place
from echo_agent.finetune.data.vocabulary import DIGITS

GENDERS = ("a woman", "a man")


def _phrases(scope: Scope, kinds: Sequence[str]) -> list[tuple[int, tuple[str, int] | None]]:
    """Spoken phrases whose place a question can name: by a sound next to them, or as the only one."""
    spoken = [i for i, event in enumerate(scope.events) if event.kind in kinds and event.content]
    named: list[tuple[int, tuple[str, int] | None]] = [
        (i, where) for i in spoken for where in scope.neighbours(i)
    ]
    if not named and len(spoken) == 1 and scope.record.complete:
        return [(spoken[0], None)]
    return named


def _where(scope: Scope, where: tuple[str, int] | None) -> str:
    """What stands in the slot ``where``."""
    if where is None:
        return place(scope.rng)
    side, i = where
    return place(scope.rng, **{side: scope.label(i)})


def _looks(i: int, where: tuple[str, int] | None, heard: str) -> tuple[Look, ...]:
    """First the sound that names the place, then the phrase."""
    return (Look(i, heard),) if where is None else (Look(where[1]), Look(i, heard))


def _drawn(scope: Scope, kinds: Sequence[str]) -> tuple[int, tuple[str, int] | None, tuple[str, ...]] | None:
    """A phrase, its place, and what is said in it."""
    phrases = _phrases(scope, kinds)
    if not phrases:
        return None
    i, where = phrases[int(scope.rng.integers(len(phrases)))]
    return i, where, scope.events[i].content


def _nth(scope: Scope, kind: str, spoken: str) -> Draft | None:
    """One digit or word of a phrase; wrong choices are said in the recording where possible."""
    drawn = _drawn(scope, (spoken,))
    if drawn is None:
        return None
    i, where, said = drawn
    position = int(scope.rng.integers(min(len(said), len(ORDINALS))))
    last = position == len(said) - 1 and position > 0 and scope.rng.random() < 0.5
    slots = {"n": "last" if last else ORDINALS[position], "where": _where(scope, where)}
    answer, heard = said[position], " ".join(said)
    looks = _looks(i, where, heard)
    if scope.rng.random() < scope.open_share:
        return Draft(kind, slots, answer, None, looks, (i,), numerals([answer]))
    elsewhere = sorted(
        {word for e in scope.events if e.kind == spoken for word in e.content} - set(said), key=str
    )
    other = DIGITS if spoken == "digits" else scope.about.words
    pool = dict.fromkeys(
        [
            *(_shuffled(scope.rng, sorted(set(said)))),
            *_shuffled(scope.rng, elsewhere),
            *_shuffled(scope.rng, other),
        ]
    )
    wrong = [word for word in pool if word != answer][:3]
    if len(wrong) < 3:
        return None
    choices = scope.balance.place(kind, answer, wrong, scope.rng)
    return Draft(kind, slots, answer, choices, looks, (i,))


def _shuffled(rng: np.random.Generator, items: Sequence[str]) -> list[str]:
    return [items[int(k)] for k in rng.permutation(len(items))]


def nth_word(scope: Scope) -> Draft | None:
    """``word/nth``: one word of a phrase."""
    return _nth(scope, "word/nth", "words")


def nth_digit(scope: Scope) -> Draft | None:
    """``digit/nth``: one digit of a phrase."""
    return _nth(scope, "digit/nth", "digits")


def digits(scope: Scope) -> Draft | None:
    """``digit_sequence/which``: all digits of a phrase.

    The four choices differ in two places, each of them once: so every choice is as like the others as any.
    """
    kind = "digit_sequence/which"
    drawn = _drawn(scope, ("digits",))
    if drawn is None or len(drawn[2]) < 2:
        return None
    i, where, said = drawn
    slots = {"where": _where(scope, where)}
    answer, looks = " ".join(said), _looks(i, where, " ".join(said))
    if scope.rng.random() < scope.open_share:
        return Draft(kind, slots, answer, None, looks, (i,), numerals(said))
    first, second = (int(k) for k in scope.rng.choice(len(said), 2, replace=False))
    one = _swapped(scope.rng, said, first)
    two = _swapped(scope.rng, said, second)
    both = tuple(two[k] if k == second else word for k, word in enumerate(one))
    wrong = [" ".join(option) for option in (one, two, both)]
    choices = scope.balance.place(kind, answer, wrong, scope.rng)
    return Draft(kind, slots, answer, choices, looks, (i,))


def _swapped(rng: np.random.Generator, said: Sequence[str], at: int) -> tuple[str, ...]:
    """The digits with another one at ``at``."""
    other = _shuffled(rng, [digit for digit in DIGITS if digit != said[at]])[0]
    return tuple(other if k == at else digit for k, digit in enumerate(said))


def numerals(said: Sequence[str]) -> tuple[str, ...]:
    """Digits written as numerals, with and without spaces; nothing for words."""
    if not all(word in DIGITS for word in said):
        return ()
    figures = [str(DIGITS.index(word)) for word in said]
    return tuple(dict.fromkeys((" ".join(figures), "".join(figures))))


def _by_length(scope: Scope, kind: str) -> str:
    """A key to balance by for recordings of about the same length: how long one is must not tell who speaks."""
    return f"{kind}/{min(3, int(scope.record.duration // 30))}"


def who(scope: Scope) -> Draft | None:
    """``who/speaks``: whether a woman or a man speaks at a place."""
    kind = "who/speaks"
    known = [(i, where) for i, where in _phrases(scope, ("digits", "words")) if scope.events[i].gender]
    if not known or not scope.about.both_genders:
        return None
    key = _by_length(scope, kind)
    gender = scope.balance.rarest(key, sorted({scope.events[i].gender for i, _ in known}), scope.rng)
    if scope.balance.lead(key, gender, ("woman", "man")) > 1:
        return None
    scope.balance.least(key, (gender,), scope.rng)
    fitting = [entry for entry in known if scope.events[entry[0]].gender == gender]
    i, where = fitting[int(scope.rng.integers(len(fitting)))]
    answer = f"a {gender}"
    looks = _looks(i, where, f"{answer} speaking")
    return Draft(kind, {"where": _where(scope, where)}, answer, GENDERS, looks, (i,))


def who_first(scope: Scope) -> Draft | None:
    """``who/first``: whether a woman or a man speaks first; both speak."""
    kind = "who/first"
    spoken = [i for i, event in enumerate(scope.events) if event.kind in ("digits", "words")]
    if len({scope.events[i].gender for i in spoken} - {""}) < 2 or not scope.record.complete:
        return None
    first = scope.events[spoken[0]]
    key = _by_length(scope, kind)
    if not first.gender or scope.balance.lead(key, first.gender, ("woman", "man")) > 0:
        return None
    scope.balance.least(key, (first.gender,), scope.rng)
    answer = f"a {first.gender}"
    return Draft(kind, {}, answer, GENDERS, (Look(spoken[0], f"{answer} speaking"),))


def _after_sounds(scope: Scope, kinds: Sequence[str]) -> list[tuple[int, int]]:
    """Phrases with the sound right before each: (sound, phrase); no two phrases with sounds akin."""
    return [
        (where[1], i)
        for i, where in _phrases(scope, kinds)
        if where is not None and where[0] == "after"
    ]  # fmt: skip


def larger_digit(scope: Scope) -> Draft | None:
    """``compare/digit``: after which of two sounds the first digit is larger."""
    kind, places = "compare/digit", _after_sounds(scope, ("digits",))
    phrase = dict(places)
    value = {sound: DIGITS.index(scope.events[i].content[0]) for sound, i in places}
    won = scope.duel(kind, [(a, b) for a in value for b in value if value[a] > value[b]])
    if won is None:
        return None
    choices, slots = scope.versus(kind, *won)
    looks: list[Look] = []
    for sound in sorted(won, key=lambda i: slots["a"] != scope.label(i)):
        said = scope.events[phrase[sound]].content
        looks += [Look(sound), Look(phrase[sound], " ".join(said))]
    gold = tuple(phrase[sound] for sound in won)
    return Draft(kind, slots, scope.label(won[0]), choices, tuple(looks), gold)


def same_voice(scope: Scope) -> Draft | None:
    """``compare/voice``: whether the same person speaks after two sounds."""
    kind, places = "compare/voice", _after_sounds(scope, ("digits", "words"))
    known = [(a, i) for a, i in places if scope.events[i].voice]
    answer = scope.balance.rarest(kind, ("yes", "no"), scope.rng)
    pairs = [
        (first, second)
        for first in known
        for second in known
        if first[0] != second[0]
        and (scope.events[first[1]].voice == scope.events[second[1]].voice) == (answer == "yes")
        and not akin(scope.label(first[0]), scope.label(second[0]))
    ]
    if not pairs:
        return None
    scope.balance.least(kind, (answer,), scope.rng)
    (a, i), (b, j) = pairs[int(scope.rng.integers(len(pairs)))]
    slots = {"a": scope.label(a), "b": scope.label(b)}
    voices = [f"a {scope.events[k].gender}" if scope.events[k].gender else "a voice" for k in (i, j)]
    other = "the same voice" if answer == "yes" else f"another voice, {voices[1]}"
    looks = (Look(a), Look(i, f"{voices[0]} speaking"), Look(b), Look(j, other))
    return Draft(kind, slots, answer, ("yes", "no"), looks, (i, j))


MAKERS: dict[str, Maker] = {
    "word/nth": nth_word,
    "digit/nth": nth_digit,
    "digit_sequence/which": digits,
    "who/speaks": who,
    "who/first": who_first,
    "compare/digit": larger_digit,
    "compare/voice": same_voice,
}
"""Makers of drafts, by kind."""
