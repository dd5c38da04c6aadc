"""The dataset folder: samples as Parquet that ``datasets.load_dataset`` opens, and back again without loss.

    README.md              the card; its header names the splits and their files
    data/<split>.parquet   the samples, or data/<split>-00000-of-00003.parquet where they are many
    <test>.jsonl           the rows of each test split for ``echo-agent eval``
    card/*.png             pictures of the card
    audio/*.flac           the recordings, which are there before

The column ``audio`` holds the path of the recording relative to the folder, or, where audio is embedded, the recording
itself with its path, as the audio feature of ``datasets`` has it. Everything is written aside first and moved into
place when it is whole, the card last: a folder with a card is a whole dataset. The card's header holds a digest of the
rows, by which ``datasets`` tells one build from another: its cache knows folders by their last name alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from echo_agent.disk import writing
from echo_agent.errors import DataError
from echo_agent.finetune.data.card import About, write_card
from echo_agent.finetune.data.records import SAMPLE_COLUMNS, Record, Sample
from echo_agent.locks import locked_folder

if TYPE_CHECKING:
    import pyarrow as arrow

TRAINING = ("train", "validation")
"""Splits that are no tests; every other one is, whatever its name."""
SHARD = 500_000_000
"""Bytes of rows and embedded audio after which another file is begun."""
GROUP = 64_000_000
"""The same for the row groups of a file: what a reader holds at once."""
TEXTS = ("id", "question", "answer", "family", "difficulty", "record", "corpus", "group", "split", "use", "reasoning",
         "phrasing", "licence", "composer")  # fmt: skip
"""Columns that are texts; the others are ``audio``, ``duration``, ``choices``, ``answers`` and ``gold_spans``."""
SHOWN = 5
"""Most faults that one error lists."""

_SHARDS = re.compile(r"(\w+?)(?:-(\d{5})-of-(\d{5}))?\.parquet")


def write_dataset(
    out: Path,
    samples: Mapping[str, Sequence[Sample]],
    records: Iterable[Record],
    about: About,
    *,
    embed: bool = False,
) -> Path:
    """Write a dataset, in place of the one that is there; returns the folder.

    Args:
        out: Folder of the dataset; the recordings lie in it.
        samples: By name of the split: ``train``, ``validation``, and tests under any other names (letters, digits, _).
            The audio of a sample is a path relative to ``out``. Splits without samples are left out.
        records: What is known of the recordings, for the card.
        about: What the card says beside what the data says.
        embed: Put the recordings into the Parquet files, so that these alone are the dataset.

    Raises:
        DataError: A sample is in the wrong split or in two, recordings are missing or in several splits, or the disk is
            full. What was there before stays as it was.
    """
    splits = {name: rows for name, rows in samples.items() if rows}
    _check(out, splits)
    aside = out / ".dataset"
    with locked_folder(out), writing(f"the dataset {out}", "make room, and run the same command again"):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            (aside / "data").mkdir(parents=True)
            files = {
                name: _write_split(aside / "data", out, name, rows, embed) for name, rows in splits.items()
            }
            for name in splits.keys() - set(TRAINING):
                _write_rows(aside / f"{name}.jsonl", splits[name])
            write_card(aside, splits, records, about, files, embedded=embed, digest=dataset_digest(aside))
            _publish(aside, out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return out


def read_samples(path: str | Path, split: str | None = None) -> list[Sample]:
    """The samples of a dataset folder, or of one Parquet file of it, as they were written.

    Args:
        path: The folder or the file. Audio paths stay relative to the folder.
        split: Only this split of the folder; None reads all, training first.

    Raises:
        DataError: There is no dataset or no such split, a file is missing or damaged, or a row is no sample.
    """
    path = Path(path)
    if path.is_file():
        return list(_read_file(path))
    files = _files(path)
    if split is not None and split not in files:
        raise DataError(f"{path} has no split {split!r}; there are {', '.join(files)}")
    chosen = files if split is None else {split: files[split]}
    return [sample for shards in chosen.values() for shard in shards for sample in _read_file(shard)]


def split_names(folder: Path) -> list[str]:
    """The splits of a dataset folder, training first.

    Raises:
        DataError: It holds no whole dataset.
    """
    return list(_files(folder))


def _check(out: Path, splits: Mapping[str, Sequence[Sample]]) -> None:
    """Refuse what would be no dataset."""
    if not splits:
        raise DataError(f"{out}: there are no samples to write")
    faults: list[str] = []
    ids: set[str] = set()
    heard: dict[str, str] = {}
    for name, rows in splits.items():
        if not re.fullmatch(r"\w+", name, re.ASCII):
            raise DataError(f"{name!r} is no name for a split: use letters, digits and _")
        kind = name if name in TRAINING else "test"
        for sample in rows:
            if sample.split != kind:
                faults.append(
                    f"the sample {sample.id!r} of split {sample.split!r} is among those of {name!r}"
                )
            if sample.id in ids:
                faults.append(f"the id {sample.id!r} is given twice")
            ids.add(sample.id)
            if sample.audio not in heard:
                faults += _audio_fault(out, sample)
            if heard.setdefault(sample.audio, kind) != kind:
                faults.append(f"{sample.audio} is asked about in {heard[sample.audio]!r} and in {name!r}")
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise DataError(f"{out} cannot be written: {faults[0]}", *faults[1:SHOWN], *more)


def _audio_fault(out: Path, sample: Sample) -> list[str]:
    """Why the recording of a sample cannot be part of the dataset."""
    path = PurePosixPath(sample.audio)
    if path.is_absolute() or ".." in path.parts:
        return [f"the audio of {sample.id!r} must be a path inside of the folder, not {sample.audio}"]
    return [] if (out / path).is_file() else [f"the audio of {sample.id!r} is missing: {out / path}"]


def _write_split(folder: Path, out: Path, name: str, rows: Sequence[Sample], embed: bool) -> list[str]:
    """The files of one split; returns their paths relative to the dataset."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    schema = _schema(embed)
    shards = list(_cut(rows, out, SHARD, embed))
    names = [f"{name}-{i:05d}-of-{len(shards):05d}.parquet" for i in range(len(shards))]
    names = names if len(shards) > 1 else [f"{name}.parquet"]
    for file, shard in zip(names, shards, strict=True):
        # Rows of one recording stand together: the dictionary holds each recording once per row group.
        options: Any = {"compression": "zstd", "dictionary_pagesize_limit": 2 * GROUP}
        with parquet.ParquetWriter(folder / file, schema, **options) as writer:
            for group in _cut(shard, out, GROUP, embed):
                writer.write_table(arrow.Table.from_pylist(list(_columns(group, out, embed)), schema))
    return [f"data/{file}" for file in names]


