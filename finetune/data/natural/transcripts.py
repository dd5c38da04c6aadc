"""Speech as Whisper writes it down: numbers in digits, money with its sign, some of it without an end.

Talks are written as they are said ("half past five", "oh one seven four two", "forty-two pounds"). What ears bring into
a context is what Whisper makes of it ("01742", "£42"), and a policy that only ever read the one is lost in the other.
One sentence of a recording is always written in the same way. Words are left as they are spelt: a policy that is taught
the right spelling of a misspelt name learns to change names.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from echo_agent.finetune.data.natural.spoken import DAYS, MONTHS, ONES, rank, short_rank, words
from echo_agent.finetune.data.natural.talk import SENTENCE, Line, Talk, grammar

DIGITS = {name: str(number) for number, name in enumerate(ONES[:10])} | {"oh": "0"}
_SMALL = {words(number): number for number in range(100)}
_RANKS = {rank(number): number for number in range(1, 32)}
_SIGNS = {"pound": "£", "dollar": "$", "euro": "€"}
_NAME = "|".join(sorted((*_SMALL, "hundred", "thousand", "and", "oh", "double"), key=len, reverse=True))
_RUN = re.compile(rf"(?<![\w-])(?:(?:{_NAME})(?![\w-])[ ,]*)+", re.IGNORECASE)
_RANK = re.compile(rf"(?<![\w-])({'|'.join(sorted(_RANKS, key=len, reverse=True))})(?![\w-])", re.IGNORECASE)
_MONEY = re.compile(r"(\d[\d,]*) (pound|dollar|euro)s?(?: (?:and )?(\d\d)(?: pence| cents)?)?(?![\w-])")
_MONTH = re.compile("|".join(MONTHS))


class Transcript:
    """A talk as it was heard: what Whisper wrote for each of its sentences."""

    def __init__(self, talk: Talk, rng: np.random.Generator) -> None:
        """Write the talk down: most have their numbers in digits, some no full stops."""
        self._written: dict[str, str] = {}
        digits, flowing = rng.random() < 0.7, rng.random() < 0.3
        for line in talk.lines:
            for sentence in SENTENCE.split(line.text):
                text = in_digits(sentence) if digits else sentence
                self._written[sentence] = run_on(text) if flowing else text
        self.lines = tuple(
            Line(line.speaker, " ".join(map(self.heard, SENTENCE.split(line.text)))) for line in talk.lines
        )

    def heard(self, sentence: str) -> str:
        """What stands there for a sentence that was said."""
        return self._written[sentence]


def in_digits(text: str) -> str:
    """A text with its numbers from ten on as they are written down: "at 5:30", "the 23rd of May", "£42", "555-0194"."""
    text = _RUN.sub(_run, text)
    if _MONTH.search(text):
        text = _RANK.sub(lambda found: short_rank(_RANKS[found[1].lower()]), text)
    return _MONEY.sub(_money, text)


def _run(found: re.Match[str]) -> str:
    """Numbers in a row: digits of a telephone number, hours and minutes, or one number."""
    run = found[0].rstrip(" ,")
    tail = found[0][len(run) :]
    if run.lower().endswith(" and"):
        run, tail = run[:-4], f" and{tail}"
    names = run.lower().replace(",", " ,").split()
    if not names or names[0] == "and" or names in (["oh"], ["double"], ["hundred"], ["thousand"]):
        return found[0]
    single = [name for name in names if name in DIGITS]
    is_hour = len(names) == 3 and names[1] == "oh" and names[0] != "oh"
    if len(single) >= 3 and not is_hour and all(name in DIGITS or name in (",", "double") for name in names):
        return _digits(names) + tail
    parts = [_number(part.split()) for part in " ".join(names).split(" , ")]
    if any(part is None for part in parts) or parts == names:
        return found[0]
    return ", ".join(part for part in parts if part is not None) + tail


def _digits(names: list[str]) -> str:
    """A telephone number, its groups joined."""
    groups, twice = [""], False
    for name in names:
        if name == ",":
            groups.append("")
        elif name == "double":
            twice = True
        else:
            groups[-1] += DIGITS[name] * (2 if twice else 1)
            twice = False
    return "-".join(filter(None, groups))


def _number(names: list[str]) -> str | None:
    """A number, or an hour with its minutes; None for what is neither."""
    if len(names) in (2, 3) and all(name in _SMALL or name == "oh" for name in names) and names[0] != "oh":
        first, last = _SMALL[names[0]], names[-1]
        minutes = _SMALL.get(last, 0)
        if len(names) == 3 and names[1] == "oh" and minutes < 10:
            return f"{first}:0{minutes}" if first < 25 else None
        if len(names) == 2 and first < 25 and 10 <= minutes < 60:
            return f"{first}:{minutes}"
        return f"{first} {minutes}" if len(names) == 2 and minutes >= 10 else None
    total, part = 0, 0
    for place, name in enumerate(names):
        if name in _SMALL:
            if place and names[place - 1] in _SMALL:
                return None
            part += _SMALL[name]
        elif name == "hundred" and part:
            part *= 100
        elif name == "thousand" and part:
            total, part = total + part * 1000, 0
        elif name != "and":
            return None
    total += part
    if total < 10:
        return " ".join(names)
    return f"{total:,}" if total >= 1000 else str(total)


def _money(found: re.Match[str]) -> str:
    cents = f".{found[3]}" if found[3] else ""
    return f"{_SIGNS[found[2]]}{found[1]}{cents}"


def run_on(sentence: str) -> str:
    """A sentence of a talk in which none ends: no full stop, no commas, and no capital but a name's or "I"."""
    words = re.sub(r"[,;:?!.]+(?= |$)", "", sentence).split()
    if words and words[0] not in _capitals() and not words[0].startswith(("I'", "I ")):
        words[0] = words[0][:1].lower() + words[0][1:]
    return " ".join(words)


@cache
def _capitals() -> frozenset[str]:
    """Words that keep their capital: names, titles, days and months."""
    lists = grammar()["fillings"]
    names = (str(name).partition("|")[0] for part in ("first", "surname", "title") for name in lists[part])
    return frozenset(("I", *DAYS, *MONTHS, *names))
