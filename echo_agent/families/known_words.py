"""The words that the embedded echo-nano understands, read without loading it.

It takes a word that it was never taught for noise, and answers all the same. So what it is asked is held against this
list first; who asks is told which words it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from echo_agent.shipped import NANO, SHIPPED

EMBEDDED_WORDS = SHIPPED[NANO] / "words.txt"
"""A word per line; :mod:`echo_agent.finetune.nano.known_words` writes it."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words_of(text: str) -> list[str]:
    """The words of a text in order, in lower case; numbers are none."""
    return [word.replace("’", "'") for word in _WORD.findall(text.lower())]


@cache
def known_words() -> frozenset[str]:
    """All words that echo-nano was taught."""
    return frozenset(EMBEDDED_WORDS.read_text(encoding="utf-8").split())


def unknown_words(question: str, choices: Sequence[str] | None) -> list[str]:
    """Words of a question and its choices that echo-nano was not taught, each once, in order."""
    asked = [word for text in (question, *(choices or ())) for word in words_of(text)]
    return [word for word in dict.fromkeys(asked) if word not in known_words()]
