"""The manifest of a bank: whole, of the right types, and different for every other bank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.manifest import (
    MANIFEST,
    ClipRow,
    bank_digest,
    has_bank,
    made_of,
    read_manifest,
    write_manifest,
)

ROW = ClipRow("sound/bell/1.wav", "bell", "sound", "own", "", "bell/1.wav", "CC0-1.0", 0.5, "train", -1)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    assert not has_bank(tmp_path)
    write_manifest([ROW], tmp_path, {"clips": "a"})
    assert has_bank(tmp_path) and read_manifest(tmp_path) == [ROW] and made_of(tmp_path) == {"clips": "a"}
    first = bank_digest(tmp_path)
    write_manifest([ROW], tmp_path, {"clips": "b"})
    assert bank_digest(tmp_path) != first
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


def test_an_older_manifest_still_reads(tmp_path: Path) -> None:
    names = ("path", "label", "kind", "package", "voice", "source", "licence", "split", "pitch")
    parquet.write_table(arrow.Table.from_pylist([{n: getattr(ROW, n) for n in names}]), tmp_path / MANIFEST)
    (row,) = read_manifest(tmp_path)
    assert (row.seconds, row.gender, row.path) == (0.0, "", ROW.path) and made_of(tmp_path) == {}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("path", 7),
        ("label", [1]),
        ("kind", "noise"),
        ("kind", None),
        ("split", 1.5),
        ("pitch", "high"),
        ("pitch", 0.5),
        ("voice", b"\xff"),
        ("gender", "either"),
        ("seconds", float("nan")),
        ("source", {"a": 1}),
    ],
)
def test_a_column_of_the_wrong_type_is_one_sentence(tmp_path: Path, column: str, value: Any) -> None:
    row = {name: getattr(ROW, name) for name in ROW.__dataclass_fields__} | {column: value}
    parquet.write_table(arrow.Table.from_pylist([row]), tmp_path / MANIFEST)
    with pytest.raises(DataError, match=rf"^[^\n]*{MANIFEST}, row 1: {column}[^\n]*build the bank again$"):
        read_manifest(tmp_path)


def test_what_is_no_manifest_is_named(tmp_path: Path) -> None:
    for read in (read_manifest, bank_digest, made_of):
        with pytest.raises(DataError, match=MANIFEST):
            read(tmp_path)
    (tmp_path / MANIFEST).write_bytes(b"PAR1 but no table")
    for read in (read_manifest, made_of):
        with pytest.raises(DataError, match=f"{MANIFEST} cannot be read"):
            read(tmp_path)
    parquet.write_table(arrow.table({"path": ["a"]}), tmp_path / MANIFEST)
    with pytest.raises(DataError, match="has no column 'label', 'kind'"):
        read_manifest(tmp_path)
