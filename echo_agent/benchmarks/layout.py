"""Reading a benchmark's folder: what can be asked, and what is wrong with every other row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from echo_agent.answers import normalise
from echo_agent.benchmarks.item import Item
from echo_agent.errors import DataError
from echo_agent.paths import as_on_disk
from echo_agent.rows import Question
from echo_agent.text import parse_json, read_text

SHOWN = 10
"""Most bad rows that one error lists."""
TWICE = "choices that are empty or there twice are asked once"
EXTENSIONS = (".wav", ".flac", ".mp3", ".m4a", ".opus", ".ogg")
"""Of recordings that are looked for by their name alone."""


@dataclass(frozen=True)
class Fault:
    """A row that cannot be asked."""

    file: str
    line: int
    """Line of the file, or place in its list or table, from 1."""
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass
class Layout:
    """What was found in a benchmark's folder."""

    items: list[Question] = field(default_factory=list)
    """What can be asked, in the order of the file."""
    faults: list[Fault] = field(default_factory=list)
    """What cannot, row by row."""
    mended: list[Fault] = field(default_factory=list)
    """What is asked in another form than the file has it, row by row."""

    @property
    def rows(self) -> int:
        """Rows of the file."""
        return len(self.items) + len(self.faults)

    @property
    def unscored(self) -> list[Question]:
        """Rows whose answers the benchmark withholds: they are asked, and not scored."""
        return [item for item in self.items if isinstance(item, Item) and not item.scored]


def first_file(folder: Path, names: Iterable[str], what: str) -> Path:
    """The first of some files that is there; ``*`` stands for anything.

    Raises:
        DataError: None is there, or a pattern fits several.
    """
    names = list(names)
    if not folder.is_dir():
        raise DataError(f"--data {folder}: no such folder; it is to hold {what}, with {names[0]}")
    for name in names:
        found = sorted(folder.glob(name))
        if len(found) > 1:
            raise DataError(
                f"{folder} holds several files {name}: {', '.join(path.name for path in found[:5])}; "
                "leave the one that is meant"
            )
        if found:
            return found[0]
    raise DataError(f"{folder} is not laid out as {what}: it holds no {' and no '.join(names)}")


def read_layout(path: Path, make: Callable[[Mapping[str, Any], int], Item], what: str) -> Layout:
    """Read every row of a file.

    Args:
        path: A JSON list, a file with one JSON object per line, or a Parquet table.
        make: Makes an item of a row and its place; raises ValueError, saying what is wrong with the row.
        what: Name of the benchmark.

    Raises:
        DataError: The file cannot be read, or not one of its rows can be asked; the first are named.
    """
    layout, seen = Layout(), dict[str, int]()
    for number, row in _rows(path):
        try:
            if isinstance(row, str):
                raise ValueError(row)
            item = make(row, number)
            if item.id in seen:
                raise ValueError(f"the id {item.id!r} is already that of row {seen[item.id]}")
        except ValidationError as error:
            layout.faults.append(Fault(str(path), number, _reason(error)))
        except ValueError as error:
            layout.faults.append(Fault(str(path), number, str(error)))
        else:
            seen[item.id] = number
            layout.items.append(item)
            if item.listed:
                layout.mended.append(Fault(str(path), number, TWICE))
    if not layout.items:
        if not layout.faults:
            raise DataError(f"{path}: no rows in it")
        more = len(layout.faults) - SHOWN
        raise DataError(
            f"{path}: not one of its {len(layout.faults)} rows can be asked as a row of {what}",
            *map(str, layout.faults[:SHOWN]),
            *([f"and {more} more bad rows"] if more > 0 else []),
        )
    return layout


def text_of(row: Mapping[str, Any], key: str) -> str:
    """A text of a row.

    Raises:
        ValueError: It has no such key: the layout is another than the one that is read here.
    """
    if key not in row:
        raise ValueError(f"it has no {key!r}; its keys are {', '.join(row)}")
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is {value!r}, and should be a text")
    return value


def id_of(row: Mapping[str, Any], key: str = "id") -> str:
    """The id of a row, a text or a number; raises ValueError where there is none."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"it has no {key!r}; its keys are {', '.join(row)}")
    return str(value)


def known(row: Mapping[str, Any], key: str) -> str:
    """A text of a row that only groups it; empty where there is none."""
    value = row.get(key)
    return value if isinstance(value, str) else ""


def common_of(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """What MMAU, MMAR and MMSU call alike, as fields of an item; raises ValueError where id or question are missing."""
    return {
        "id": id_of(row),
        "question": text_of(row, "question"),
        "category": known(row, "category"),
        "sub_category": known(row, "sub-category"),
        "source": row,
        "line": number,
    }


def choices_of(row: Mapping[str, Any], key: str = "choices") -> dict[str, Any]:
    """The choices of a row, as fields of an item; raises ValueError where they are none."""
    if key not in row:
        raise ValueError(f"it has no {key!r}; its keys are {', '.join(row)}")
    value = row[key]
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        raise ValueError(f"{key!r} is {value!r}, and should be a list of texts")
    return distinct(value)


def distinct(listed: Iterable[str]) -> dict[str, Any]:
    """Choices as fields of an item: each once, and the list as it was where some were empty or there twice."""
    listed = tuple(listed)
    once = {normalise(choice): choice for choice in reversed(listed) if normalise(choice)}
    choices = tuple(reversed(once.values()))
    return {"choices": choices} | ({} if choices == listed else {"listed": listed})


def answer_of(row: Mapping[str, Any], key: str = "answer") -> str | None:
    """The right answer of a row; None where it is empty or missing, as where a benchmark withholds it."""
    value = row.get(key)
    return value if isinstance(value, str) and value.strip() else None


def recording(folder: Path, *places: str) -> str:
    """Absolute path of a row's recording: the first of some places, relative to ``folder``, where there is a file.

    Raises:
        ValueError: There is none.
    """
    for place in places:
        try:
            path = as_on_disk(folder / place).resolve()
            if path.is_file():
                return str(path)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise ValueError(f"audio: {error}") from None
    raise ValueError(f"audio: no such file: {folder / places[0]}")


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Rows of a file with their places from 1; a text says why a row is none."""
    if path.suffix == ".parquet":
        yield from _table(path)
        return
    text = read_text(path, "a benchmark")
    if text.lstrip().startswith("["):
        try:
            data: Any = parse_json(text)
        except ValueError as error:
            raise DataError(f"{path} begins like a JSON list and is none: {error}") from None
        yield from ((number, _object(value)) for number, value in enumerate(data, start=1))
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, _object(parse_json(line))
            except ValueError as error:
                yield number, f"not JSON: {error}"


def _object(value: object) -> Mapping[str, Any] | str:
    return value if isinstance(value, dict) else "a JSON object is expected"


def _table(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read a benchmark from {path}: {str(error).partition(chr(10))[0]}") from None
    yield from enumerate(rows, start=1)


def _reason(error: ValidationError) -> str:
    """What is wrong with a row, in one line."""
    return "; ".join(
        ": ".join(
            part
            for part in (".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, "))
            if part
        )
        for problem in error.errors(include_url=False, include_input=False)[:3]
    )


def jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def json_list(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """A JSON list."""
    return (json.dumps(list(rows), ensure_ascii=False, indent=2) + "\n").encode()
