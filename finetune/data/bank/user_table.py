"""What is known of one's own clips before any is opened: read from a CSV table, or from a folder of folders.

All that is wrong with a table is collected and raised as one error that names its lines; a file that is missing is only
left out, so that one lost clip does not stop a thousand others.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from echo_agent.audio.files import storable
from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.manifest import KINDS, Kind
from echo_agent.finetune.data.bank.splits import SPLITS
from echo_agent.finetune.data.records import Voice
from echo_agent.finetune.data.vocabulary import DIGITS
from echo_agent.paths import as_on_disk, composed, walk_files
from echo_agent.text import read_text

COLUMNS = ("path", "label", "kind", "voice", "gender", "source", "licence", "split", "pitch")
"""Columns that are read; the first two must be there."""
NOT_STATED = "not stated"
"""Licence of a clip whose licence nobody wrote down."""
SPOKEN = ("digit", "word")
SHOWN = 10
"""Most lines that one error names."""
_SPEAKABLE = re.compile(r"(?=.*[^\W\d_])[^\W_]+(?:['’]?[^\W_]+| [^\W_]+)*'?")
_LONGEST = 40

Skipped = list[tuple[str, str]]


@dataclass(frozen=True)
class Entry:
    """One clip as it was given."""

    path: Path
    name: str
    """What it is called in reports: its path as it was given."""
    label: str
    kind: Kind = "sound"
    voice: str = ""
    gender: Voice = ""
    source: str = ""
    licence: str = NOT_STATED
    split: str = ""
    """Empty: it is made."""
    pitch: int = -1

    @property
    def spoken(self) -> bool:
        """Whether it is a digit or a word."""
        return self.kind in SPOKEN

    @property
    def unit(self) -> str:
        """What must lie in one split: the voice of speech, otherwise the source."""
        return self.voice if self.spoken else self.source


def read_folder(folder: Path, skipped: Skipped, notes: list[str]) -> list[Entry]:
    """Every file in a subfolder, labelled with the subfolder's name, in order of their paths.

    Args:
        folder: Of the labels. Hidden files are passed over, links are followed.
        skipped: Files next to the subfolders are added, with the reason.
        notes: Empty folders are added.

    Raises:
        DataError: It holds no subfolder, or one whose name is no text to be spoken.
    """
    entries: list[Entry] = []
    wrong: list[str] = []
    for below in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if not below.is_dir():
            skipped.append((storable(below.name), "it is in no folder that says what it is"))
            continue
        try:
            label = spoken_label(storable(below.name))
        except ValueError as error:
            wrong.append(f"{below}: {error}")
            continue
        files = [
            path
            for path in walk_files(below)
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
        if not files:
            notes.append(f"no clip in the folder {below.name!r}")
        names = (storable(str(path.relative_to(folder))) for path in files)
        entries += [Entry(path, name, label, source=name) for path, name in zip(files, names, strict=True)]
    if wrong:
        raise DataError(*wrong[:SHOWN])
    if not entries:
        raise DataError(f"{folder} holds no clips: one subfolder per label is expected, its clips in it")
    return entries


def read_table(path: Path, skipped: Skipped, notes: list[str]) -> list[Entry]:
    """The clips that a CSV table names.

    Args:
        path: Of the table.
        skipped: Files that are not there are added.
        notes: Columns that are not read are named.

    Raises:
        DataError: It cannot be read, a column is missing, or rows are malformed; each is named with its line.
    """
    text = read_text(path, "clips")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", restkey="")
        rows = [(reader.line_num, row) for row in reader]
        columns = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise DataError(f"cannot read clips from {path}: {error}") from None
    missing = [name for name in COLUMNS[:2] if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {' and no column '.join(map(repr, missing))}; its first line reads "
            f"{', '.join(columns) or 'nothing'}, and a comma separates columns"
        )
    ignored = [name for name in columns if name and name not in COLUMNS]
    if ignored:
        notes.append(f"columns that were not read: {', '.join(ignored)}")
    entries: list[Entry] = []
    wrong: list[str] = []
    for line, row in rows:
        values = {key.strip(): value.strip() for key, value in row.items() if key}
        try:
            entries.append(_entry(path.parent, values))
        except ValueError as error:
            wrong.append(f"{path}:{line}: {error}")
    wrong = wrong or [f"{path}: {problem}" for problem in _disagreements(entries)]
    if wrong:
        more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise DataError(*wrong[:SHOWN], *more)
    if not entries:
        raise DataError(f"{path} names no clip")
    skipped += [(entry.name, "there is no such file") for entry in entries if not entry.path.is_file()]
    return entries


def spoken_label(text: str) -> str:
    """A label as it is said: lower case, words with one space between. Raises ValueError where it cannot be said.

    Example:
        >>> spoken_label("Dog_Bark")
        'dog bark'
    """
    label = " ".join(re.sub(r"[_\-]", " ", composed(text).lower()).split())
    if len(label) > _LONGEST or not _SPEAKABLE.fullmatch(label):
        raise ValueError(
            f"the label {text!r} cannot be spoken: words of letters and digits are, {_LONGEST} characters at most"
        )
    if label == "voice":
        raise ValueError("the label 'voice' is that of spoken phrases: call the sound something else")
    return label


def _entry(folder: Path, values: dict[str, str]) -> Entry:
    """One row; raises ValueError with what is wrong."""
    if not values["path"]:
        raise ValueError("the path is empty")
    kind = _one_of(values, "kind", KINDS, "sound")
    text = values["label"]
    label = DIGITS[int(text)] if kind == "digit" and text in map(str, range(10)) else spoken_label(text)
    if kind == "digit" and label not in DIGITS:
        raise ValueError(f"the label {text!r} is no digit: 0 to 9, or {DIGITS[0]} to {DIGITS[-1]}")
    voice = values.get("voice", "")
    if kind in SPOKEN and not voice:
        raise ValueError(f"a {kind} needs a voice, the name of who speaks")
    pitch = values.get("pitch", "")
    if pitch and not (pitch.isdecimal() and 0 <= int(pitch) <= 127):
        raise ValueError(f"the pitch {pitch!r} is no MIDI pitch, 0 to 127")
    if kind == "note" and not pitch:
        raise ValueError("a note needs a pitch, its MIDI number (60 is middle C)")
    split = {"validation": "val"}.get(values.get("split", ""), values.get("split", ""))
    if split and split not in SPLITS:
        raise ValueError(f"the split {split!r} is none of {', '.join(SPLITS)}")
    name = values["path"]
    return Entry(
        as_on_disk(folder / name),
        name,
        label,
        cast(Kind, kind),
        voice if kind in SPOKEN else "",
        cast(Voice, _one_of(values, "gender", get_args(Voice), "")),
        values.get("source") or name,
        values.get("licence") or NOT_STATED,
        split,
        int(pitch) if pitch and kind == "note" else -1,
    )


def _one_of(values: dict[str, str], column: str, allowed: Sequence[str], default: str) -> str:
    """A cell that takes few values; raises ValueError where it takes another."""
    value = values.get(column) or default
    if value not in allowed:
        raise ValueError(f"the {column} {value!r} is none of {', '.join(filter(None, allowed))}")
    return value


def _disagreements(entries: Sequence[Entry]) -> list[str]:
    """Where rows contradict each other."""
    stated = [entry for entry in entries if entry.split]
    if stated and len(stated) < len(entries):
        return [f"{len(entries) - len(stated)} rows have no split: give it for every row, or for none"]
    wrong: list[str] = []
    splits: dict[tuple[bool, str], str] = {}
    genders: dict[str, str] = {}
    for entry in entries:
        if splits.setdefault((entry.spoken, entry.unit), entry.split) != entry.split:
            what = "voice" if entry.spoken else "source"
            wrong.append(f"the {what} {entry.unit!r} lies in several splits")
        if entry.spoken and genders.setdefault(entry.voice, entry.gender) != entry.gender:
            wrong.append(f"the voice {entry.voice!r} has several genders")
    return list(dict.fromkeys(wrong))
