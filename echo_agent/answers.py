"""Questions and answers as text: what may be asked, and what counts as an answer.

No answer is ever invented: what cannot be read is its own outcome, *unparsed*, here and in scores and rewards.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from echo_agent.errors import QuestionError

TOOL_NAME = "relisten"
ANSWER, ANSWER_END = "<answer>", "</answer>"


def check_question(question: str, choices: Sequence[str] | None) -> None:
    """Refuse what cannot be answered: an empty question, fewer than two choices, choices that are the same.

    Raises:
        QuestionError: Saying which.
    """
    if not isinstance(question, str) or not question.strip():
        raise QuestionError("the question is empty: ask something about the recording")
    _check_text(question)
    if choices is None:
        return
    if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
        raise QuestionError(f"choices must be a list of texts, not {choices!r}")
    if len(choices) < 2:
        raise QuestionError(f"{len(choices)} choice given: give at least two, or none for an open question")
    seen: dict[str, str] = {}
    for choice in choices:
        _check_text(choice)
        key = normalise(choice)
        if not key:
            raise QuestionError(f"the choice {choice!r} is empty")
        if key in seen:
            raise QuestionError(
                f"the choices {seen[key]!r} and {choice!r} are the same: an answer could not tell them apart"
            )
        seen[key] = choice


def _check_text(text: str) -> None:
    """Refuse half of a surrogate pair: a terminal or a file gave bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QuestionError(f"{text[:40]!r} is not text: it cannot be written as UTF-8") from error


def question_text(question: str, choices: Sequence[str] | None) -> str:
    """Question, choices and the form of the answer in plain words, for a model that has no template of its own."""
    lines = [question]
    if choices:
        lines += ["Choices:", *(f"- {choice}" for choice in choices)]
    rule = "copied word for word from the choices" if choices else "as short as possible"
    lines.append(f"Listen again to a part of the recording with the tool {TOOL_NAME} where that helps.")
    lines.append(f"Then write the answer alone between {ANSWER} and {ANSWER_END}, {rule}.")
    return "\n".join(lines)


def extract_answer(text: str, *, ended: bool = False) -> str | None:
    """The text inside the last ``<answer>...</answer>``, or None: nothing else is ever an answer.

    Args:
        text: The whole assistant's turn, with an opening tag that a tool may have written.
        ended: The policy ended its turn itself: then the closing tag may be missing.
    """
    _, opened, rest = text.rpartition(ANSWER)
    if not opened:
        return None
    answer, closed, _ = rest.partition(ANSWER_END)
    if not (closed or ended):
        return None
    return answer.strip() or None


def as_written(text: str) -> str:
    """What stands in the last answer of a turn, closed or not, as it was written; without one, all of the turn."""
    _, opened, rest = text.rpartition(ANSWER)
    return (rest.partition(ANSWER_END)[0] if opened else text).strip()


def normalise(text: str) -> str:
    """Text for comparison: lower case, single spaces, no punctuation around it, each accent with its letter (NFC)."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).strip(_AROUND)


def match_choice(answer: str | None, choices: Sequence[str]) -> int | None:
    """Index of the one choice that the answer is, or None.

    Both are normalised (case, spaces, surrounding punctuation). An answer may carry a letter label such as ``B.`` or
    ``(b)`` before the choice; choices may all carry theirs (``A. cat``, ``B. dog``), and then the labels must agree. A
    part of a choice, a sentence that contains one, a bare letter: none of these is a match.
    """
    if answer is None:
        return None
    plain = [normalise(choice) for choice in choices]
    labels = [_LABEL.match(choice.strip()) for choice in choices]
    label = _LABEL.match(answer.strip())
    letters = [found[1].lower() if found else "" for found in labels]
    bare = plain
    if letters == [chr(ord("a") + i) for i in range(len(choices))]:
        bare = [
            normalise(choice.strip()[found.end() :])
            for choice, found in zip(choices, labels, strict=True)
            if found
        ]
    found = _only(answer, plain)
    if found is None:
        found = _only(answer, bare)
    if found is None and label:
        found = _only(answer.strip()[label.end() :], bare)
        if found is not None and bare is not plain and letters[found] != label[1].lower():
            return None
    return found


def _only(wanted: str, among: Sequence[str]) -> int | None:
    """Index of the one normalised text that ``wanted`` is."""
    key = normalise(wanted)
    hits = [i for i, text in enumerate(among) if key and text == key]
    return hits[0] if len(hits) == 1 else None


_AROUND = " \t\n.,;:!?\"'`´“”‘’«»()[]{}*_"
_LABEL = re.compile(r"\(?([A-Za-z])[).:]\)?\s*")
