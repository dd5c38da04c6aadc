"""A sound bank of one's own: a folder of labelled clips, or a table that names them, in the form of the built bank.

A folder has one subfolder per label. A table is a CSV file with the columns ``path`` (relative to the table) and
``label``, and, where wanted, ``kind``, ``voice``, ``gender``, ``source``, ``licence``, ``split`` and ``pitch``. Any
format that a recording can be opened in will do.

What is wrong with the table is refused before anything is done; what is wrong with a clip leaves out that clip, and the
report says why. The manifest is written last and in one step: a folder without one is no bank, whatever else is there.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from echo_agent.audio.files import FileStamp, sha256_of
from echo_agent.audio.recording import Recording
from echo_agent.errors import DataError, RecordingError
from echo_agent.finetune.data.bank.bank import BankWriter, refuse_bank
from echo_agent.finetune.data.bank.clips import MIN_SECONDS, SAMPLE_RATE, Wave, fingerprint, tidy, windows
from echo_agent.finetune.data.bank.manifest import KINDS, ClipRow, write_manifest
from echo_agent.finetune.data.bank.splits import Candidate, split_class
from echo_agent.finetune.data.bank.user_table import Entry, read_folder, read_table
from echo_agent.locks import locked_folder
from echo_agent.terminal import printable

PACKAGE = "own"
"""What the manifest calls the package of one's own clips."""
FEWEST_TO_SPLIT = 4
"""Sources of a label, or voices, from which on some are held out."""


@dataclass(frozen=True)
class BankReport:
    """What became of the clips that were given."""

    clips: int
    """How many files were taken."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that were left out, with the reason."""
    copies: tuple[tuple[str, str], ...] = ()
    """Files that sound exactly like an earlier one, with that one; left out."""
    empty_labels: tuple[str, ...] = ()
    """Labels that no clip is left of."""
    notes: tuple[str, ...] = ()
    """What else is worth knowing: how the clips were split, and what was not read."""

    def __str__(self) -> str:
        """One line per finding."""
        lines = [f"{self.clips} recordings taken, {len(self.skipped) + len(self.copies)} left out"]
        lines += [f"left out: {name}: {reason}" for name, reason in self.skipped]
        lines += [f"left out: {name}: it is a copy of {first}" for name, first in self.copies]
        lines += [f"no clip is left of the label {label!r}" for label in self.empty_labels]
        return "\n".join(printable(line) for line in (*lines, *self.notes))


@dataclass
class _Findings:
    """The report in the making."""

    skipped: list[tuple[str, str]] = field(default_factory=list)
    copies: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def bank_from_folder(given: Path, out: Path) -> tuple[list[ClipRow], BankReport]:
    """Build a sound bank from one's own clips.

    Args:
        given: A folder with a subfolder per label, or a CSV file.
        out: Folder to write the bank to; it must not hold one. What an unfinished run left there is written over.

    Returns:
        The rows of the manifest, and what was left out and why.

    Raises:
        DataError: There is nothing to read, the table is malformed, a label is no text to be spoken, no clip is left,
            or the bank cannot be written.
    """
    refuse_bank(out)
    if given.is_dir() and out.resolve().is_relative_to(given.resolve()):
        raise DataError(f"{out} lies within {given}, whose folders are labels: write the bank somewhere else")
    found = _Findings()
    read = read_folder if given.is_dir() else read_table
    entries = read(given, found.skipped, found.notes)
    with locked_folder(out):
        refuse_bank(out)  # which another process may have built meanwhile
        return _built(given, out, entries, found)


def _built(
    given: Path, out: Path, entries: list[Entry], found: _Findings
) -> tuple[list[ClipRow], BankReport]:
    """Build a bank in a folder that is kept from others."""
    writer = BankWriter(out)
    taken: list[tuple[Entry, int]] = []
    heard: dict[str, Entry] = {}
    for entry in entries:
        if _add(entry, writer, heard, found):
            taken.append((entry, len(writer.rows)))
    if not taken:
        reasons = (f"{name}: {reason}" for name, reason in found.skipped[:10])
        raise DataError(f"{given} holds no clip that can be used", *reasons)
    splits = _splits([entry for entry, _ in taken], found.notes)
    rows = _split_rows(writer.rows, taken, splits)
    write_manifest(rows, out, {"clips": writer.digest, "given": digest_of(entries)})
    left = {entry.label for entry, _ in taken}
    empty = tuple(sorted({entry.label for entry in entries} - left))
    return rows, BankReport(len(taken), tuple(found.skipped), tuple(found.copies), empty, tuple(found.notes))


