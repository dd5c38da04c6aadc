"""LAT-Bench, temporal grounding: where in up to 30 minutes something is, as ``[MM:SS-MM:SS]``. One file of JSON lines.

Rows are chats: a question with the mark ``<audio>``, the right span as the assistant's turn, and the path of the
recording. Rows with ``question``, ``labels`` and ``audio`` are read too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark
from echo_agent.benchmarks.grounding import clock_span, official_span
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.layout import Layout, first_file, jsonl, known, read_layout, recording, text_of
from echo_agent.benchmarks.rules import Prediction, parsable_spans

MARK = "<audio>"
"""Stands for the recording in a question."""


def read(folder: Path, split: str) -> Layout:
    """Read the rows."""
    path = first_file(folder, ["*TAG*.jsonl", "*tag*.jsonl", "*.jsonl"], "LAT-Bench's temporal grounding")

    def make(row: Mapping[str, Any], number: int) -> Item:
        question, label, audio = _parts(row)
        span = official_span(label)
        if span is None or span[0] >= span[1]:
            raise ValueError(f"the answer {label!r} is no span such as [00:12-00:22]")
        return Item(
            id=known(row, "id") or str(number),
            audio=recording(
                folder, audio, Path(audio).name, f"audio/{Path(audio).name}", f"audios/{Path(audio).name}"
            ),
            question=question.replace(MARK, "").strip(),
            answer=clock_span(span),
            gold_spans=(span,),
            kind="grounding",
            category=known(row, "category") or known(row, "task"),
            source=row,
            line=number,
        )

    return read_layout(path, make, "LAT-Bench")


def _parts(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Question, right span and path of the recording; raises ValueError where the row has another form."""
    if "messages" not in row:
        return text_of(row, "question"), text_of(row, "labels"), text_of(row, "audio")
    said = {
        str(message.get("role")): message.get("content")
        for message in row["messages"]
        if isinstance(message, dict)
    }
    audios = row.get("audios")
    if not isinstance(audios, list) or len(audios) != 1 or not isinstance(audios[0], str):
        raise ValueError(f"'audios' is {audios!r}, and should be a list of one path")
    label = row.get("labels", said.get("assistant"))
    if not isinstance(label, str) or not isinstance(said.get("user"), str):
        raise ValueError("its messages hold no question and answer")
    return str(said["user"]), label, audios[0]


def submit(predictions: Sequence[Prediction]) -> bytes:
    """One object per row with ``response`` and ``labels``, which the official script reads."""
    return jsonl(
        {"response": prediction.text or "", "labels": prediction.item.answer, "id": prediction.item.id}
        for prediction in predictions
    )


BENCHMARK = Benchmark(
    name="lat-bench",
    title="LAT-Bench grounding",
    origin="github.com/alanshaoTT/LAT-Audio-Repo at 98965ac",
    rule="mean IoU and recall at IoU 0.3, 0.5 and 0.7 over the rows in which a span can be read",
    read=read,
    official=parsable_spans,
    submit=submit,
    suffix=".jsonl",
)
