"""MMAU: sounds, music and speech, 2 to 8 choices. ``mmau-test-mini.json`` and ``mmau-test.json`` beside their audio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark, filled
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.layout import (
    Layout,
    answer_of,
    choices_of,
    first_file,
    id_of,
    known,
    read_layout,
    recording,
    text_of,
)
from echo_agent.benchmarks.rules import word_sets


def read(folder: Path, split: str) -> Layout:
    """Read a split: a JSON list of rows whose ``audio_id`` is the path of a recording in the folder."""
    path = first_file(folder, [f"mmau-{split}.json"], "MMAU")

    def make(row: Mapping[str, Any], number: int) -> Item:
        audio = text_of(row, "audio_id")
        return Item(
            id=id_of(row),
            audio=recording(folder, audio, f"{split}-audios/{Path(audio).name}"),
            question=text_of(row, "question"),
            **choices_of(row),
            answer=answer_of(row),
            category=known(row, "category"),
            sub_category=known(row, "sub-category"),
            modality=known(row, "task"),
            difficulty=known(row, "difficulty"),
            source=row,
            line=number,
        )

    return read_layout(path, make, "MMAU")


BENCHMARK = Benchmark(
    name="mmau",
    title="MMAU",
    origin="github.com/Sakshi113/MMAU at 110127f",
    rule="all words of the answer occur, and none that only a wrong choice has; rows without a prediction are left out",
    read=read,
    official=word_sets,
    submit=filled("model_output"),
    splits=("test-mini", "test"),
)
