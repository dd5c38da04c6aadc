"""What is not put to a model: words that echo-nano does not know, questions to echo-small in other languages."""

from __future__ import annotations

import pytest

from echo_agent.families.understanding import doubt


def test_words_that_a_closed_vocabulary_lacks_are_named() -> None:
    found = doubt("echo-nano", "echo-nano", "Is a sheep heard?", ["yes", "Schafe"])
    assert found is not None and not found.asked
    assert found.note == "echo-nano does not know the words sheep, schafe, and was not asked"
    one = doubt("echo-nano", "echo-nano", "Is a sheep heard?", None)
    assert one is not None and "the word sheep," in one.note
    assert doubt("echo-nano", "echo-nano", "Is a bell heard?", ["yes", "no"]) is None


@pytest.mark.parametrize("name", ["echo-small", "runs/sft/model"])
def test_echo_small_was_taught_english_alone_whatever_it_is_called(name: str) -> None:
    assert doubt(name, "echo-small", "How often does the dog bark?", None) is None
    clear = doubt(name, "echo-small", "Wie oft bellt der Hund?", None)
    assert clear is not None and not clear.asked and "is not in English" in clear.note
    unsure = doubt(name, "echo-small", "wer hustet", None)
    assert unsure is not None and unsure.asked and "seems not to be in English" in unsure.note


def test_of_other_models_nothing_is_known() -> None:
    for name, kind in (("runs/sft-0/model", "echo-nano"), ("Qwen/Qwen2-Audio-7B-Instruct", "qwen2-audio")):
        assert doubt(name, kind, "Wie oft bellt das Schaf?", None) is None
