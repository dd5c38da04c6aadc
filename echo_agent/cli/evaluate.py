"""``echo-agent eval``: a file of questions in, scores per control out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from echo_agent.cli.ask import load_agent
from echo_agent.errors import QuestionError
from echo_agent.evaluation import Failure, Results, evaluate, parse_controls
from echo_agent.rows import read_rows
from echo_agent.scores import summarise


def run(
    file: str,
    *,
    controls: str,
    model: str,
    device: str,
    max_relistens: int,
    temperature: float,
    seed: int,
    guided: bool,
    batch: int,
    limit: int | None,
    as_json: bool,
    out: str | None,
    features: str | None,
) -> None:
    """Evaluate, print the scores; exit code 2 where rows could not be run."""
    wanted = parse_controls(controls)
    rows = read_rows(file)[:limit]
    results = Results(out)
    try:
        with (
            load_agent(model, device, Console(stderr=True, highlight=False, markup=False), features) as agent,
            _progress(len(rows) * len(wanted)) as advance,
        ):
            failures = asyncio.run(
                evaluate(
                    agent,
                    rows,
                    results,
                    controls=wanted,
                    seed=seed,
                    max_relistens=max_relistens,
                    temperature=temperature,
                    guided=guided,
                    concurrency=batch,
                    progress=advance,
                )
            )
    finally:
        results.close()
    outcomes = [outcome for outcome in results.outcomes.values() if outcome.control in wanted]
    scores = summarise(rows, outcomes)
    summary = {
        "file": file,
        "model": model,
        "seed": seed,
        "max_relistens": max_relistens,
        "temperature": temperature,
        "guided": guided,
        "rows": len(rows),
        "failed": [_describe(file, failure) for failure in failures],
        "controls": scores,
    }
    if as_json:
        print(json.dumps(summary))
    else:
        _print_scores(scores)
    for failure in failures:
        typer.echo(f"echo-agent: {_describe(file, failure)}", err=True)
    if failures:
        raise QuestionError(
            f"{len(failures)} runs of {len(rows) * len(wanted)} could not be made; they are not scored"
        )


def _describe(file: str, failure: Failure) -> str:
    return f"{file}:{failure.row.line}: {failure.row.id} ({failure.control}): {failure.message}"


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr while runs go by, with what is left of the time; nothing where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _print_scores(scores: dict[str, Any]) -> None:
    """One table: a column per control, a row per figure and per family."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", *scores):
        table.add_column(title)
    table.add_row("accuracy", *(_share(score) for score in scores.values()), style="bold")
    for key, title in (("by_family", "family"), ("by_difficulty", "difficulty")):
        for name in sorted({name for score in scores.values() for name in score[key]}):
            cells = (_share(score[key][name]) if name in score[key] else "" for score in scores.values())
            table.add_row(Text(f"  {title} {name}"), *cells)
    figures: dict[str, Callable[[dict[str, Any]], str]] = {
        "questions": lambda score: str(score["n"]),
        "unparsed": lambda score: str(score["unparsed"]),
        "listened again": lambda score: f"{score['listened']:.0%}",
        "re-listens per question": lambda score: f"{score['relistens']:.2f}",
        "seconds heard again": lambda score: f"{score['seconds_heard']:.1f}",
        "gold span heard": lambda score: _optional(score["gold_heard"]),
        "gold span IoU": lambda score: _optional(score["gold_iou"]),
    }
    for title, figure in figures.items():
        table.add_row(title, *(figure(score) for score in scores.values()))
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=130)
    console.print(table)


def _share(score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return f"{score['accuracy']:6.1%}  ({low:.1%} to {high:.1%})  {score['correct']}/{score['n']}"


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
