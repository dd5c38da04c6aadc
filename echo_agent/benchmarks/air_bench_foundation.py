"""AIR-Bench, Foundation: single tasks with up to four choices. ``Foundation_meta.json`` beside folders of audio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark, as_letter
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.layout import (
    Layout,
    answer_of,
    first_file,
    id_of,
    jsonl,
    read_layout,
    recording,
    text_of,
)
from echo_agent.benchmarks.mmsu import LETTERS, lettered
from echo_agent.benchmarks.rules import Prediction, letters_dropped

GROUNDING = "Audio_Grounding"
"""The task whose recordings are FLAC, whatever their path says."""
KEPT = (
    "path",
    "question",
    "choice_a",
    "choice_b",
    "choice_c",
    "choice_d",
    "answer_gt",
    "task_name",
    "dataset_name",
)


def audio_of(folder: Path, row: Mapping[str, Any]) -> str:
    """The recording of a row: ``{task}_{dataset}/{path}``; raises ValueError where there is none."""
    task, path = text_of(row, "task_name"), text_of(row, "path")
    if task == GROUNDING:
        path = str(Path(path).with_suffix(".flac"))
    return recording(folder, f"{task}_{text_of(row, 'dataset_name')}/{path}")


def read(folder: Path, split: str) -> Layout:
    """Read the rows."""
    path = first_file(
        folder, ["Foundation_meta.json", "Foundation/Foundation_meta.json"], "AIR-Bench Foundation"
    )

    def make(row: Mapping[str, Any], number: int) -> Item:
        return Item(
            id=id_of(row, "uniq_id"),
            audio=audio_of(path.parent, row),
            question=text_of(row, "question"),
            **lettered(row),
            answer=answer_of(row, "answer_gt"),
            category=text_of(row, "task_name"),
            sub_category=text_of(row, "dataset_name"),
            source=row,
            line=number,
        )

    return read_layout(path, make, "AIR-Bench Foundation")


def responses(predictions: Sequence[Prediction], kept: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One object per prediction, with the keys that the official scripts read; rows without one are missing."""
    for prediction in predictions:
        if prediction.text is not None:
            source = prediction.item.source
            row = {key: source[key] for key in kept if key in source}
            yield {**row, "response": prediction.text, "uniq_id": source["uniq_id"]}


def submit(predictions: Sequence[Prediction]) -> bytes:
    """The responses; a choice that a row lacks is null."""
    choices = {f"choice_{letter}": None for letter in LETTERS}
    return jsonl({**choices, **row} for row in responses(predictions, KEPT))


BENCHMARK = Benchmark(
    name="air-bench-foundation",
    title="AIR-Bench Foundation",
    origin="github.com/OFA-Sys/AIR-Bench at 9832476",
    rule="the first or the last but one character as a letter; where there is none, the row is left out",
    read=read,
    official=letters_dropped,
    submit=submit,
    suffix=".jsonl",
    handed_in=as_letter,
)
