"""Wordings, choices and the manner of typing."""

from __future__ import annotations

import string

import numpy as np
import pytest

from echo_agent.answers import match_choice, normalise
from echo_agent.finetune.data.natural.asking import Asked, ask, typed, wordings
from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.sounds import Hand
from echo_agent.finetune.data.natural.timelines import simulate


def asked(kind: str, hand: Hand, count: int = 25) -> list[Asked]:
    """Questions of a kind about simulated recordings."""
    found: list[Asked] = []
    for seed in range(40 * count):
        rng = np.random.default_rng([3, seed])
        question = ask(simulate(rng), kind, hand, rng)
        if question is not None:
            found.append(question)
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize(("hand", "least"), [("train", 60), ("test", 15)])
def test_every_kind_has_its_wordings(hand: Hand, least: int) -> None:
    assert wordings(hand).keys() == MAKERS.keys()
    for kind, lines in wordings(hand).items():
        assert len(set(lines)) >= least, kind


def test_the_hands_share_no_wording() -> None:
    for kind in MAKERS:
        first, second = ({line.casefold() for line in wordings(hand)[kind]} for hand in ("train", "test"))
        assert not first & second, kind


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("hand", ["train", "test"])
def test_a_question_is_whole_and_has_one_right_answer(kind: str, hand: Hand) -> None:
    found = asked(kind, hand)
    assert len(found) == 25
    for question in found:
        assert not {"{", "}"} & set(question.question + question.answer)
        assert question.answer in question.accepted
        if question.choices:
            assert len({normalise(choice) for choice in question.choices}) == len(question.choices)
            (right,) = (i for i, choice in enumerate(question.choices) if choice == question.answer)
            assert match_choice(question.answer, question.choices) == right


def test_what_is_asked_for_one_of_some_has_choices() -> None:
    for kind in ("presence/which", "presence/missing"):
        for question in asked(kind, "train"):
            assert question.choices or " or " in question.question


def test_people_type_in_many_ways() -> None:
    text = "Which of these sounds is heard after the telephone?"
    ways = {typed(text, np.random.default_rng(seed)) for seed in range(200)}
    assert text in ways and text.lower().rstrip("?") in ways
    mistyped = [way for way in ways if way.casefold().rstrip("?") != text.casefold().rstrip("?")]
    assert mistyped and all(abs(len(way.rstrip("?")) - len(text.rstrip("?"))) <= 2 for way in mistyped)
    assert all(set(way) <= set(string.ascii_letters + " ?") for way in ways)
