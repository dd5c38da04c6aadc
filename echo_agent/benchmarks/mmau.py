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
    common_of,
    first_file,
    known,
    read_layout,
    recording,
    text_of,
)
from echo_agent.benchmarks.rules import WORD_SETS, word_sets


def read(folder: Path, split: str) -> Layout:
    """Read a split: a JSON list of rows whose ``audio_id`` is the path of a recording in the folder."""
    path = first_file(folder, [f"mmau-{split}.json"], "MMAU")

    def make(row: Mapping[str, Any], number: int) -> Item:
        audio = text_of(row, "audio_id")
        return Item(
            **common_of(row, number),
            audio=recording(folder, audio, f"{split}-audios/{Path(audio).name}"),
            **choices_of(row),
            answer=answer_of(row),
            modality=known(row, "task"),
            difficulty=known(row, "difficulty"),
        )

    return read_layout(path, make, "MMAU")


BENCHMARK = Benchmark(
    name="mmau",
    title="MMAU",
    origin="github.com/Sakshi113/MMAU at 110127f",
    rule=WORD_SETS,
    read=read,
    official=word_sets,
    submit=filled("model_output"),
    splits=("test-mini", "test"),
)
