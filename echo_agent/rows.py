"""Questions in a file: one JSON object per line (or a JSON list), with what is needed to ask and to score them.

    {"id": "k1", "audio": "clips/kitchen.flac", "duration": 61.2, "question": "What rings twice?",
     "choices": ["a phone", "a bell"], "answer": "a bell", "gold_spans": [[12.4, 15.0]], "family": "order",
     "difficulty": "detail"}

A question with ``choices`` has one ``answer``, which is one of them; an open question has no ``choices`` and either
``answers``, all of which count, or one ``answer``. Audio paths are relative to the file. A key whose value is null
counts as not given; other keys are left alone, so that a file can carry what made it. Times are seconds. The fields are
a table in docs/python.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from echo_agent.answers import check_question, match_choice, normalise
from echo_agent.errors import DataError, QuestionError
from echo_agent.paths import as_on_disk
from echo_agent.text import parse_json, read_text

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

LENGTHS = (
    (10.0, "up to 10 s"),
    (30.0, "10 to 30 s"),
    (60.0, "30 to 60 s"),
    (120.0, "1 to 2 min"),
    (600.0, "2 to 10 min"),
    (3600.0, "10 min to 1 h"),
)
"""Lengths of recordings by which scores are reported: the longest of each group in seconds, and its name."""
SHOWN = 10
"""Most bad rows that one error lists."""


class Question(BaseModel):
    """One question about one recording, without what is right."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", coerce_numbers_to_str=True, serialize_by_alias=True
    )

    id: Annotated[str, Field(min_length=1)]
    """Name of the question, unique in its file."""
    audio: Annotated[str, Field(min_length=1)]
    """Path of the recording; absolute once the row has been read from a file."""
    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Length of the recording, for information."""
    question: str
    choices: tuple[str, ...] | None = None
    """What the answer is chosen from; None for an open question."""
    gold_spans: tuple[tuple[Seconds, Seconds], ...] = ()
    """Where the answer can be heard."""
    category: str = Field(
        default="", validation_alias=AliasChoices("category", "family"), serialization_alias="family"
    )
    """Kind of question; scores are reported for each. Files call it ``family``; ``category`` is read too."""
    difficulty: str = ""
    """How much has to be heard; scores are reported for each."""
    line: Annotated[int, Field(exclude=True)] = 0
    """Line of the file, from 1."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        try:
            check_question(self.question, self.choices)
        except QuestionError as error:
            raise ValueError(str(error)) from None
        for start, end in self.gold_spans:
            if start >= end:
                raise ValueError(f"gold span {start}, {end} ends before it begins")
        return self

    @property
    def groups(self) -> dict[str, str]:
        """By what scores are reported, and to which group of each this question belongs; empty where to none."""
        return {"category": self.category, "difficulty": self.difficulty, "duration": _length(self.duration)}

    def is_right(self, answer: str | None) -> bool:
        """Whether an answer is right; never where it is not known what is."""
        return False


class Row(Question):
    """One question with its right answers."""

    answer: str | None = None
    """The right choice, or the one right answer of an open question."""
    answers: tuple[str, ...] | None = None
    """The right answers of an open question."""

    @model_validator(mode="after")
    def _answerable(self) -> Self:
        if self.choices is not None:
            if self.answers is not None or self.answer is None:
                raise ValueError("a question with choices has one `answer` and no `answers`")
            if match_choice(self.answer, self.choices) is None:
                raise ValueError(
                    f"the answer {self.answer!r} is none of the choices {list(self.choices)}: write the choice itself"
                )
        elif not any(text.strip() for text in self.right):
            raise ValueError("an open question needs `answers`, a list of texts, or one `answer`")
        return self

    @property
    def family(self) -> str:
        """The category, by the name that it has in files."""
        return self.category

    @property
    def right(self) -> tuple[str, ...]:
        """All answers that count."""
        return (*(self.answers or ()), *([self.answer] if self.answer is not None else ()))

    def is_right(self, answer: str | None) -> bool:
        """Whether an answer is the gold choice, or equal to a right answer after normalisation."""
        if answer is None:
            return False
        if self.choices is not None:
            found = match_choice(answer, self.choices)
            return found is not None and found == match_choice(self.answer, self.choices)
        return normalise(answer) in {normalise(text) for text in self.right}


def _length(seconds: float | None) -> str:
    """How long a recording is, in words by which recordings are grouped."""
    if seconds is None:
        return ""
    for bound, name in LENGTHS:
        if seconds <= bound:
            return name
    return "over 1 h"


def read_rows(path: str | Path) -> list[Row]:
    """Read all questions of a file, with the paths of their recordings made absolute.

    Raises:
        DataError: The file cannot be read, or holds bad rows; each is named with its line.
    """
    path = Path(path)
    rows: dict[str, Row] = {}
    bad: list[str] = []
    for number, text in _entries(path):
        try:
            row = _parse(text, number, path.parent)
            if row.id in rows:
                raise ValueError(f"the id {row.id!r} is already that of line {rows[row.id].line}")
            rows[row.id] = row
        except ValueError as error:
            bad.append(f"{path}:{number}: {error}")
    if bad:
        more = [f"and {len(bad) - SHOWN} more bad rows"] if len(bad) > SHOWN else []
        raise DataError(*bad[:SHOWN], *more)
    if not rows:
        raise DataError(f"{path}: no questions in it: one JSON object per line is expected")
    return list(rows.values())


def _entries(path: Path) -> Iterator[tuple[int, str]]:
    """The JSON texts of a file's rows with their lines from 1; the entries of a JSON list are counted.

    Raises:
        DataError: The file cannot be read, is no Unicode text, or is a table.
    """
    text = read_text(path, "questions")
    if re.match(r"\s*\[\s*\{", text):
        yield from _listed(path, text)
        return
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if lines and re.match(r'"?\w+"?[,;\t]', lines[0][1]):
        raise DataError(
            f"{path} is a table: questions are one JSON object per line, such as "
            '{"id": "1", "audio": "a.wav", "question": "Is a bell heard?", "choices": ["yes", "no"], "answer": "no"}'
        )
    yield from lines


def _listed(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """The entries of a JSON list; raises DataError where it is none."""
    try:
        data = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path} begins like a JSON list and is none: {error}") from None
    for number, value in enumerate(data if isinstance(data, list) else (), start=1):
        yield number, json.dumps(value)


def _parse(text: str, number: int, folder: Path) -> Row:
    """Read one row; raises ValueError with a message of one line."""
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("a JSON object is expected")
    given = {key: value for key, value in data.items() if value is not None}
    try:
        row = Row.model_validate(given | {"line": number})
    except ValidationError as error:
        raise ValueError("; ".join(_reason(problem) for problem in error.errors()[:3])) from None
    try:
        audio = as_on_disk(folder / row.audio).resolve()
        found = audio.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise ValueError(f"audio: {error}") from None
    if not found:
        raise ValueError(f"audio: no such file: {audio}")
    return row.model_copy(update={"audio": str(audio)})


def _reason(problem: object) -> str:
    """One problem of a pydantic ValidationError in a few words."""
    assert isinstance(problem, dict)
    place = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