def dataset_digest(folder: Path) -> str:
    """A hash of all rows as they are written: the files of the splits, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted((folder / "data").glob("*.parquet")):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def _schema(embed: bool) -> arrow.Schema:
    """The columns with their types, marked as audio for ``datasets`` where it is embedded."""
    import pyarrow as arrow

    columns: dict[str, arrow.DataType] = {name: arrow.string() for name in SAMPLE_COLUMNS if name in TEXTS}
    columns["audio"] = arrow.string()
    columns["duration"] = arrow.float64()
    columns["choices"] = columns["answers"] = arrow.list_(arrow.string())
    columns["gold_spans"] = arrow.list_(arrow.list_(arrow.float64()))
    ordered = [name for name in SAMPLE_COLUMNS if name in columns]
    schema = arrow.schema([(name, columns[name]) for name in ordered])
    if not embed:
        return schema
    from datasets import Audio, Features

    features = Features.from_arrow_schema(schema)
    features["audio"] = Audio(decode=False)  # opens without a decoder; cast the column to hear it
    return features.arrow_schema


def _columns(rows: Iterable[Sample], out: Path, embed: bool) -> Iterator[dict[str, Any]]:
    for sample in rows:
        row = sample.model_dump(mode="json")
        if embed:
            row["audio"] = {"bytes": (out / sample.audio).read_bytes(), "path": sample.audio}
        yield row


def _cut(rows: Sequence[Sample], out: Path, limit: int, embed: bool) -> Iterator[list[Sample]]:
    """Rows in stretches of about ``limit`` bytes; a recording counts once in a stretch."""
    stretch: list[Sample] = []
    heard: set[str] = set()
    size = 0
    for sample in rows:
        more = len(sample.model_dump_json())
        if embed and sample.audio not in heard:
            more += (out / sample.audio).stat().st_size
        if stretch and size + more > limit:
            yield stretch
            stretch, heard, size = [], set(), 0
        stretch.append(sample)
        heard.add(sample.audio)
        size += more
    yield stretch


def _write_rows(path: Path, rows: Sequence[Sample]) -> None:
    """Rows for ``echo-agent eval``."""
    with path.open("w", encoding="utf-8") as file:
        for sample in rows:
            row = sample.model_dump(mode="json", exclude_none=True)
            file.write(json.dumps({key: value for key, value in row.items() if value != ""}) + "\n")


def _publish(aside: Path, out: Path) -> None:
    """Move a whole dataset into place; while there is no card, there is no dataset."""
    (out / "README.md").unlink(missing_ok=True)
    for former in (out / "data").glob("*.parquet"):
        if match := _SHARDS.fullmatch(former.name):
            (out / f"{match[1]}.jsonl").unlink(missing_ok=True)
    for folder in ("data", "card"):
        shutil.rmtree(out / folder, ignore_errors=True)
        (aside / folder).rename(out / folder)
    for file in sorted(aside.glob("*.jsonl")):
        file.replace(out / file.name)
    (aside / "README.md").rename(out / "README.md")


def _files(folder: Path) -> dict[str, list[Path]]:
    """The files of a dataset by split, training first; none is missing."""
    found: dict[str, list[Path]] = {}
    for path in sorted((folder / "data").glob("*.parquet")):
        if match := _SHARDS.fullmatch(path.name):
            found.setdefault(match[1], []).append(path)
    if not found or not (folder / "README.md").exists():
        raise DataError(
            f"{folder} holds no whole dataset (README.md and data/*.parquet): build it, or build it again"
        )
    for name, paths in found.items():
        match = _SHARDS.fullmatch(paths[0].name)
        wanted = int(match[3] or 1) if match else 1
        if len(paths) != wanted:
            raise DataError(
                f"{folder}: the split {name!r} has {len(paths)} of its {wanted} files; build it again"
            )
    order = [*TRAINING, *sorted(found)]
    return {name: found[name] for name in sorted(found, key=order.index)}


def _read_file(path: Path) -> Iterator[Sample]:
    """The samples of one file, embedded audio left alone."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(path)
        names = [f for f in file.schema_arrow.names if f in SAMPLE_COLUMNS and f != "audio"]
        audio = _audio_column(file.schema_arrow)
        rows = file.read([*names, audio]).to_pylist()
    except (OSError, KeyError, TypeError, ValueError, arrow.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read, build the dataset again: {reason}") from error
    for number, row in enumerate(rows, start=1):
        if audio != "audio":
            row["audio"] = (row["audio"] or {}).get("path")
        try:
            yield Sample.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "row"
            raise DataError(f"{path}, row {number}: {place}: {first['msg']}") from error


def _audio_column(schema: arrow.Schema) -> str:
    """Where a file holds the paths of its recordings; raises TypeError where its audio column is of neither form."""
    import pyarrow as arrow

    kind = schema.field("audio").type
    if arrow.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        name, kind = "audio.path", kind.field("path").type
    else:
        name = "audio"
    texts = (arrow.types.is_string, arrow.types.is_large_string, arrow.types.is_string_view)
    if not any(is_text(kind) for is_text in texts):
        raise TypeError(f"its column {name} holds {kind}, not the paths of recordings")
    return name
