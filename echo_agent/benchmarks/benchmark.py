"""What is known of a benchmark: where its rows are, its official rule, and the form in which predictions go in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.layout import Layout, json_list, jsonl
from echo_agent.benchmarks.rules import Prediction, Rule
from echo_agent.errors import QuestionError
from echo_agent.rows import Question
from echo_agent.scores import Outcome

Read = Callable[[Path, str], Layout]
"""Reads a folder and the name of a split."""
Submit = Callable[[Sequence[Prediction]], bytes]
"""Makes a file of predictions."""

NAMES = {
    "mmau": "mmau",
    "mmau-pro": "mmau_pro",
    "mmar": "mmar",
    "mmsu": "mmsu",
    "air-bench-foundation": "air_bench_foundation",
    "air-bench-chat": "air_bench_chat",
    "lat-bench": "lat_bench",
    "voice-giraffe": "voice_giraffe",
    "echobench": "echobench",
}
"""The module of each benchmark."""


def as_given(question: Question, outcome: Outcome) -> str:
    """The answer; where none could be read, what was written."""
    return outcome.prediction if outcome.answer is None else outcome.answer


def as_letter(question: Question, outcome: Outcome) -> str:
    """The letter of the choice that was answered; where none could be read, what was written."""
    if isinstance(question, Item) and (letter := question.letter_of(outcome.answer)):
        return letter
    return outcome.prediction


def answer_alone(question: Question, outcome: Outcome) -> str:
    """The answer; empty where none could be read."""
    return outcome.answer or ""


def filled(key: str) -> Submit:
    """Makes a JSON list of the benchmark's own rows, each with its prediction under ``key``; without one, no key."""
    return lambda predictions: json_list(filled_rows(predictions, key))


def filled_lines(key: str) -> Submit:
    """As :func:`filled`, with one row per line."""
    return lambda predictions: jsonl(filled_rows(predictions, key))


def filled_rows(predictions: Sequence[Prediction], key: str) -> list[dict[str, Any]]:
    """The benchmark's rows with their predictions."""
    return [
        {**prediction.item.source, **({} if prediction.text is None else {key: prediction.text})}
        for prediction in predictions
    ]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark."""

    name: str
    title: str
    origin: str
    """Where layout and rule were read."""
    rule: str
    """The official rule in a sentence, with what is wrong with it."""
    read: Read
    official: Rule
    submit: Submit
    """Makes the file that is handed in."""
    suffix: str = ".json"
    """Of that file."""
    splits: tuple[str, ...] = ()
    """The first is read where none is named; empty: there is but one."""
    handed_in: Callable[[Question, Outcome], str] = as_given
    """What is handed in for a run."""

    def predictions(self, questions: Sequence[Question], outcomes: Mapping[str, Outcome]) -> list[Prediction]:
        """What is handed in, in the order of the questions; outcomes are by id."""
        return [
            Prediction(one, self.handed_in(one, outcomes[one.id]) if one.id in outcomes else None)
            for one in questions
        ]

    def layout(self, folder: Path, split: str | None) -> Layout:
        """Read a folder.

        Raises:
            QuestionError: There is no such split.
            DataError: The folder is not laid out as this benchmark's.
        """
        if split is not None and split not in self.splits:
            there = f"there are {', '.join(self.splits)}" if self.splits else "it has none"
            raise QuestionError(f"--split {split}: {self.name} has no such split; {there}")
        return self.read(folder, split or (self.splits[0] if self.splits else ""))


def load_benchmark(name: str) -> Benchmark:
    """A benchmark by its name, one of :data:`NAMES`."""
    found = import_module(f"echo_agent.benchmarks.{NAMES[name]}").BENCHMARK
    assert isinstance(found, Benchmark)
    return found
