"""The evaluation as a task of Inspect (inspect-ai), for groups whose evaluations are run and kept with it.

    inspect eval echo_agent/listening -T benchmark=mmar -T data=FOLDER -T control=off --model none

A sample is a question of a benchmark or of a file; the solver asks :class:`~echo_agent.agent.EchoAgent` as ``echo-agent
eval`` does (:func:`~echo_agent.evaluation.evaluate`), so Inspect's own model is not called. Both scores stand side by
side: the accuracy of the scorer ``strict``, in which everything that was asked is divided by, and the figure
``official``, which applies the benchmark's own rule to all samples in the order of its file. Open answers need a judge,
and are left to ``echo-agent eval --judge``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from echo_agent.agent import EchoAgent
from echo_agent.benchmarks.benchmark import Benchmark
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.rules import Referees
from echo_agent.benchmarks.two_scores import official_marks
from echo_agent.cli.evaluate import chosen
from echo_agent.errors import MissingExtraError, QuestionError
from echo_agent.evaluation import can_be_asked, evaluate, parse_controls
from echo_agent.results_file import Results
from echo_agent.rows import Question
from echo_agent.scores import Outcome
from echo_agent.shipped import DEFAULT

try:
    from inspect_ai import Task, task  # pyright: ignore[reportMissingImports]
    from inspect_ai.dataset import MemoryDataset, Sample  # pyright: ignore[reportMissingImports]
    from inspect_ai.model import ModelOutput  # pyright: ignore[reportMissingImports]
    from inspect_ai.scorer import (  # pyright: ignore[reportMissingImports]
        Metric,
        SampleScore,
        Score,
        Scorer,
        Target,
        accuracy,
        metric,
        scorer,
        stderr,
    )
    from inspect_ai.solver import Generate, Solver, TaskState, solver  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise MissingExtraError('tasks of Inspect need: pip install "echo-agent[inspect]"') from error

OUTCOME = "outcome"
"""Where a sample keeps what came of it (``Outcome`` as JSON); nothing where it could not be run."""


@task
def listening(
    benchmark: str,
    data: str | None = None,
    split: str | None = None,
    control: str = "on",
    model: str = DEFAULT,
    device: str = "auto",
    max_relistens: int = 8,
    temperature: float = 0.0,
    seed: int = 0,
) -> Task:
    """Ask the questions of a benchmark, or of a file, under one control.

    Args:
        benchmark: Name of a benchmark (``mmar``), or a file of questions.
        data: The benchmark's folder.
        split: One of its splits.
        control: One of ``on``, ``off``, ``wrong-crop``, ``silence``, ``oracle`` and ``no-audio``.
        model: As for ``echo-agent eval``.
        device: As for ``echo-agent eval``.
        max_relistens: Most calls of a run.
        temperature: 0 for greedy decoding.
        seed: Of the first epoch; the next has the next one.

    Raises:
        QuestionError: There is no such benchmark, split or control, or nothing in it can be scored without a judge.
        DataError: The folder is not laid out as the benchmark's.
    """
    (wanted,) = parse_controls(control)
    questions = [one for one in read(benchmark, data, split)[1] if can_be_asked(one, wanted)]
    if not questions:
        raise QuestionError(
            f"{benchmark}: no question can be asked under {control!r} and scored without a judge"
        )
    samples = [
        Sample(
            id=one.id,
            input=one.question,
            choices=list(one.choices) if one.choices else None,
            target=getattr(one, "answer", None) or "",
            metadata={name: group for name, group in one.groups.items() if group},
        )
        for one in questions
    ]
    return Task(
        dataset=MemoryDataset(samples, name=f"{Path(benchmark).stem}, {control}"),
        solver=ask(benchmark, data, split, control, model, device, max_relistens, temperature, seed),
        scorer=strict(benchmark, data, split),
    )


@solver
def ask(
    benchmark: str,
    data: str | None,
    split: str | None,
    control: str,
    model: str,
    device: str,
    max_relistens: int,
    temperature: float,
    seed: int,
) -> Solver:
    """Asks an agent, which is loaded once; the arguments are those of :func:`listening`."""
    (wanted,) = parse_controls(control)
    questions = {one.id: one for one in read(benchmark, data, split)[1]}

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        found = Results(None)
        failures = await evaluate(
            agent(model, device),
            [questions[str(state.sample_id)]],
            found,
            controls=[wanted],
            seed=seed + state.epoch - 1,
            max_relistens=max_relistens,
            temperature=temperature,
        )
        if failures:
            state.metadata["failed"] = failures[0].message
            return state
        (outcome,) = found.outcomes.values()
        state.metadata[OUTCOME] = outcome.model_dump(mode="json")
        state.output = ModelOutput.from_content(model=model, content=outcome.answer or outcome.prediction)
        return state

    return solve


@metric
def official(benchmark: str, data: str | None, split: str | None) -> Metric:
    """Accuracy by the benchmark's own rule, with all that is wrong with it."""
    known, questions = read(benchmark, data, split)

    def compute(scores: list[SampleScore]) -> float:
        asked = {str(one.sample_id) for one in scores}
        made = [(one.score.metadata or {}).get(OUTCOME) for one in scores]
        outcomes = [Outcome.model_validate(one) for one in made if one is not None]
        rows = [one for one in questions if one.id in asked]
        accuracy = official_marks(known, rows, outcomes, Referees()).score()["accuracy"]
        return float("nan") if accuracy is None else accuracy

    return compute


def strict(benchmark: str, data: str | None, split: str | None) -> Scorer:
    """Marks each run: what could not be run or read is wrong, and nothing is guessed; with the official figure."""

    @scorer(metrics=[accuracy(), stderr(), official(benchmark, data, split)], name="strict")
    def marks() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            made = state.metadata.get(OUTCOME)
            if made is None:
                return Score(value=0, explanation=state.metadata.get("failed"), metadata={})
            outcome = Outcome.model_validate(made)
            return Score(
                value=int(outcome.correct),
                answer=outcome.answer,
                explanation=outcome.prediction,
                metadata={OUTCOME: made},
            )

        return score

    return marks()


@lru_cache(maxsize=8)
def read(benchmark: str, data: str | None, split: str | None) -> tuple[Benchmark, list[Question]]:
    """A benchmark and those of its questions that can be scored without a judge."""
    known = chosen(benchmark, data, split)
    items = known.layout(Path(data if data is not None else benchmark), split).items
    return known, [one for one in items if not isinstance(one, Item) or (one.scored and one.kind != "open")]


@lru_cache(maxsize=1)
def agent(model: str, device: str) -> EchoAgent:
    """The agent that is asked, for as long as the process lasts."""
    return EchoAgent.from_pretrained(model, device=device)
