"""MMAU-Pro's questions about following an instruction: rules that a text keeps to or does not.

Each row names a rule (``task_identifier``) and its numbers or words (``kwargs``). The official script counts sentences
by NLTK's model of English; here a sentence ends with a full stop, a question mark or an exclamation mark before a space
or the end, so a text with abbreviations may count differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Rule = Callable[[str, Mapping[str, Any], Mapping[str, Any]], bool]
"""Takes the text, the rule's numbers and words, and the row."""


def follows(text: str, row: Mapping[str, Any]) -> bool:
    """Whether a text keeps to the rule of a row; False where the rule is not known, as in the official script."""
    rule = RULES.get(str(row.get("task_identifier") or ""))
    return rule is not None and rule(text, row.get("kwargs") or {}, row)


def _words(text: str) -> int:
    return len(text.split())


def _sentences(text: str) -> int:
    return len([part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if part])


def _capitals(text: str) -> int:
    return sum(word.isupper() for word in text.split())


def _number(given: Mapping[str, Any], key: str, otherwise: int = 0) -> int:
    value = given.get(key)
    return otherwise if value is None else int(value)


def _listed(given: Mapping[str, Any], key: str) -> list[str]:
    return str(given.get(key) or "").lower().split(", ")


def _letters(text: str, *, spaces: bool) -> str:
    return re.sub(r"[^a-z ]" if spaces else r"[^a-z]", "", text.lower())


def _parts(text: str, between: str) -> list[str]:
    return [part for part in text.split(between) if part.strip()]


def _frequency(text: str, given: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    word = re.escape(str(given.get("keyword") or "").lower())
    return len(re.findall(rf"\b{word}\b", text.lower())) == _number(given, "N")


def _two_responses(text: str, given: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    parts = text.split("******")
    return len(parts) == 2 and parts[0].lower().strip() != parts[1].lower().strip()


def _quoted(text: str) -> bool:
    return text.strip().startswith('"') and text.strip().endswith('"')


RULES: dict[str, Rule] = {
    "Include Keywords": lambda t, g, _: all(word in t.lower() for word in _listed(g, "keywords")),
    "Keyword Frequency": _frequency,
    "Forbidden Words": lambda t, g, _: not any(word in t.lower() for word in _listed(g, "forbidden_words")),
    "Number Paragraphs": lambda t, g, _: len(_parts(t, "***")) == _number(g, "N"),
    "Number Words (at least)": lambda t, g, _: _words(t) >= _number(g, "N"),
    "Number Words (at most)": lambda t, g, _: _words(t) <= _number(g, "N"),
    "Number Words (range)": lambda t, g, _: _number(g, "N1") <= _words(t) <= _number(g, "N2", 999),
    "Number Sentences (at least)": lambda t, g, _: _sentences(t) >= _number(g, "N"),
    "Number Sentences (at most)": lambda t, g, _: _sentences(t) <= _number(g, "N"),
    "Number Sentences (range)": lambda t, g, _: _number(g, "N1") <= _sentences(t) <= _number(g, "N2", 999),
    "Postscript": lambda t, g, _: (
        _letters(str(g.get("postscript_marker") or ""), spaces=False) in _letters(t, spaces=False)
    ),
    "Number Placeholder": lambda t, g, _: len(re.findall(r"\[[^\]]+\]", t)) >= _number(g, "N"),
    "Number Bullets": lambda t, g, _: len(re.findall(r"(?:^|\n)\s*\*\s+", t)) == _number(g, "N"),
    "Title": lambda t, g, _: re.search(r"<<[^>]+>>", t) is not None,
    "Minimum Number Highlighted Section": lambda t, g, _: len(re.findall(r"\*[^*]+\*", t)) >= _number(g, "N"),
    "Multiple Sections": lambda t, g, _: (
        len(_parts(t, str(g.get("section_splitter") or "\n\n"))) == _number(g, "N")
    ),
    "Repeat Prompt": lambda t, _, row: (
        t.strip().lower().startswith(str(row.get("question") or "").strip().lower())
    ),
    "Two Responses": _two_responses,
    "All Uppercase": lambda t, _, __: t.isupper(),
    "All Lowercase": lambda t, _, __: t.islower(),
    "All-capital Words (at least)": lambda t, g, _: _capitals(t) >= _number(g, "N"),
    "All-capital Words (at most)": lambda t, g, _: _capitals(t) <= _number(g, "N"),
    "All-capital Words (range)": lambda t, g, _: _number(g, "N1") <= _capitals(t) <= _number(g, "N2", 999),
    "Start Checker": lambda t, g, _: _letters(t, spaces=True).startswith(
        _letters(str(g.get("start_phrase") or ""), spaces=True)
    ),
    "End Checker": lambda t, g, _: _letters(t, spaces=True).endswith(
        _letters(str(g.get("end_phrase") or ""), spaces=True)
    ),
    "Quotation": lambda t, _, __: _quoted(t),
    "No Commas": lambda t, _, __: "," not in t,
}
"""By the name that a row gives to its rule."""
