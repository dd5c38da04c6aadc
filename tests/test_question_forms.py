"""What a question asks for, by its form."""

from __future__ import annotations

import pytest

from echo_agent.question_forms import answer_kind


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Is a bell heard?", "yes-no"),
        ("  is\tthere a beep", "yes-no"),
        ("Isn't there a beep?", "yes-no"),
        ("Can you hear the violin?", "yes-no"),
        ("After the bell, does a drum follow?", "yes-no"),
        ("Is a bell heard when the drum plays?", "yes-no"),
        ("There is a bell. Does it ring twice?", "yes-no"),
        ("When does the telephone start?", "time"),
        ("After the drum, when is the bell heard?", "time"),
        ("At which time do you hear the trumpet?", "time"),
        ("What time does it ring?", "time"),
        ("What do you hear?", None),
        ("When the bell rings, what follows?", None),
        ("Is it a dog or a cat?", None),
        ("Can you tell me what barks?", None),
        ("Could you name the first sound?", None),
        ("Do you know which bell rings?", None),
        ("Which digit is spoken?", None),
        ("Could you find me the moment the kettle boils?", None),
        ("Would you mind pointing out the loudest part?", None),
        ("Can u give me the order of the sounds", None),
        ("Are you able to put a number on the knocks?", None),
        ("Point me to the siren, will you?", None),
        ("Sum it up in a sentence, could you please?", None),
        ("Is something said in there? Name it.", None),
        ("Have a listen and write down each sound.", None),
        ("Don't explain, just give me the names.", None),
        ("Tell me whether it is a dog or a wolf.", None),
        ("How many barks are there: one, two or none?", None),
        ("Which of these is heard, a dog, a cat or none?", None),
        ("How many times does she say yes?", None),
        ("Would you say there are two or three knocks?", None),
        ("Check whether the dog barks, and how often.", None),
        ("Tell me if a dog barks and when it does", None),
        ("Please say if it is heard once or again and again.", None),
        ("Have a listen: is there a cat?", "yes-no"),
        ("Don't you hear a train?", "yes-no"),
        ("Could you make out a siren anywhere?", "yes-no"),
        ("Would you say there's a dog in this?", "yes-no"),
        ("Yes or no: somebody knocks.", "yes-no"),
        ("Tell me whether the door closes.", "yes-no"),
        ("Can you confirm if it rains?", "yes-no"),
        ("Was the horn before the bell or not?", "yes-no"),
        ("Is there a drill or isn't there?", "yes-no"),
        ("How many times does it ring?", None),
        ("The island is quiet.", None),
        ("?", None),
    ],
)
def test_what_kind_of_answer_a_question_asks_for(question: str, kind: str | None) -> None:
    assert answer_kind(question) == kind
