"""The official score and the strict one, side by side, and what each says by group.

- *official*: the benchmark's own rule (:mod:`echo_agent.benchmarks.rules`), divided by what it divides by;
- *strict*: everything that was asked is divided by. What could not be run, could not be read or was left out by a judge
  is wrong, and nothing is guessed. An answer that contains the right one, or begins like it, is not it.

``n`` is what was asked, in both; ``over`` is what is divided by. With several seeds each question counts once with the
mean of its runs. Intervals are at 95 %: Wilson's where each question is right or wrong, else by the bootstrap over
questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark
from echo_agent.benchmarks.grounding import iou, read_span, recalls
from echo_agent.benchmarks.item import FOUND, Item
from echo_agent.benchmarks.rules import Mark, Referees
from echo_agent.rows import LENGTHS, Question
from echo_agent.scores import Outcome, bootstrap, wilson

LONGEST = [name for _, name in LENGTHS]
"""Groups of lengths in their order."""


@dataclass(frozen=True)
class Marks:
    """What one rule makes of the runs under one control."""

    by_question: Mapping[str, tuple[float, ...]]
    """Marks by id of the question, one for each seed; empty where all were left out."""
    ious: Mapping[str, tuple[float, ...]]
    """The same for questions that ask for a span, as IoU."""

    @property
    def means(self) -> dict[str, float]:
        """Mean mark of each question that was not left out."""
        return {name: sum(marks) / len(marks) for name, marks in self.by_question.items() if marks}

    def score(self, among: Callable[[str], bool] = lambda name: True) -> dict[str, Any]:
        """The score over some questions, as plain JSON."""
        asked = [name for name in self.by_question if among(name)]
        means = {name: mean for name, mean in self.means.items() if among(name)}
        spans = [sum(found) / len(found) for name, found in self.ious.items() if found and among(name)]
        correct, over = sum(means.values()), len(means)
        whole = all(mean in (0.0, 1.0) for mean in means.values())
        low, high = wilson(round(correct), over) if whole else bootstrap(list(means.values()))
        return {
            "n": len(asked),
            "over": over,
            "correct": round(correct) if whole else round(correct, 3),
            "accuracy": correct / over if over else None,
            "interval": [low, high],
        } | (recalls(spans) if any(name in self.ious for name in asked) else {})


def official_marks(
    benchmark: Benchmark, questions: Sequence[Question], outcomes: Iterable[Outcome], referees: Referees
) -> Marks:
    """Apply a benchmark's own rule, to the runs of each seed in the order of the file."""
    found: dict[str, list[float]] = {question.id: [] for question in questions}
    spans: dict[str, list[float]] = {one.id: [] for one in questions if _asks_for_a_span(one)}
    for by_id in _by_seed(outcomes).values():
        predictions = benchmark.predictions(questions, by_id)
        for question, mark in zip(questions, benchmark.official(predictions, referees), strict=True):
            if mark is None:
                continue
            if question.id in spans:
                spans[question.id].append(mark)
                mark = float(mark >= FOUND)
            found[question.id].append(mark)
    return Marks(_fixed(found), _fixed(spans))


def strict_marks(
    benchmark: Benchmark,
    questions: Sequence[Question],
    outcomes: Iterable[Outcome],
    referees: Referees,
    seeds: int,
) -> Marks:
    """Mark every run; what is missing of the seeds that were asked for is wrong."""
    runs: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        runs.setdefault(outcome.id, []).append(outcome)
    found: dict[str, list[float]] = {}
    spans: dict[str, list[float]] = {}
    for question in questions:
        made = runs.get(question.id, [])
        marks = [_strict(question, outcome, benchmark, referees) for outcome in made]
        if all(mark is not None for mark in marks):
            found[question.id] = [mark or 0.0 for mark in marks] + [0.0] * (seeds - len(made))
        else:  # an open answer without a judge
            found[question.id] = []
        if _asks_for_a_span(question):
            gold = question.gold_spans[0]
            ious = [iou(read_span(outcome.answer), gold) for outcome in made]
            spans[question.id] = ious + [0.0] * (seeds - len(made))
    return Marks(_fixed(found), _fixed(spans))


def _strict(question: Question, outcome: Outcome, benchmark: Benchmark, referees: Referees) -> Mark:
    """Mark one run; None where only a judge can, and there is none."""
    if not isinstance(question, Item) or question.kind != "open":
        return float(question.is_right(outcome.answer))
    if referees.judge is None:
        return None
    if outcome.answer is None:
        return 0.0
    return referees.judge.strict(question, outcome.answer, beside=benchmark.name == "air-bench-chat")


def by_group(marks: Marks, questions: Sequence[Question]) -> dict[str, dict[str, Any]]:
    """Scores by category, modality, difficulty, length and whatever else the questions are grouped by."""
    groups: dict[str, dict[str, set[str]]] = {}
    for question in questions:
        for kind, group in question.groups.items():
            if group:
                groups.setdefault(kind, {}).setdefault(group, set()).add(question.id)
    return {
        kind: {group: marks.score(among[group].__contains__) for group in sorted(among, key=_order)}
        for kind, among in groups.items()
    }


def _order(group: str) -> tuple[int, str]:
    """Lengths from short to long, the rest by name."""
    return (LONGEST.index(group) if group in LONGEST else len(LONGEST), group)


def _asks_for_a_span(question: Question) -> bool:
    return isinstance(question, Item) and question.kind == "grounding"


def _by_seed(outcomes: Iterable[Outcome]) -> dict[int, dict[str, Outcome]]:
    """Outcomes by seed and id."""
    found: dict[int, dict[str, Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.seed, {})[outcome.id] = outcome
    return found


def _fixed(marks: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(values) for name, values in marks.items()}
