"""VoiceGiraffe: hours of talk, four choices inside the question. ``benchmark/benchmark_1500.jsonl`` and ``audios/``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark, as_letter
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.layout import (
    EXTENSIONS,
    Layout,
    distinct,
    first_file,
    jsonl,
    known,
    read_layout,
    recording,
    text_of,
)
from echo_agent.benchmarks.rules import Prediction, best_letter, likely_letter

LETTERS = "ABCD"
_OPTION = re.compile(r"^\s*([ABCD])\s*[:：]\s*(.+?)\s*$", re.MULTILINE)


def read(folder: Path, split: str) -> Layout:
    """Read the rows; recordings are looked for by the last part of their path."""
    path = first_file(
        folder,
        ["benchmark/benchmark_1500.jsonl", "benchmark_1500.jsonl", "benchmark/*.jsonl"],
        "VoiceGiraffe",
    )

    def make(row: Mapping[str, Any], number: int) -> Item:
        question, choices = _inlined(text_of(row, "question"))
        name = Path(text_of(row, "audio")).stem
        letter = text_of(row, "answer").strip().upper()
        if letter not in list(LETTERS):
            raise ValueError(f"the answer {letter!r} is none of the letters A to D")
        return Item(
            id=f"{number - 1:06d}_{name}",
            audio=recording(folder, *(f"audios/{name}{extension}" for extension in EXTENSIONS)),
            question=question,
            **distinct(choices),
            answer=choices[LETTERS.index(letter)],
            category=known(row, "qa_type"),
            sub_category=known(row, "qa_level"),
            modality=known(row, "language_type"),
            source=row,
            line=number,
        )

    return read_layout(path, make, "VoiceGiraffe")


def _inlined(text: str) -> tuple[str, tuple[str, ...]]:
    """Question and choices of a text; raises ValueError where it does not end with A to D."""
    found = list(_OPTION.finditer(text))
    if [option[1] for option in found] != list(LETTERS):
        raise ValueError("its question does not end with the choices A to D, each on a line")
    return text[: found[0].start()].strip(), tuple(option[2] for option in found)


def submit(predictions: Sequence[Prediction]) -> bytes:
    """One object per row, as the official evaluator reads predictions."""
    return jsonl(
        {
            "sample_id": item.id,
            "youtube_id": Path(str(item.source["audio"])).stem,
            "qa_type": item.category,
            "qa_level": item.sub_category,
            "language_type": item.modality,
            "gold": item.letter,
            "pred": likely_letter(prediction.text or "") or None,
            "raw_text": prediction.text or "",
            "error": None if prediction.text is not None else "not run",
            "question": item.source["question"],
        }
        for prediction in predictions
        for item in [prediction.item]
    )


BENCHMARK = Benchmark(
    name="voice-giraffe",
    title="VoiceGiraffe",
    origin="github.com/VoiceGiraffe/VoiceGiraffe at 2e3e208",
    rule="the letter that looks most like an answer, else the last letter that stands alone; without one it is wrong",
    read=read,
    official=best_letter,
    submit=submit,
    suffix=".jsonl",
    handed_in=as_letter,
)
