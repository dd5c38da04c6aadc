"""What is read from the words of a question about a long recording."""

from __future__ import annotations

import pytest

from echo_agent.families.base import Note
from echo_agent.graphs.sought import Sought, named_in, side_of, voiced

NAMES = dict.fromkeys(["bell", "dog", "voice", "saw"], 0.0)


def test_sounds_are_found_by_name_and_speech_by_its_verbs() -> None:
    assert named_in("What is heard after the bells?", NAMES) == ["bell"]
    assert named_in("Which digits are spoken?", NAMES) == named_in("Whose voice is it?", NAMES) == ["voice"]
    assert named_in("Which digits does a voice say after the bell?", NAMES) == ["bell"]
    assert named_in("What did he saw off?", NAMES) == ["saw"] and not named_in("What is seesawing?", NAMES)


@pytest.mark.parametrize(
    ("question", "side"),
    [
        ("Which digits are said right after the bell?", 1),
        ("What does the voice say following a bell?", 1),
        ("Of the words spoken just before the bell, which is the first?", -1),
        ("What is heard after the bell?", 0),
        ("What is said when the bell rings?", 0),
        ("Which words are spoken after noon?", 0),
    ],
)
def test_the_side_of_the_sound_on_which_something_is_said(question: str, side: int) -> None:
    assert side_of(question, named_in(question, NAMES)) == side


def test_a_sound_counts_against_what_is_usual_and_for_less_where_it_may_be_another() -> None:
    notes = [Note(i, i + 1.0, {"bell": 0.3, "dog": 0.0, "voice": 0.1}) for i in range(5)]
    notes.append(Note(5.0, 6.0, {"bell": 0.8, "dog": 0.9, "voice": 0.7}))
    sought = Sought.of(notes, "Is a bell heard?", None)
    assert sought.names == ("bell",) and sought.likely(notes[-1]) == pytest.approx(0.5)
    alone = Note(5.0, 6.0, {"bell": 0.8, "dog": 0.0, "voice": 0.0})
    assert sought.sure(alone) == sought.sure(notes[-1]) == 0.8
    assert sought.apart(alone) == 0.8 > sought.apart(notes[-1]) > 0
    assert voiced(notes[-1]) == 0.7 and voiced(Note(0.0, 1.0, {"dog": 1.0})) == 0.0


def test_times_count_only_where_a_sound_is_named() -> None:
    notes = [Note(0.0, 1.0, {"bell": 0.3})]
    assert Sought.of(notes, "When is the bell heard?", None, (3.0, 9.0)).times == (3.0, 9.0)
    assert Sought.of(notes, "When does it rain?", None, (3.0, 9.0)).times == ()
