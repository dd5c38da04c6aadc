"""What Whisper would write: numbers in digits, and one sentence always in one way."""

from __future__ import annotations

import numpy as np
import pytest

from echo_agent.finetune.data.natural.asking import VERBATIM, ask_about
from echo_agent.finetune.data.natural.talk import SENTENCE, make_talk
from echo_agent.finetune.data.natural.transcripts import Transcript, in_digits, run_on


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("It costs twenty-five dollars twenty.", "It costs $25.20."),
        ("I'd say two hundred and thirty pounds.", "I'd say £230."),
        ("Four euros, then.", "Four euros, then."),
        ("Call oh two oh, seven nine four six, oh nine two one.", "Call 020-7946-0921."),
        ("Ring double seven three four.", "Ring 7734."),
        ("At seven thirty-five, or thirteen fifteen.", "At 7:35, or 13:15."),
        ("At nine oh five.", "At 9:05."),
        ("At half past five.", "At half past five."),
        ("On the twenty-third of May, the second time.", "On the 23rd of May, the 2nd time."),
        ("The second time.", "The second time."),
        ("One of my two dogs and a half.", "One of my two dogs and a half."),
        ("Thirteen thousand four hundred people came.", "13,400 people came."),
        ("Nothing to count.", "Nothing to count."),
    ],
)
def test_numbers_are_written_in_digits(said: str, written: str) -> None:
    assert in_digits(said) == written


def test_a_sentence_is_heard_in_one_way_and_quoted_so() -> None:
    changed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        talk = make_talk(rng)
        heard = Transcript(talk, rng)
        assert len(heard.lines) == len(talk.lines)
        whole = " ".join(line.text for line in heard.lines)
        changed += heard.lines != talk.lines
        for asked in ask_about(talk, rng, heard):
            quoted = asked.steps.partition('"')[2].removesuffix('"')
            assert quoted in whole
            if asked.kind in VERBATIM:
                assert asked.answer in " ".join(line.text for line in talk.lines)
                assert asked.answer in whole
    assert 10 < changed < 40, "some talks are heard as they are said, some are not"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("Hello, this is Martin. ", "hello this is Martin"),
        ("I'm at home at 5:30, all right?", "I'm at home at 5:30 all right"),
        ("Thursday, then!", "Thursday then"),
    ],
)
def test_sentences_run_on(said: str, written: str) -> None:
    assert run_on(said) == written


def test_sentences_are_told_apart() -> None:
    assert SENTENCE.split("Hello. How are you?  Fine!") == ["Hello.", "How are you?", "Fine!"]
