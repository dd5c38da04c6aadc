"""AIR-Bench, Chat: open questions, judged beside a reference. ``Chat_meta.json`` beside folders of audio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.air_bench_foundation import audio_of, responses
from echo_agent.benchmarks.benchmark import Benchmark
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.layout import Layout, answer_of, first_file, id_of, jsonl, read_layout, text_of
from echo_agent.benchmarks.rules import Prediction, both_orders

KEPT = ("meta_info", "question", "answer_gt", "path", "task_name", "dataset_name")


def read(folder: Path, split: str) -> Layout:
    """Read the rows."""
    path = first_file(folder, ["Chat_meta.json", "Chat/Chat_meta.json"], "AIR-Bench Chat")

    def make(row: Mapping[str, Any], number: int) -> Item:
        text_of(row, "meta_info")  # what the judge is told of the recording
        return Item(
            id=id_of(row, "uniq_id"),
            audio=audio_of(path.parent, row),
            question=text_of(row, "question"),
            answer=answer_of(row, "answer_gt"),
            kind="open",
            category=text_of(row, "task_name"),
            sub_category=text_of(row, "dataset_name"),
            source=row,
            line=number,
        )

    return read_layout(path, make, "AIR-Bench Chat")


def submit(predictions: Sequence[Prediction]) -> bytes:
    """The responses."""
    return jsonl(responses(predictions, KEPT))


BENCHMARK = Benchmark(
    name="air-bench-chat",
    title="AIR-Bench Chat",
    origin="github.com/OFA-Sys/AIR-Bench at 9832476",
    rule="a judge's score, 1 to 10, beside the reference in both orders; what cannot be read of it is left out",
    read=read,
    official=both_orders,
    submit=submit,
    suffix=".jsonl",
)
