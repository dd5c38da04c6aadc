"""What a reader yields: records, every row that gave none, with the reason, and what stood there twice.

A row is what gives one record: a line, or all lines about one recording. Invariant: it is in the records, or among the
skipped ones, or merged with one that says the same. A row that cannot be used never stops the reading of the others;
only a file that is not of the format at all does, or a name that could be either of two recordings
(:class:`DataError`).

Public tables mark one sound twice, or once as a whole and once in pieces. So marks of one label that overlap are merged
into one event: no sound is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from echo_agent.finetune.data.records import Event, Record
from echo_agent.terminal import printable

END = 0.05
"""Seconds by which an event may end after its recording; the same as for :class:`Record`."""
LONGEST_DETAIL = 300
"""Characters of what is particular to a row that are kept."""


@dataclass(frozen=True)
class Finding:
    """A row that gave no record, or what in it stood there twice."""

    where: str
    """File and line, or what else names it."""
    why: str
    """A few words behind a number, the same for every one of the kind: ``without audio``."""
    detail: str = ""
    """What is particular to this one."""


@dataclass(frozen=True)
class Sourced:
    """What a reader found."""

    records: tuple[Record, ...]
    """In the order of the source."""
    skipped: tuple[Finding, ...] = ()
    """Rows that gave no record."""
    merged: tuple[Finding, ...] = ()
    """Rows and marks that say what another one says, and count once with it."""

    def report(self) -> str:
        """One paragraph: how many there are, how many were skipped or merged, and why, with the first of each kind."""
        total, left, twice = len(self.records), len(self.skipped), len(self.merged)
        text = f"{total} record{'' if total == 1 else 's'}"
        if left:
            text += f"; {left} row{'' if left == 1 else 's'} skipped: {_kinds(self.skipped)}"
        else:
            text += "; nothing skipped"
        if twice:
            text += f"; {twice} counted once with what says the same: {_kinds(self.merged)}"
        return f"{text}."


def _kinds(findings: Sequence[Finding]) -> str:
    """Findings by kind, the most frequent first, each with its first."""
    kinds: dict[str, list[Finding]] = {}
    for one in findings:
        kinds.setdefault(one.why, []).append(one)
    return "; ".join(
        f"{len(some)} {why} (first: {printable(some[0].where + ': ' * bool(some[0].detail) + some[0].detail)})"
        for why, some in sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    )


class RowError(Exception):
    """A row gives no record; ``why`` and ``detail`` are those of :class:`Finding`."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(f"{why}: {detail}" if detail else why)
        self.why = why
        short = detail if len(detail) <= LONGEST_DETAIL else f"{detail[:LONGEST_DETAIL]} ..."
        self.detail = short.encode(errors="replace").decode()  # JSON can name half a character


class Gathering:
    """Records, skipped and merged rows while a source is read."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._skipped: list[Finding] = []
        self._merged: list[Finding] = []
        self._where = ""

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """Where a row is made into a record; a :class:`RowError` inside skips it."""
        self._where = where
        try:
            yield
        except RowError as error:
            self._skipped.append(Finding(where, error.why, error.detail))

    def add(self, record: Record) -> None:
        """Take the record of this row, its marks merged; raises RowError where another one has its id."""
        events, doubled = merge_marks(record.events)
        if doubled:
            record = record.model_copy(update={"events": tuple(events)})
        known = self._records.get(record.id)
        if known == record:
            self.merge("with the same as another row", record.id)
            return
        if known is not None:
            raise RowError("with an id that another row has", record.id)
        self._records[record.id] = record
        for event in doubled:
            self.merge(
                "of a sound that is marked at that time already",
                f"{event.label!r} from {event.onset:g} to {event.offset:g} s",
            )

    def merge(self, why: str, detail: str = "") -> None:
        """Note that something in this row counts once with what says the same."""
        self._merged.append(Finding(self._where, why, detail))

    def done(self) -> Sourced:
        """What was gathered."""
        return Sourced(tuple(self._records.values()), tuple(self._skipped), tuple(self._merged))


def merge_marks(events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
    """Events of which none marks what another marks, in order of onset, and the marks that went into another.

    Equal events are one. So are plain sounds of one label that overlap, unless it is known that they come from
    different clips; marks that only touch are two sounds.
    """
    kept: list[Event] = []
    doubled: list[Event] = []
    last: dict[tuple[object, ...], int] = {}
    for event in sorted(events, key=lambda event: (event.onset, -event.offset)):
        key = _sound(event)
        place = last.get(key)
        if place is None or event.onset >= kept[place].offset:
            last[key] = len(kept)
            kept.append(event)
            continue
        kept[place] = replace(kept[place], offset=max(kept[place].offset, event.offset))
        doubled.append(event)
    return sorted(kept, key=lambda event: (event.onset, event.offset)), doubled


def _sound(event: Event) -> tuple[object, ...]:
    """What two marks must have in common to be of the same sound, where they overlap."""
    plain = event.kind == "sound" and event.hits == 1 and not event.content and not event.pitches
    if plain:
        return (event.label, event.sources, event.voice, event.gender)
    return (event,)


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
