"""What a reader yields: records, and every row that gave none, with the reason.

A row is what gives one record: a line, or all lines about one recording. Invariant: it is either in the records or
among the skipped ones. A row that cannot be used never stops the reading of the others; only a file that is not of the
format at all does (:class:`DataError`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from echo_agent.finetune.data.records import Event, Record

END = 0.05
"""Seconds by which an event may end after its recording; the same as for :class:`Record`."""


@dataclass(frozen=True)
class Skipped:
    """A row that gave no record."""

    where: str
    """File and line, or what else names it."""
    why: str
    """A few words behind a number, the same for every row of the kind: ``without audio``."""
    detail: str = ""
    """What is particular to this row."""


@dataclass(frozen=True)
class Sourced:
    """What a reader found."""

    records: tuple[Record, ...]
    """In the order of the source."""
    skipped: tuple[Skipped, ...] = ()

    def report(self) -> str:
        """One paragraph: how many there are, how many were skipped, and why, with the first of each kind."""
        total, left = len(self.records), len(self.skipped)
        text = f"{total} record{'' if total == 1 else 's'}"
        if not left:
            return f"{text}; nothing skipped."
        kinds: dict[str, list[Skipped]] = {}
        for row in self.skipped:
            kinds.setdefault(row.why, []).append(row)
        reasons = "; ".join(
            f"{len(rows)} {why} (first: {rows[0].where}{': ' if rows[0].detail else ''}{rows[0].detail})"
            for why, rows in sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
        )
        return f"{text}; {left} row{'' if left == 1 else 's'} skipped: {reasons}."


class RowError(Exception):
    """A row gives no record; ``why`` and ``detail`` are those of :class:`Skipped`."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(f"{why}: {detail}" if detail else why)
        self.why = why
        self.detail = detail.encode(errors="replace").decode()  # JSON can name half a character


class Gathering:
    """Records and skipped rows while a source is read."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._skipped: list[Skipped] = []

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """Where a row is made into a record; a :class:`RowError` inside skips it."""
        try:
            yield
        except RowError as error:
            self._skipped.append(Skipped(where, error.why, error.detail))

    def add(self, record: Record) -> None:
        """Take a record; raises RowError where its id is taken."""
        if record.id in self._records:
            raise RowError("with an id that another row has", record.id)
        self._records[record.id] = record

    def done(self) -> Sourced:
        """What was gathered."""
        return Sourced(tuple(self._records.values()), tuple(self._skipped))


def make_record(**fields: Any) -> Record:
    """A record of these fields; raises RowError where they do not make one."""
    try:
        return Record(**fields)
    except ValidationError as error:
        raise RowError("with values that do not fit", reasons(error)) from None


def reasons(error: ValidationError) -> str:
    """The first problems of a pydantic error in one line."""
    found = []
    for problem in error.errors(include_url=False)[:3]:
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        found.append(f"{place}: {message}" if place else message)
    return "; ".join(found)


def make_event(**fields: Any) -> Event:
    """An event of these fields; raises RowError where they do not make one, or it ends before it begins."""
    try:
        event = Event(**fields)
    except ValidationError as error:
        raise RowError("with an event that is none", reasons(error)) from None
    if not event.onset < event.offset:
        raise RowError(
            "with an event that ends before it begins",
            f"{event.label!r} from {event.onset:g} to {event.offset:g} s",
        )
    return event


def check_end(events: Iterable[Event], duration: float) -> None:
    """Raise RowError where an event goes on after the recording is over."""
    for event in events:
        if event.offset > duration + END:
            raise RowError(
                "with an event beyond the end of the audio",
                f"{event.label!r} ends at {event.offset:g} s, the recording at {duration:g} s",
            )
