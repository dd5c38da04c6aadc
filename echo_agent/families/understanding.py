"""What a model does not understand of a question, known before it is asked; whoever takes questions asks here.

echo-nano has a closed vocabulary: a word that it was never taught is noise to it, and one of those is enough not to
ask it. echo-small was taught English alone: a question that is clearly in another language is not asked either, and one
that seems to be is asked, with a note. What the large models read is not known, and not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echo_agent.families.english import reading
from echo_agent.families.known_words import unknown_words
from echo_agent.shipped import NANO, SMALL


@dataclass(frozen=True)
class Doubt:
    """What stands between a question and a model."""

    note: str
    """It in words, for whoever asks."""
    asked: bool
    """Whether the model is asked all the same."""


def doubt(model: str, kind: str, question: str, choices: Sequence[str] | None) -> Doubt | None:
    """What a model does not understand of a question; None where nothing speaks against asking it.

    Args:
        model: Its name; only the echo-nano that comes with the package has the list of words.
        kind: Its family.
        question: What is asked.
        choices: What the answer is chosen from.
    """
    if model == NANO and (unknown := unknown_words(question, choices)):
        many = "s" * (len(unknown) > 1)
        return Doubt(f"{model} does not know the word{many} {', '.join(unknown)}, and was not asked", False)
    if kind != SMALL or (language := reading(question)) == "english":
        return None
    only = f"the only language that {SMALL} was taught"
    if language == "foreign":
        return Doubt(f"the question is not in English, {only}, and was not asked", False)
    return Doubt(f"the question seems not to be in English, {only}; it was asked all the same", True)
