"""Questions in a file: one JSON object per line, with what is needed to ask them and to score the answers.

    {"id": "k1", "audio": "clips/kitchen.flac", "duration": 61.2, "question": "What rings twice?",
     "choices": ["a phone", "a bell"], "answer": "a bell", "gold_spans": [[12.4, 15.0]], "family": "order",
     "difficulty": "detail"}

A question with ``choices`` has one ``answer``, which is one of them; an open question has no ``choices`` and either
``answers``, all of which count, or one ``answer``. Audio paths are relative to the file. Other keys are left alone, so
that a file can carry what made it. Times are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from echo_agent.answers import check_question, match_choice
from echo_agent.errors import DataError, QuestionError

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

SHOWN = 10
"""Most bad rows that one error lists."""


class Row(BaseModel):
    """One question about one recording."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    id: Annotated[str, Field(min_length=1)]
    """Name of the question, unique in its file."""
    audio: Annotated[str, Field(min_length=1)]
    """Path of the recording; absolute once the row has been read from a file."""
    duration: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Length of the recording, for information."""
    question: str
    choices: tuple[str, ...] | None = None
    """What the answer is chosen from; None for an open question."""
    answer: str | None = None
    """The right choice, or the one right answer of an open question."""
    answers: tuple[str, ...] | None = None
    """The right answers of an open question."""
    gold_spans: tuple[tuple[Seconds, Seconds], ...] = ()
    """Where the answer can be heard."""
    family: str = ""
    """Kind of question; scores are reported for each."""
    difficulty: str = ""
    """How much has to be heard; scores are reported for each."""
    line: Annotated[int, Field(exclude=True)] = 0
    """Line of the file, from 1."""

    @model_validator(mode="after")
    def _answerable(self) -> Row:
        try:
            check_question(self.question, self.choices)
        except QuestionError as error:
            raise ValueError(str(error)) from None
        if self.choices is not None:
            if self.answers is not None or self.answer is None:
                raise ValueError("a question with choices has one `answer` and no `answers`")
            if match_choice(self.answer, self.choices) is None:
                raise ValueError(f"the answer {self.answer!r} is none of the choices {list(self.choices)}")
        elif not any(text.strip() for text in self.right):
            raise ValueError("an open question needs `answers`, a list of texts, or one `answer`")
        for start, end in self.gold_spans:
            if start >= end:
                raise ValueError(f"gold span {start}, {end} ends before it begins")
        return self

    @property
    def right(self) -> tuple[str, ...]:
        """All answers that count."""
        return (*(self.answers or ()), *([self.answer] if self.answer is not None else ()))


def read_rows(path: str | Path) -> list[Row]:
    """Read all questions of a file, with the paths of their recordings made absolute.

    Raises:
        DataError: The file cannot be read, or holds bad rows; each is named with its line.
    """
    path = Path(path)
    rows: dict[str, Row] = {}
    bad: list[str] = []
    for number, text in _lines(path):
        try:
            row = _parse(text, number, path.parent)
            if row.id in rows:
                raise ValueError(f"the id {row.id!r} is already that of line {rows[row.id].line}")
            rows[row.id] = row
        except ValueError as error:
            bad.append(f"{path}:{number}: {error}")
    if bad:
        more = [f"and {len(bad) - SHOWN} more bad rows"] if len(bad) > SHOWN else []
        raise DataError("\n".join(bad[:SHOWN] + more))
    if not rows:
        raise DataError(f"{path}: no questions in it: one JSON object per line is expected")
    return list(rows.values())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"cannot read questions from {path}: {reason}") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _parse(text: str, number: int, folder: Path) -> Row:
    """Read one row; raises ValueError with a message of one line."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("a JSON object is expected")
    try:
        row = Row.model_validate(data | {"line": number})
    except ValidationError as error:
        raise ValueError("; ".join(_reason(problem) for problem in error.errors()[:3])) from None
    try:
        audio = (folder / row.audio).resolve()
        found = audio.is_file()
    except (OSError, ValueError) as error:
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
