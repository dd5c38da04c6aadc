"""The manifest of a sound bank: one row per clip, what it is and where it comes from, and a digest of all of them.

The table comes last, so a folder that has one is a bank. Its digest changes with the samples of any clip and with what
the bank was made of, so that nothing that was mixed from another bank is ever taken for this one's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from echo_agent.disk import whole, writing
from echo_agent.errors import DataError
from echo_agent.finetune.data.records import Voice

MANIFEST = "manifest.parquet"
Kind = Literal["sound", "digit", "word", "note", "background"]
KINDS: tuple[Kind, ...] = ("sound", "digit", "word", "note", "background")
MADE_OF = b"echo-agent"
"""Key of what a bank was made of in the metadata of its manifest."""
BUILD = "build one with `echo-agent finetune data bank`"


@dataclass(frozen=True)
class ClipRow:
    """One row of the manifest. Invariant: clips of one source have one label and lie in one split."""

    path: str
    """The wav file (16 kHz, 16 bit, mono), relative to the bank's folder."""
    label: str
    """What is heard: a class, a word, an instrument."""
    kind: Kind
    package: str
    """Where it comes from."""
    voice: str
    """Who speaks; empty if nobody does."""
    source: str
    """The original recording; the unit of splitting."""
    licence: str
    """Licence of the original, as its package states it."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Length of the clip."""
    split: str
    """One of :data:`~echo_agent.finetune.data.bank.splits.SPLITS`."""
    pitch: int
    """MIDI pitch of a note, otherwise -1."""
    gender: Voice = ""
    """Whether a woman or a man speaks; where empty, `speech.GENDERS` may know."""


_ROW = TypeAdapter(ClipRow)
_NEEDED = tuple(field.name for field in fields(ClipRow) if field.name not in ("seconds", "gender"))


def has_bank(folder: Path) -> bool:
    """Whether a folder holds a finished bank."""
    return (folder / MANIFEST).exists()


def write_manifest(rows: Iterable[ClipRow], out: Path, made_of: dict[str, str]) -> None:
    """Write the table of a bank, whole or not at all.

    Args:
        rows: Of all clips.
        out: Folder of the bank.
        made_of: Digests of what the bank was made of, by name.

    Raises:
        DataError: It cannot be written.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = arrow.Table.from_pylist([asdict(row) for row in rows])
    table = table.replace_schema_metadata({MADE_OF: json.dumps(made_of, sort_keys=True).encode()})
    path = out / MANIFEST
    with writing(path), whole(path) as partial:
        parquet.write_table(table, partial)


def read_manifest(folder: Path) -> list[ClipRow]:
    """The rows of a bank's manifest.

    Raises:
        DataError: There is no bank, its manifest is damaged, or a column is missing or of another type.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = folder / MANIFEST
    if not path.exists():
        raise DataError(f"{path}: no sound bank there; {BUILD}")
    try:
        table = parquet.read_table(path)
        missing = [name for name in _NEEDED if name not in table.column_names]
        rows = table.to_pylist()
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read, build the bank again: {_line(error)}") from error
    if missing:
        raise DataError(f"{path} has no column {', '.join(map(repr, missing))}: build the bank again")
    read: list[ClipRow] = []
    for number, row in enumerate(rows, start=1):
        try:
            given = {name: value for name, value in row.items() if value is not None}
            read.append(_ROW.validate_python({"seconds": 0.0} | given))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(f"{path}, row {number}: {place}: {first['msg']}; build the bank again") from error
    return read


def made_of(folder: Path) -> dict[str, str]:
    """Digests of what a bank was made of; nothing where it does not say. Raises DataError where it is none."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    path = folder / MANIFEST
    try:
        noted = (parquet.read_schema(path).metadata or {}).get(MADE_OF, b"{}")
        return dict(json.loads(noted))
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read, build the bank again: {_line(error)}") from error


def bank_digest(folder: Path) -> str:
    """What tells one bank from another: the hash of its manifest. Raises DataError where there is no bank."""
    path = folder / MANIFEST
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: no sound bank there; {BUILD}") from error


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