def given_digest(given: Path) -> str:
    """A hash of what a bank would be made of: the clips' bytes and all that is said of them.

    Raises:
        DataError: As :func:`bank_from_folder`, where there is nothing to read.
    """
    return digest_of((read_folder if given.is_dir() else read_table)(given, [], []))


def digest_of(entries: Sequence[Entry]) -> str:
    """A hash of clips as they are given; a file that cannot be read counts as empty."""
    digest = hashlib.sha256()
    for entry in entries:
        said = {key: value for key, value in asdict(entry).items() if key != "path"}
        try:
            content = sha256_of(FileStamp.of(entry.path))
        except RecordingError:
            content = ""
        digest.update(json.dumps([said, content], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _add(entry: Entry, writer: BankWriter, heard: dict[str, Entry], found: _Findings) -> bool:
    """Write the clips of one file; False where it is left out, with the reason noted."""
    if not entry.path.is_file():  # the table's reader has said so
        return False
    try:
        recording = Recording.open(entry.path)
        wave: Wave = tidy(recording.read(rate=SAMPLE_RATE))
    except RecordingError as error:
        found.skipped.append((entry.name, str(error)))
        return False
    if not len(wave):
        found.skipped.append((entry.name, "it is silent"))
        return False
    if not windows(wave):
        found.skipped.append(
            (entry.name, f"it is shorter than {MIN_SECONDS} s without the silence around it")
        )
        return False
    mark = fingerprint(wave)
    if mark in heard:
        first = heard[mark]
        other = "" if first.label == entry.label else f" under another label, {first.label!r}"
        found.copies.append((entry.name, first.name + other))
        return False
    heard[mark] = entry
    row = ClipRow(
        path="", label=entry.label, kind=entry.kind, package=PACKAGE, voice=entry.voice, source=entry.source,
        licence=entry.licence, seconds=0.0, split="", pitch=entry.pitch, gender=entry.gender,
    )  # fmt: skip
    writer.add(wave, row, entry.name)
    return True


def _splits(entries: list[Entry], notes: list[str]) -> dict[tuple[bool, str], str]:
    """Splits by source, or by voice for speech: those that the table states, or ones made here."""
    if entries[0].split:
        return {(entry.spoken, entry.unit): entry.split for entry in entries}
    splits: dict[tuple[bool, str], str] = {}
    units: dict[str, dict[str, None]] = defaultdict(dict)
    for entry in entries:
        units["the voices" if entry.spoken else repr(entry.label)][entry.unit] = None
    small: list[str] = []
    for name, members in sorted(units.items()):
        spoken = name == "the voices"
        new = [unit for unit in members if (spoken, unit) not in splits]
        made = split_class(Candidate(unit, unit, PACKAGE) for unit in new)
        splits |= {(spoken, unit): split for unit, split in made.items()}
        if len(members) < FEWEST_TO_SPLIT:
            small.append(name)
    if small:
        notes.append(f"all in train, being fewer than {FEWEST_TO_SPLIT} sources each: {', '.join(small)}")
    return splits


def _split_rows(
    rows: list[ClipRow], taken: list[tuple[Entry, int]], splits: dict[tuple[bool, str], str]
) -> list[ClipRow]:
    """The manifest's rows with their splits, in its order."""
    split_rows: list[ClipRow] = []
    for entry, end in taken:
        split = splits[entry.spoken, entry.unit]
        split_rows += [replace(row, split=split) for row in rows[len(split_rows) : end]]
    return sorted(split_rows, key=lambda row: (KINDS.index(row.kind), row.label, row.source, row.path))
