"""The official rules of the benchmarks, as their own scripts apply them, with all that is wrong with them.

A rule takes every prediction of a file in its order, and gives each a mark: 1 for right and 0 for wrong (or the IoU of
a span, or a judge's share of the most that it can give), and None where the script leaves the row out of what it
divides by. What is wrong with a rule is repeated here on purpose, so that a figure can be compared with published ones;
the strict score stands beside it (:mod:`echo_agent.benchmarks.two_scores`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo_agent.answers import normalise
from echo_agent.benchmarks.grounding import iou, official_span
from echo_agent.benchmarks.instructions import follows
from echo_agent.benchmarks.item import Item
from echo_agent.rows import Question

if TYPE_CHECKING:
    from echo_agent.benchmarks.judge import Judge

Mark = float | None
"""0 to 1; None: left out."""
Nearest = Callable[[str, Sequence[str]], int]
"""Which of some texts is nearest to one, by an embedding model."""


@dataclass(frozen=True)
class Prediction:
    """What was handed in for one row."""

    question: Question
    text: str | None
    """None where the file of predictions has none for this row."""

    @property
    def item(self) -> Item:
        """The row of a benchmark that it is about."""
        assert isinstance(self.question, Item)
        return self.question


@dataclass(frozen=True)
class Referees:
    """The models that some rules need."""

    judge: Judge | None = None
    """Scores open answers; without it they are left out."""
    nearest: Nearest | None = None
    """Without it, answers that are none of the choices word for word are left out of MMAU-Pro's rule."""


Rule = Callable[[Sequence[Prediction], Referees], list[Mark]]


# --- words: MMAU, MMAR ------------------------------------------------------------------------------------------


WORD_SETS = (
    "all words of the answer occur, and none that only a wrong choice has; "
    "rows without a prediction are left out"
)
"""What :func:`word_sets` comes to, for a report."""


def word_sets(predictions: Sequence[Prediction], referees: Referees) -> list[Mark]:
    """MMAU and MMAR: right if all words of the answer occur, and no word that only a wrong choice has.

    Order and repetition do not count, so a denial of the answer is right and a sentence that mentions a wrong choice is
    wrong. Rows without a prediction are left out.
    """
    return [
        None
        if prediction.text is None or prediction.item.answer is None
        else float(holds_the_answer(prediction.text, prediction.item.answer, prediction.item.choices or ()))
        for prediction in predictions
    ]


def holds_the_answer(text: str, answer: str, choices: Sequence[str]) -> bool:
    """Whether a text has all words of the answer, and none that only wrong choices have."""
    said, right = _words(text), _words(answer)
    wrong = {word for choice in choices for word in _words(choice)} - right
    return bool(said) and right <= said and not said & wrong


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


# --- letters: MMSU, AIR-Bench, VoiceGiraffe -----------------------------------------------------------------------


def letters_carried(predictions: Sequence[Prediction], referees: Referees) -> list[Mark]:
    """MMSU: the first or the last but one character as a letter; an empty response has the letter of the row before.

    Rows in which there is no letter are left out, and so are rows without a response.
    """
    marks: list[Mark] = []
    letter = ""
    for prediction in predictions:
        if prediction.text is None:
            marks.append(None)
            continue
        text = _on_one_line(prediction.text)
        if text and text != "None":
            found = edge_letter(text)
            if not found:
                marks.append(None)
                continue
            letter = found
        marks.append(float(letter == prediction.item.letter) if letter else None)
    return marks


def letters_dropped(predictions: Sequence[Prediction], referees: Referees) -> list[Mark]:
    """AIR-Bench, Foundation: the first or the last but one character as a letter; rows without one are left out."""
    marks: list[Mark] = []
    for prediction in predictions:
        text = _on_one_line(prediction.text or "")
        letter = edge_letter(text) if text != "None" else ""
        marks.append(float(letter == prediction.item.letter) if letter else None)
    return marks


def edge_letter(text: str) -> str:
    """The letter A to D that a text begins with, or that stands last but one; a word's first letter counts too."""
    for character in (text[:1], text[-2:-1] if len(text) > 1 else ""):
        if character and character in "ABCD":
            return character
    return ""


def best_letter(predictions: Sequence[Prediction], referees: Referees) -> list[Mark]:
    """VoiceGiraffe: the letter that looks most like an answer; a text without one is wrong, and so is a missing one."""
    return [float(likely_letter(p.text or "") == p.item.letter and p.item.letter != "") for p in predictions]


