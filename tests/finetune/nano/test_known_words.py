"""The list of words that echo-nano was taught is the one beside its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_agent.families.known_sounds import known_sounds
from echo_agent.families.known_words import EMBEDDED_WORDS, unknown_words, words_of
from echo_agent.finetune.nano.known_words import taught_words

EXAMPLES = Path(__file__).parents[3] / "examples" / "questions.jsonl"


def test_the_list_is_what_was_taught() -> None:
    assert EMBEDDED_WORDS.read_text(encoding="utf-8").splitlines() == taught_words()
    assert not unknown_words(" ".join(known_sounds()), None)


def test_what_the_examples_ask_is_understood() -> None:
    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 24
    assert not any(unknown_words(row["question"], row["choices"]) for row in rows)


@pytest.mark.parametrize(
    ("question", "unknown"),
    [
        ("When does the BELL start, at 12 or at 0:52?", []),
        ("Whose voice is it, the man’s?", []),
        ("Wie oft bellt der Hund?", ["wie", "oft", "bellt", "der", "hund"]),
        ("Is there a bleating sheep, a sheep?", ["bleating", "sheep"]),
    ],
)
def test_words_that_were_not_taught(question: str, unknown: list[str]) -> None:
    assert unknown_words(question, None) == unknown


def test_words_are_letters() -> None:
    assert words_of("Don't 3x say «été», naïve_x") == ["don't", "x", "say", "été", "naïve", "x"]
