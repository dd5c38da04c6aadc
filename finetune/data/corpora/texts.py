"""Files of text: tables with tabs, JSON and JSON lines, and labels as they are written in them.

Any Unicode encoding, byte order marks and carriage returns are taken in stride. What is no Unicode text, is empty or
has other columns is not of the format, and is refused with what was expected.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_agent import text as text_files
from echo_agent.disk import write_whole
from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.sourced import RowError
from echo_agent.paths import composed


def read_text(path: Path, what: str) -> str:
    """All of a file that should hold ``what``.

    Raises:
        DataError: It cannot be read, is no Unicode text, or has nothing in it.
    """
    text = text_files.read_text(path, what)
    if not text.strip():
        raise DataError(f"{path} is empty; expected {what}")
    return text


def read_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1; raises DataError as :func:`read_text`."""
    for number, line in enumerate(read_text(path, what).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def read_table(path: Path, what: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """A table with tabs: its header, and its rows with their line numbers.

    Rows are filled up with empty cells, since editors drop the tabs at the end of a line.

    Raises:
        DataError: As :func:`read_text`.
    """
    (_, first), *rest = read_lines(path, what)
    header = [name.strip() for name in first.split("\t")]
    rows = [(number, [cell.strip() for cell in line.split("\t")]) for number, line in rest]
    return header, [(number, cells + [""] * (len(header) - len(cells))) for number, cells in rows]


def need_columns(path: Path, header: Sequence[str], columns: Sequence[str], what: str) -> list[int]:
    """Places of the columns in a table; raises DataError where some are missing."""
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f"{path} is not {what}: no column {', '.join(missing)} in its first line; "
            f"expected {', '.join(columns)} with tabs between, found {', '.join(header)[:200]}"
        )
    return [header.index(name) for name in columns]


@dataclass(frozen=True)
class Mark:
    """One row of a table of labels, as it stands there."""

    line: int
    onset: str
    offset: str
    label: str


def marks(rows: Iterable[tuple[int, list[str]]], places: Sequence[int]) -> dict[str, list[Mark]]:
    """Rows by the recording that they are about, both in order; ``places`` are those of name, times and label.

    Names that differ only in how accents are written (NFC or NFD) are one.
    """
    found: dict[str, list[Mark]] = {}
    for line, cells in rows:
        name, onset, offset, label = (cells[place] for place in places)
        found.setdefault(composed(name), []).append(Mark(line, onset, offset, label))
    return found


def seconds(text: str) -> float:
    """A time in a table; raises RowError where it is no number."""
    try:
        return float(text)
    except ValueError:
        raise RowError("with a time that is no number", repr(text)) from None


def json_object(text: str) -> dict[str, Any]:
    """The object that a line holds; raises RowError where it holds none."""
    try:
        data = text_files.parse_json(text)
    except ValueError as error:
        raise RowError("that are no JSON object", str(error)) from None
    if not isinstance(data, dict):
        raise RowError("that are no JSON object", f"a {type(data).__name__}")
    return data


def json_lines(path: Path, what: str, key: str) -> list[tuple[int, str]]:
    """Lines of a file of JSON objects, the first of which must have ``key`` for the file to be ``what``.

    Raises:
        DataError: As :func:`read_text`, or none of its lines is an object with that key.
    """
    lines = list(read_lines(path, what))
    for _, line in lines:
        try:
            if key in json_object(line):
                return lines
        except RowError:
            continue
    raise DataError(f'{path} is not {what}: no line of it is a JSON object with "{key}"')


def finite(value: object) -> float | None:
    """A value of JSON as a finite number, or None: it knows ``true``, ``NaN`` and integers of any length too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def numbers(value: object) -> list[float]:
    """A list of finite numbers; raises RowError where it is something else."""
    found = [finite(item) for item in value] if isinstance(value, list) else [None]
    known = [item for item in found if item is not None]
    if len(known) < len(found):
        raise RowError("with a list that is not one of numbers", repr(value)[:80])
    return known


def speakable(label: str) -> str:
    """A label as it is said: ``Dog_bark`` is "dog bark"."""
    return re.sub(r"[\s_]+", " ", label).strip().lower()


def near(audio: str, folder: Path) -> str:
    """A path as a file in ``folder`` should name it: relative where it lies below, with forward slashes."""
    if not os.path.isabs(audio):
        return Path(audio).as_posix()
    path, home = Path(audio), Path(os.path.abspath(folder))
    return (path.relative_to(home) if path.is_relative_to(home) else path).as_posix()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; raises DataError where it cannot be written."""
    write_whole(path, text.encode())
