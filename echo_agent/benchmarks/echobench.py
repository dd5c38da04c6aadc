"""EchoBench, and any file of questions of our own (docs/python.md): there is one rule, and it is strict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from echo_agent.benchmarks.benchmark import Benchmark, answer_alone
from echo_agent.benchmarks.layout import Layout, first_file, jsonl
from echo_agent.benchmarks.rules import Prediction, exact
from echo_agent.rows import read_rows

RULE = "the right choice, or a right answer word for word; rows that could not be run are left out"


def read(folder: Path, split: str) -> Layout:
    """Read a test of a folder that ``echo-agent finetune data bench`` built."""
    return Layout(items=list(read_rows(first_file(folder, [f"{split}.jsonl"], "EchoBench"))))


def submit(predictions: Sequence[Prediction]) -> bytes:
    """One object per row with its id and prediction."""
    return jsonl({"id": one.question.id, "prediction": one.text} for one in predictions)


def of_file(path: str) -> Benchmark:
    """A file of questions as a benchmark of its own."""
    return Benchmark(
        name=Path(path).name,
        title=Path(path).stem,
        origin="docs/python.md",
        rule=RULE,
        read=lambda folder, split: Layout(items=list(read_rows(path))),
        official=exact,
        submit=submit,
        suffix=".jsonl",
        handed_in=answer_alone,
    )


BENCHMARK = Benchmark(
    name="echobench",
    title="EchoBench",
    origin="docs/data.md",
    rule=RULE,
    read=read,
    official=exact,
    submit=submit,
    suffix=".jsonl",
    splits=("core", "unseen", "long", "hour_sparse", "hour_dense"),
    handed_in=answer_alone,
)
