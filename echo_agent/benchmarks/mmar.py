"""MMAR: 1,000 questions that need several steps, 2 to 6 choices. ``MMAR-meta.jsonl`` beside ``audio/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark, filled_lines
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
    """Read the rows; ``audio_path`` is the path of a recording in the folder."""
    path = first_file(folder, ["MMAR-meta.jsonl"], "MMAR")

    def make(row: Mapping[str, Any], number: int) -> Item:
        audio = text_of(row, "audio_path")
        return Item(
            **common_of(row, number),
            audio=recording(folder, audio, f"audio/{Path(audio).name}"),
            **choices_of(row),
            answer=answer_of(row),
            modality=known(row, "modality"),
        )

    return read_layout(path, make, "MMAR")


BENCHMARK = Benchmark(
    name="mmar",
    title="MMAR",
    origin="github.com/ddlBoJack/MMAR at 3bce090",
    rule=WORD_SETS,
    read=read,
    official=word_sets,
    submit=filled_lines("answer_prediction"),
    suffix=".jsonl",
)
