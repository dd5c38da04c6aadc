"""MMAU-Pro: 5,305 questions, with choices, open, and on following instructions. ``test.parquet`` beside its audio."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark
from echo_agent.benchmarks.item import Item, Kind
from echo_agent.benchmarks.layout import (
    Layout,
    answer_of,
    choices_of,
    first_file,
    known,
    read_layout,
    recording,
    text_of,
)
from echo_agent.benchmarks.rules import Prediction, mmau_pro

KINDS: dict[str, Kind] = {"open": "open", "instruction following": "instruction"}
"""Categories that are not questions with choices."""


def read(folder: Path, split: str) -> Layout:
    """Read the table; ``audio_path`` is a path in the folder, or a list of one. Rows about several are not asked."""
    path = first_file(folder, ["test.parquet", "data/test-*.parquet"], "MMAU-Pro")

    def make(row: Mapping[str, Any], number: int) -> Item:
        kind = KINDS.get(known(row, "category"), "choice")
        return Item(
            id=known(row, "id") or str(number),
            audio=_recording(folder, row),
            question=text_of(row, "question"),
            **(choices_of(row) if kind == "choice" else {}),
            answer=answer_of(row),
            kind=kind,
            category=known(row, "category"),
            sub_category=known(row, "sub-cat"),
            modality=known(row, "modality"),
            difficulty=known(row, "length_type"),
            source=row,
            line=number,
        )

    return read_layout(path, make, "MMAU-Pro")


def _recording(folder: Path, row: Mapping[str, Any]) -> str:
    """The one recording of a row; raises ValueError where there are several."""
    if "audio_path" not in row:
        raise ValueError(f"it has no 'audio_path'; its keys are {', '.join(row)}")
    places = row["audio_path"]
    places = [places] if isinstance(places, str) else places
    if not isinstance(places, list) or not places or not all(isinstance(place, str) for place in places):
        raise ValueError(f"'audio_path' is {row['audio_path']!r}, and should be a path")
    if len(places) > 1:
        raise ValueError(f"it is about {len(places)} recordings; one is heard at a time")
    return recording(folder, places[0], f"data/{Path(places[0]).name}")


def submit(predictions: Sequence[Prediction]) -> bytes:
    """The table with the column ``model_output``."""
    import pyarrow
    import pyarrow.parquet

    rows = [{**prediction.item.source, "model_output": prediction.text} for prediction in predictions]
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


BENCHMARK = Benchmark(
    name="mmau-pro",
    title="MMAU-Pro",
    origin="github.com/sonalkum/MMAUPro at 960e93a",
    rule="the nearest choice by an embedding model, so that nothing is ever unparsed; a judge's mean for open answers, "
    "where a missing score counts 3 of 5; rules for instructions",
    read=read,
    official=mmau_pro,
    submit=submit,
    suffix=".parquet",
)
