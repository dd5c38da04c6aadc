"""The words that echo-nano was taught: those of its wordings, of its sounds, and those that its voices speak.

Its vocabulary is bytes, so it can read anything, and understands nothing else. The list stands beside its weights,
where ``ask`` finds it without loading the model; this module writes it::

    python -m echo_agent.finetune.nano.known_words
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from echo_agent.disk import write_whole
from echo_agent.families.known_words import EMBEDDED_WORDS, words_of
from echo_agent.finetune.data.questions.phrasings import AFTER, ANYWHERE, BEFORE, ORDINALS, wordings
from echo_agent.finetune.data.vocabulary import DIGITS, WORDS
from echo_agent.finetune.nano import questions

ANSWERS = (
    "yes",
    "no",
    "s",
    "longer",
    "shorter",
    "louder",
    "higher",
    "lower",
    "up",
    "down",
    "equal",
    "neither",
)
"""Words that stand in choices alone."""


def taught_words() -> list[str]:
    """All of them, sorted."""
    return sorted({word for text in _texts() for word in words_of(re.sub(r"\{\w+\}", " ", text))})


def _texts() -> Iterable[str]:
    for hands in wordings().values():
        for lines in hands.values():
            yield from lines
    for lines in questions.TEMPLATES.values():
        yield from lines
    yield from (
        *AFTER,
        *BEFORE,
        *ORDINALS,
        ANYWHERE,
        *questions.AFTER,
        *questions.BEFORE,
        *questions.ORDINALS,
    )
    yield from (*questions.SOUNDS, *DIGITS, *WORDS, *ANSWERS)


if __name__ == "__main__":
    write_whole(EMBEDDED_WORDS, ("\n".join(taught_words()) + "\n").encode())
