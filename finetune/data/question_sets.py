"""The build: from records to a dataset, in stages that can be looked at and gone on with.

For every set of records (training, each test): *compose* asks the questions, *judge* keeps those that no rule speaks
against. Then the training questions that can be answered without the audio are thinned out (*needs audio*), and the
dataset folder is written with its card. Each stage leaves a Parquet file in the folder of the build; where one is there
already and was made from the same, it is taken as it is.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from echo_agent.errors import DataError
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import write_dataset
from echo_agent.finetune.data.grammar.composer import GrammarSettings, compose
from echo_agent.finetune.data.judge import Verdicts, judge
from echo_agent.finetune.data.records import Record, Sample, Split
from echo_agent.finetune.data.stages import Rows, content_hash, read_rows, run_stage

Report = Callable[[str], None]

SPARE = 1.05
"""How many more questions are composed than are wanted, since some are dropped."""
SHARES = {"test": 10, "validation": 10}
"""Percent of the groups of a corpus that has no splits of its own; the rest is for training."""


@dataclass(frozen=True)
class QuestionSet:
    """Records, and how they are asked."""

    name: str
    """Name of the set; that of a test is that of its split in the dataset."""
    records: Sequence[Record]
    grammar: GrammarSettings
    most: int | None = None
    """Stop after so many questions."""
    samples: Sequence[Sample] | None = None
    """Questions that are there already (a model wrote them): then nothing is composed."""


def split_of(record: Record) -> Split:
    """The split of a record: its own, or by a hash of its group, so that what belongs together stays together."""
    if record.split:
        return record.split
    place = int(hashlib.sha256((record.group or record.id).encode()).hexdigest()[:8], 16) % 100
    for split, share in SHARES.items():
        if place < share:
            return split  # pyright: ignore[reportReturnType]
        place -= share
    return "train"


def gather(records: Sequence[Record], out: Path) -> list[Record]:
    """The records with their audio in ``out/audio``: linked where the disk can, else copied.

    Raises:
        DataError: The disk is full, or a file cannot be read.
    """
    gathered = []
    for record in records:
        source = Path(record.audio)
        name = f"audio/{hashlib.sha256(record.id.encode()).hexdigest()[:16]}{source.suffix.lower()}"
        path = out / name
        if not path.exists():
            partial = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, partial)
                except OSError:  # another disk, or one that knows no links
                    shutil.copyfile(source, partial)
                partial.rename(path)
            except OSError as error:
                raise DataError(f"cannot bring {source} to {path}: {error.strerror or error}") from error
        gathered.append(record.model_copy(update={"audio": name}))
    return gathered


def questions_of(
    out: Path, which: QuestionSet, report: Report | None = None, split: Split | None = None
) -> list[Sample]:
    """Compose and judge one set; returns what was kept.

    Args:
        out: Folder of the build; gets ``composed-<name>.parquet`` and ``judged-<name>.parquet``.
        which: The set.
        report: Told what was kept and what was dropped.
        split: The split of all of them; None: that of each record.
    """
    content = content_hash(record.model_dump_json() for record in which.records)
    given = (
        None if which.samples is None else content_hash(sample.model_dump_json() for sample in which.samples)
    )
    about = {"records": content, "grammar": which.grammar.model_dump(mode="json"), "most": which.most, "given": given,
             "split": split}  # fmt: skip

    def composed(_: str) -> Rows:
        if which.samples is not None:
            return [_dump(sample) for sample in which.samples]
        samples = compose(
            which.records,
            which.grammar,
            (lambda _: split) if split else split_of,
            most=None if which.most is None else math.ceil(SPARE * which.most),
            name=which.name,
        )
        return [_dump(sample) for sample in samples]

    path = run_stage(out, f"composed-{which.name}", ["all"], composed, settings=about)
    asked = [sample_of(row) for row in read_rows(path)]
    verdicts: list[Verdicts] = []

    def judged(_: str) -> Rows:
        verdicts.append(judge(asked, {record.id: record for record in which.records}))
        dropped = {sample.id: reason for sample, reason in verdicts[0].dropped}
        return [_dump(sample) | {"dropped": dropped.get(sample.id, "")} for sample in asked]

    path = run_stage(out, f"judged-{which.name}", ["all"], judged, settings=about)
    rows = read_rows(path)
    if report:
        reasons = (
            verdicts[0].report() if verdicts else f"{sum(not row['dropped'] for row in rows)} samples kept"
        )
        report(f"{which.name}: {reasons}")
    return [sample_of(row) for row in rows if not row["dropped"]][: which.most]


def by_split(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Samples by the name of their split, in their order."""
    splits: dict[str, list[Sample]] = {}
    for sample in samples:
        splits.setdefault(sample.split, []).append(sample)
    return splits


def finish(
    out: Path,
    splits: Mapping[str, Sequence[Sample]],
    records: Sequence[Record],
    about: About,
    *,
    embed: bool = False,
) -> Path:
    """Write the dataset of a build; raises DataError where there is nothing to write."""
    if not any(splits.values()):
        raise DataError(
            f"{out}: not one question could be asked: the recordings need labelled events with onset and offset, "
            "or questions of their own"
        )
    return write_dataset(out, splits, records, about, embed=embed)


def sample_of(row: Mapping[str, Any]) -> Sample:
    """The sample of a stage's row; what other stages noted beside it is left out."""
    return Sample.model_validate({key: value for key, value in row.items() if key in Sample.model_fields})


def _dump(sample: BaseModel) -> dict[str, Any]:
    return sample.model_dump(mode="json")
