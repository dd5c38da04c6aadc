"""Wordings of questions: many per kind, some kept for tests; filling them in, and reading them back.

Reading back is what makes a check independent of the code that made a question: from the text alone come its kind and
its slots, and from these and the event list the answer is found again
(:mod:`echo_agent.finetune.data.questions.solver`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np

from echo_agent.errors import DataError

WordingSplit = Literal["train", "test"]

AFTER, BEFORE = (
    ("right after", "just after", "directly after"),
    ("right before", "just before", "directly before"),
)
ANYWHERE = "in the recording"
"""Where the only phrase of a recording is."""
ORDINALS = ("first", "second", "third", "fourth")


@cache
def wordings() -> dict[str, dict[str, list[str]]]:
    """All wordings: kind, then ``train`` or ``test``."""
    import yaml

    text = files("echo_agent.finetune.data.questions").joinpath("phrasings.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def word(
    kind: str, slots: Mapping[str, str], split: WordingSplit, rng: np.random.Generator
) -> tuple[str, str]:
    """A wording with its slots filled in, and its name (``order/next/train/2``)."""
    lines = wordings()[kind][split]
    number = int(rng.integers(len(lines)))
    text = lines[number].format(**slots)
    return text[0].upper() + text[1:], f"{kind}/{split}/{number}"


def place(rng: np.random.Generator, *, after: str = "", before: str = "") -> str:
    """What stands in the slot ``where``."""
    if not (after or before):
        return ANYWHERE
    lines = AFTER if after else BEFORE
    return f"{lines[int(rng.integers(len(lines)))]} the {after or before}"


def read(text: str) -> tuple[str, dict[str, str]]:
    """Kind and slots of a question's text; ``where`` becomes ``after`` or ``before`` with a sound, or neither.

    Raises:
        DataError: It is none of the wordings, or could be two of them.
    """
    found: list[tuple[str, dict[str, str]]] = []
    for kind, pattern in _patterns():
        match = pattern.fullmatch(text)
        if match:
            slots = {key: value for key, value in match.groupdict().items() if value is not None}
            if (kind, slots) not in found:
                found.append((kind, slots))
    if len(found) != 1:
        raise DataError(f"{text!r} reads as {len(found)} kinds of questions, not as one")
    return found[0]


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    where = (
        rf"(?:(?:{'|'.join(AFTER)}) the (?P<after>.+?)|(?:{'|'.join(BEFORE)}) the (?P<before>.+?)|{ANYWHERE})"
    )
    inner = {"where": where, "n": f"(?P<n>{'|'.join(ORDINALS)}|last)", "t": r"(?P<t>\d+)"}
    patterns = []
    for kind, splits in wordings().items():
        for line in (line for lines in splits.values() for line in lines):
            parts = re.split(r"\{(\w+)\}", line)
            text = "".join(
                inner.get(part, f"(?P<{part}>.+?)") if i % 2 else re.escape(part)
                for i, part in enumerate(parts)
            )
            # A wording may begin with a slot: the label stands there with a capital.
            patterns.append((kind, re.compile(text, re.IGNORECASE)))
    return patterns
