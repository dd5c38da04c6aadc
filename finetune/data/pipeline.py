"""The build: from records to a dataset, in stages that can be looked at and resumed.

For every set of records (training, each test): *compose* asks the questions, *checks* keep those that no rule speaks
against. Then the training questions that can be answered without the audio are thinned out (*needs audio*), and the
dataset folder is written with its card. Each stage leaves a Parquet file in the folder of the build; where one is there
already and was made from the same, it is taken as it is.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from echo_agent.audio.files import FileStamp, sha256_of
from echo_agent.disk import GO_ON, whole, writing
from echo_agent.errors import DataError, RecordingError
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import write_dataset
from echo_agent.finetune.data.questions.checks import CheckedSamples, check_samples
from echo_agent.finetune.data.questions.composer import GrammarSettings, compose
from echo_agent.finetune.data.records import SAMPLE_COLUMNS, Record, Sample, Split
from echo_agent.finetune.data.stages import Report, Rows, content_hash, read_rows, run_stage
from echo_agent.finetune.data.tally import Tally

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
    """Stop after this many questions."""
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

    A file is named by the record and by what it holds, so that a folder that was begun with other recordings of the
    same names never lends them.

    Raises:
        DataError: The disk is full, or a file cannot be read.
    """
    gathered = []
    for record in records:
        source = Path(os.path.realpath(record.audio))
        try:
            content = sha256_of(FileStamp.of(source))
        except RecordingError as error:
            raise DataError(f"cannot bring {source} to {out}: {error}") from error
        named = f"{record.id}\n{content}"
        name = f"audio/{hashlib.sha256(named.encode()).hexdigest()[:16]}{source.suffix.lower()}"
        path = out / name
        if not path.exists():
            with writing(path, GO_ON), whole(path) as aside:
                try:
                    os.link(source, aside)
                except OSError:  # another disk, or one that knows no links
                    shutil.copyfile(source, aside)
        gathered.append(record.model_copy(update={"audio": name}))
    return gathered


def questions_of(
    out: Path,
    which: QuestionSet,
    tally: Tally,
    *,
    report: Report | None = None,
    split: Split | None = None,
) -> list[Sample]:
    """Compose and check one set; returns what was kept, :attr:`QuestionSet.most` at most.

    Args:
        out: Folder of the build; gets ``composed-<name>.parquet`` and ``checked-<name>.parquet``.
        which: The set.
        tally: Told what came in and what was left out.
        report: Told what was kept and what was dropped.
        split: The split of all of them; None: that of each record.
    """
    about = _settings(which, split)
    composed = partial(_composed, which, split)
    path = run_stage(out, f"composed-{which.name}", ["all"], composed, settings=about)
    asked = [sample_of(row) for row in read_rows(path)]
    records = {record.id: record for record in which.records}
    path = run_stage(out, f"checked-{which.name}", ["all"], partial(_checked, asked, records), settings=about)
    rows = [(sample_of(row), row["dropped"]) for row in read_rows(path)]
    checked = CheckedSamples(
        [sample for sample, reason in rows if not reason], [row for row in rows if row[1]]
    )
    kept = checked.kept[: which.most]
    tally.compose(len(asked))
    tally.leave_out("dropped by the checks", len(checked.dropped))
    tally.leave_out("more than were asked for", len(checked.kept) - len(kept))
    if report:
        cut = f"\n  {len(checked.kept) - len(kept)} more than are asked for" if kept != checked.kept else ""
        report(f"{which.name}: {checked.report()}{cut}")
    return kept


def _settings(which: QuestionSet, split: Split | None) -> dict[str, Any]:
    """What the questions of a set depend on."""
    return {
        "records": content_hash(record.model_dump_json() for record in which.records),
        "grammar": which.grammar.model_dump(mode="json"),
        "most": which.most,
        "given": None if which.samples is None else content_hash(s.model_dump_json() for s in which.samples),
        "split": split,
    }


def _composed(which: QuestionSet, split: Split | None, _: str) -> Rows:
    """The stage that asks."""
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


def _checked(asked: Sequence[Sample], records: Mapping[str, Record], _: str) -> Rows:
    """The stage that checks: all samples, each with the reason for which it is dropped, or none."""
    dropped = {sample.id: reason for sample, reason in check_samples(asked, records).dropped}
    return [_dump(sample) | {"dropped": dropped.get(sample.id, "")} for sample in asked]


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
    tally: Tally,
    *,
    report: Report | None = None,
    embed: bool = False,
) -> Path:
    """Write the dataset of a build, and say what became of its questions as its card does.

    Raises:
        DataError: There is nothing to write, or the disk is full.
    """
    if not any(splits.values()):
        raise DataError(
            f"{out}: not one question could be asked: the recordings need labelled events with onset and offset, "
            "or questions of their own"
        )
    history = tally.sentence(splits)
    folder = write_dataset(out, splits, records, about.model_copy(update={"history": history}), embed=embed)
    if report:
        report(f"{folder}: {history}")
    return folder


def sample_of(row: Mapping[str, Any]) -> Sample:
    """The sample of a stage's row; what other stages added is left out."""
    return Sample.model_validate({key: value for key, value in row.items() if key in SAMPLE_COLUMNS})


def _dump(sample: BaseModel) -> dict[str, Any]:
    return sample.model_dump(mode="json")