def likely_letter(text: str) -> str:
    """The letter after words such as "answer", else one in brackets, else one alone on a line, else the last one."""
    for pattern in _LIKELY:
        if found := pattern.search(text):
            return found[1].upper()
    standing = re.findall(r"\b[ABCD]\b", text)
    return standing[-1] if standing else ""


_LIKELY = (
    re.compile(
        r"(?im)^\s*(?:(?:final\s*)?answer|the\s*answer\s*is|答案|选\s*项|选择)\s*[:：]?\s*[(\[{]?\s*([A-D])\b"
    ),
    re.compile(r"(?im)\banswer\s*(?:is|:)\s*[(\[{]?\s*([A-D])\b"),
    re.compile(r"[(\[{]\s*([A-D])\s*[)\]}]"),
    re.compile(r"(?m)^\s*([A-D])\s*[.)、\]]?\s*$"),
)


def _on_one_line(text: str) -> str:
    return text.strip().replace("\n", "")


# --- spans: LAT-Bench ---------------------------------------------------------------------------------------------


def parsable_spans(predictions: Sequence[Prediction], referees: Referees) -> list[Mark]:
    """LAT-Bench, grounding: IoU of ``MM:SS-MM:SS``; rows in which no such span can be read are left out."""
    marks: list[Mark] = []
    for prediction in predictions:
        span = official_span(prediction.text or "")
        gold = prediction.item.gold_spans
        marks.append(None if span is None or not gold else iou(span, gold[0]))
    return marks


# --- MMAU-Pro -----------------------------------------------------------------------------------------------------


def mmau_pro(predictions: Sequence[Prediction], referees: Referees) -> list[Mark]:
    """MMAU-Pro: the nearest choice by an embedding model, a judge's mean, and rules for instructions.

    An answer to a question with choices is never unparsed: whatever was written is nearest to one of them. A score that
    the judge leaves out counts 3 of 5. Where no row has a prediction, the ground truth is scored in its place.
    """
    if all(prediction.text is None for prediction in predictions):
        return [_pro(p.item, p.item.answer or "", referees) for p in predictions]
    return [_pro(p.item, p.text or "", referees) for p in predictions]


def _pro(item: Item, text: str, referees: Referees) -> Mark:
    if item.kind == "instruction":
        return float(follows(text, item.source))
    if item.kind == "open":
        if referees.judge is None:
            return None
        scores = referees.judge.rate(item.question, item.answer or "", text)
        filled = {name: 3.0 if score is None else float(score) for name, score in scores.items()}
        return (filled["overall"] if filled["overall"] != 3.0 else _mean(filled)) / 5
    choices = list(item.choices or ())
    if len(choices) < 2 or item.answer is None:
        return None
    same = [place for place, choice in enumerate(choices) if normalise(choice) == normalise(text)]
    if same:
        return float(item.letter_of(choices[same[0]]) == item.letter)
    if referees.nearest is None:
        return None
    return float(item.letter_of(choices[referees.nearest(text, choices)]) == item.letter)


def _mean(scores: dict[str, float]) -> float:
    """Mean of the judge's scores where it gave no overall one."""
    given = [score for name, score in scores.items() if name != "overall"]
    return (sum(given) + 3.0) / (len(given) + 1)


# --- judged in both orders: AIR-Bench, Chat -----------------------------------------------------------------------


def both_orders(predictions: Sequence[Prediction], referees: Referees) -> list[Mark]:
    """AIR-Bench, Chat: the judge's score of the response, 1 to 10, beside the reference, shown first and shown last.

    A row of which the judge's words cannot be read in an order is left out of the mean of that order.
    """
    marks: list[Mark] = []
    for prediction in predictions:
        if referees.judge is None or prediction.text is None or prediction.item.answer is None:
            marks.append(None)
            continue
        given = [
            score for score in referees.judge.beside(prediction.item, prediction.text) if score is not None
        ]
        marks.append(sum(given) / len(given) / 10 if given else None)
    return marks


# --- ours ---------------------------------------------------------------------------------------------------------


def exact(predictions: Sequence[Prediction], referees: Referees) -> list[Mark]:
    """EchoBench and files of our own: one of the right answers; rows that could not be run are left out."""
    return [None if p.text is None else float(p.question.is_right(p.text)) for p in predictions]
