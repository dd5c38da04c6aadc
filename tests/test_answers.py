"""What may be asked, and what counts as an answer."""

import pytest

from echo_agent.answers import check_question, extract_answer, match_choice, question_text
from echo_agent.errors import QuestionError


@pytest.mark.parametrize("question", ["", "  \n", None])
def test_an_empty_question_is_refused(question):
    with pytest.raises(QuestionError, match="empty"):
        check_question(question, None)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "0 choice"),
        (["dog"], "1 choice"),
        (["dog", "Dog."], "the same"),
        (["dog", " "], "empty"),
        ("dog|cat", "list"),
        (["dog", 3], "list"),
        (["dog", "\udcff"], "UTF-8"),
    ],
)
def test_choices_that_cannot_be_told_apart_are_refused(choices, message):
    with pytest.raises(QuestionError, match=message):
        check_question("What barks?", choices)


def test_what_is_no_text_is_refused():
    with pytest.raises(QuestionError, match="UTF-8"):
        check_question("What \udcff?", None)


def test_good_questions_pass():
    check_question("What barks?", None)
    check_question("What barks?", ("dog", "cat"))


@pytest.mark.parametrize(
    ("text", "ended", "answer"),
    [
        ("<think>x</think><answer>a dog</answer>", False, "a dog"),
        ("<answer>first</answer> no: <answer> second </answer>", False, "second"),
        ("<answer>a dog", True, "a dog"),
        ("<answer>a dog", False, None),
        ("<answer>one</answer><answer>tw", False, None),
        ("<answer></answer>", False, None),
        ("<answer> </answer>", True, None),
        ("the answer is a dog", True, None),
        ("a dog</answer>", True, None),
        ("", True, None),
    ],
)
def test_an_answer_stands_between_its_tags_or_there_is_none(text, ended, answer):
    assert extract_answer(text, ended=ended) == answer


ANIMALS = ("a dog", "a cat", "a dog and a cat")


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("a dog", 0),
        ("A  Dog.", 0),
        ('"a cat"', 1),
        ("B. a cat", 1),
        ("(b) a cat", 1),
        ("b) a cat", 1),
        ("C: a dog and a cat", 2),
        ("dog", None),
        ("it is a dog", None),
        ("a dog or a cat", None),
        ("B", None),
        ("(b)", None),
        ("", None),
        ("...", None),
        (None, None),
    ],
)
def test_an_answer_is_one_choice_exactly(answer, index):
    assert match_choice(answer, ANIMALS) == index


def test_choices_may_carry_their_letters():
    choices = ("A. cat", "B. dog")
    assert match_choice("dog", choices) == 1
    assert match_choice("B. dog", choices) == 1
    assert match_choice("(b) dog", choices) == 1
    assert match_choice("A. dog", choices) is None, "letter and text contradict each other"


def test_letters_and_abbreviations_can_be_choices():
    assert match_choice("b", ("a", "b")) == 1
    assert match_choice("p.m.", ("a.m.", "p.m.")) == 1
    assert match_choice("E. coli", ("S. aureus", "E. coli")) == 1


def test_an_accent_may_be_written_in_one_character_or_two():
    assert match_choice("caf\u00e9", ("cafe", "cafe\u0301")) == 1


def test_the_question_in_words_names_every_choice():
    text = question_text("What barks?", ["a dog", "a cat"])
    assert text.startswith("What barks?\n") and "- a dog\n- a cat\n" in text and "<answer>" in text
