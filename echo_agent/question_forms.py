"""What an English question asks for, by its form: yes or no, or a time.

The embedded models were taught on choices: where none are given, and the question implies them, they are held to these.
"""

from __future__ import annotations

import re
from typing import Literal

_AUXILIARY = "(?:is|are|am|was|were|do|does|did|has|have|had|can|could|will|would|should)(?:n['’]t)?(?: not)?"
_CLAUSE = r"(?:^|[,.;:!?]\s*(?:and |but |so )?)"
_TIME = re.compile(
    rf"{_CLAUSE}(?:when {_AUXILIARY}|(?:(?:at|in|from|on) )?(?:what|which) (?:time|second|moment|point in time)"
    r"|(?:at|after|from) how many seconds)\b"
)
_YES_NO = re.compile(rf"{_CLAUSE}{_AUXILIARY}\b")
_HEARING = r"(?:hear|notice|detect|make out|catch|spot|recogni[sz]e)\b"
_REQUEST = r"(?:can|could|will|would) (?:you|u)(?: (?:please|kindly|possibly))?"
_OPEN = re.compile(
    r"\b(?:what|which|who|whom|whose|why|how|or)\b"
    rf"|\b(?:{_REQUEST}|are you able to) (?!{_HEARING})\w+"
    rf"|[,.;]\s*{_REQUEST}\W*$"
    r"|\b(?:name|list|identify|describe) (?:it|them)\b"
)
"""Signs that more is asked for than yes or no: question words, and requests for anything but to hear."""
_ORDER = re.compile(
    rf"{_CLAUSE}(?:have an? (?:close )?(?:listen|look|think|go)|do(?:n['’]t| not) (?!you|we|they|i|the|any|these)\w+)\b"
)
"""Orders that begin as questions do."""
_ASKED = re.compile(
    r"\byes or no\b|\bno or yes\b|(?:^|[,.;:!?]\s*)(?:just |please )?say yes\b"
    r"|^(?!.*\b(?:what|which|who|how|where)\b)[^,:]*,? or (?:not|none)\W*$"
    r"|\bor (?:is|are|was|do|does|did|has|have)n['’]t \w+\b"
    r"|\b(?:tell me|let me know|indicate|confirm|verify|check|say|state|find out) (?:if|whether)\b"
    r"(?!.*\b(?:or|and (?:how|what|which|who|when|where|name))\b)"
    r"|\bwould you say there(?:['’]s| is| are)\b(?!.*\bor\b)"
)
"""Yes or no is asked for in so many words."""


def answer_kind(question: str) -> Literal["yes-no", "time"] | None:
    """What kind of answer an English question asks for: yes or no, a time, or (None) anything else."""
    text = " ".join(question.casefold().split())
    if _TIME.search(text):
        return "time"
    text = _ORDER.sub(" ", text)
    if _ASKED.search(text) or (_YES_NO.search(text) and not _OPEN.search(text)):
        return "yes-no"
    return None
