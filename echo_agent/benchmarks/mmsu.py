"""MMSU: spoken language, four choices. ``mmsu.jsonl`` (or a JSON list) beside its audio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark, as_letter, filled_lines
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.layout import (
    Layout,
    answer_of,
    common_of,
    distinct,
    first_file,
    known,
    read_layout,
    recording,
    text_of,
)
from echo_agent.benchmarks.rules import letters_carried

FILES = ("mmsu.jsonl", "question/mmsu.jsonl", "mmsu.json", "*.jsonl")
LETTERS = "abcd"


def read(folder: Path, split: str) -> Layout:
    """Read the rows; ``audio_path`` is the path of a recording in the folder."""
    path = first_file(folder, FILES, "MMSU")

    def make(row: Mapping[str, Any], number: int) -> Item:
        audio = text_of(row, "audio_path")
        return Item(
            **common_of(row, number),
            audio=recording(folder, audio, f"audio/{Path(audio).name}"),
            **lettered(row),
            answer=answer_of(row, "answer_gt"),
            modality=known(row, "task_name"),
        )

    return read_layout(path, make, "MMSU")


def lettered(row: Mapping[str, Any]) -> dict[str, Any]:
    """The choices under ``choice_a`` to ``choice_d``, as fields of an item; the last two may be missing."""
    first = [text_of(row, f"choice_{letter}") for letter in LETTERS[:2]]
    return distinct(
        (*first, *(choice for letter in LETTERS[2:] if (choice := known(row, f"choice_{letter}"))))
    )


BENCHMARK = Benchmark(
    name="mmsu",
    title="MMSU",
    origin="github.com/dingdongwang/MMSU_Bench at f0ef334",
    rule="the first or the last but one character as a letter; where there is none, the row is left out; an empty "
    "response has the letter of the row before",
    read=read,
    official=letters_carried,
    submit=filled_lines("response"),
    suffix=".jsonl",
    handed_in=as_letter,
)
