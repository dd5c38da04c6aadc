"""Browsing a dataset: rows that are picked or drawn at random, with what is known of their recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from echo_agent.errors import DataError
from echo_agent.finetune.data.dataset import read_samples
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.show.gallery import write_page
from echo_agent.finetune.data.show.inspection import draw_samples
from echo_agent.finetune.data.stages import columns_of, read_rows
from echo_agent.terminal import printable


def inspect_rows(
    dataset: Path, out: Path, *, rows: int, split: str, category: str, ids: Sequence[str], seed: int
) -> int:
    """Draw rows of a dataset into a picture or a page; returns how many.

    Raises:
        DataError: There is no dataset, no such row, or the name of the output is that of neither.
    """
    if out.suffix.lower() not in (".png", ".html"):
        raise DataError(f"{out}: a name ending in .png or .html is expected")
    samples = read_samples(dataset, split or None)
    chosen = [
        sample
        for sample in samples
        if (not category or sample.category == category) and (not ids or sample.id in ids)
    ]
    if not chosen:
        categories = ", ".join(sorted({printable(sample.category) for sample in samples}))
        raise DataError(f"{dataset}: no row of that kind; categories are {categories}")
    if not ids:
        order = np.random.default_rng(seed).permutation(len(chosen))[:rows]
        chosen = [chosen[int(i)] for i in sorted(order)]
    records = records_in(dataset)
    (draw_samples if out.suffix.lower() == ".png" else write_page)(chosen, records, dataset, out)
    return len(chosen)


def records_in(folder: Path) -> dict[str, Record]:
    """The records of a build, by id: of all its stages that hold records.

    Raises:
        DataError: A file cannot be read, or holds a row that is no record.
    """
    found: dict[str, Record] = {}
    for path in sorted(folder.glob("*.parquet")):
        columns = columns_of(path)
        if not {"audio", "duration"} <= columns or "question" in columns:
            continue
        for row in read_rows(path):
            try:
                record = Record.model_validate(row)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise DataError(f"{path} holds a row that is no record: {reason}") from error
            found[record.id] = record
    return found
