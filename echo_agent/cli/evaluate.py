"""``echo-agent eval``: a file of questions or a benchmark in, scores per control out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_agent.benchmarks.benchmark import NAMES, Benchmark, load_benchmark
from echo_agent.benchmarks.echobench import of_file
from echo_agent.benchmarks.rules import Nearest, Referees
from echo_agent.benchmarks.summary import summarised
from echo_agent.cli.ask import check_output, load_agent
from echo_agent.cli.status import StatusLine
from echo_agent.console import console, progress
from echo_agent.controls import Condition
from echo_agent.disk import real_path, write_whole
from echo_agent.errors import DataError, InterruptedWorkError, QuestionError
from echo_agent.evaluation import Failure, can_be_asked, evaluate, parse_controls, questions_hash
from echo_agent.results_file import Results, in_order
from echo_agent.rows import Question
from echo_agent.scores import Outcome
from echo_agent.terminal import printable, say, say_json

if TYPE_CHECKING:
    from echo_agent.benchmarks.judge import Judge

SHOWN = 10
"""Most bad rows that are named on stderr; ``--json`` has all."""


@dataclass(frozen=True)
class Settings:
    """How questions are asked: what an outcome depends on besides the question and the model."""

    max_relistens: int
    temperature: float
    seed: int
    seeds: int
    guided: bool


@dataclass(frozen=True)
class Outputs:
    """Files that are written at the end."""

    report: str | None = None
    """A page, with the Markdown table beside it."""
    submission: str | None = None
    """Predictions in the benchmark's format, of the first control and seed."""


def run(
    file: str,
    *,
    data: str | None,
    split: str | None,
    controls: str,
    model: str,
    device: str,
    server: Sequence[str],
    served_as: str | None,
    placed: dict[str, str],
    settings: Settings,
    batch: int,
    limit: int | None,
    shard: str | None,
    as_json: bool,
    out: str | None,
    outputs: Outputs,
    features: str | None,
    judge: str | None,
    embedder: str | None,
) -> None:
    """Evaluate, print the scores, write what is wanted; exit code 2 where rows could not be asked or run."""
    wanted = parse_controls(controls)
    benchmark = chosen(file, data, split)
    layout = benchmark.layout(Path(data) if data is not None else Path(file), split)
    rows = in_shard(layout.items[:limit], shard)
    referees = Referees(load_judge(judge), load_nearest(embedder))
    check_outputs(outputs, benchmark, file, out)
    for fault in layout.faults[:SHOWN]:
        say(f"echo-agent: {printable(str(fault))}", error=True)
    if len(layout.faults) > SHOWN:
        say(f"echo-agent: and {len(layout.faults) - SHOWN} more rows that cannot be asked", error=True)
    total = sum(can_be_asked(row, control) for row in rows for control in wanted) * settings.seeds
    if not total:
        raise QuestionError("--controls oracle: no question has gold_spans, which say what must be heard")
    results = Results(out)
    if results.dropped:
        say(
            f"{out}: damaged lines that a crash left: {results.dropped}; their rows are asked again",
            error=True,
        )
    try:
        with (
            StatusLine() as status,
            load_agent(
                model, device, status, features=features, server=server, served_as=served_as, **placed
            ) as agent,
            _progress(total, status) as advance,
        ):
            failures = asyncio.run(
                evaluate(
                    agent,
                    rows,
                    results,
                    controls=wanted,
                    seed=settings.seed,
                    seeds=settings.seeds,
                    max_relistens=settings.max_relistens,
                    temperature=settings.temperature,
                    guided=settings.guided,
                    concurrency=batch,
                    questions=questions_hash(layout.items),
                    progress=advance,
                )
            )
            made_by = agent.fingerprint
    except KeyboardInterrupt:
        done = len(results.outcomes)
        raise InterruptedWorkError(
            f"interrupted; {out} holds {done} results: run the same command again to resume"
            if out
            else "interrupted"
        ) from None
    finally:
        results.close()
    seeds = range(settings.seed, settings.seed + settings.seeds)
    outcomes = [
        outcome
        for outcome in in_order(results.outcomes.values())
        if outcome.control in wanted and outcome.seed in seeds
    ]
    scores = summarised(benchmark, rows, outcomes, wanted, seeds=settings.seeds, referees=referees)
    summary = {
        "file": file,
        "benchmark": benchmark.name,
        "split": split or next(iter(benchmark.splits), None),
        "official_rule": benchmark.rule,
        "model": model,
        "made_by": made_by,
        "version": version("echo-agent"),
        "questions_hash": questions_hash(layout.items),
        "seed": settings.seed,
        "seeds": settings.seeds,
        "max_relistens": settings.max_relistens,
        "temperature": settings.temperature,
        "guided": settings.guided,
        "shard": shard,
        "rows_in_file": layout.rows,
        "rows": len(rows),
        "mended": [str(fault) for fault in layout.mended],
        "left_out": [str(fault) for fault in layout.faults],
        "failed": [_describe(file, failure) for failure in failures],
        **scores,
        "judge": referees.judge.report() if referees.judge is not None else None,
    }
    _write(outputs, benchmark, rows, outcomes, wanted, summary)
    if as_json:
        say_json(summary)
    else:
        print_scores(summary)
    for failure in failures:
        say(f"echo-agent: {printable(_describe(file, failure))}", error=True)
    if failures:
        raise QuestionError(
            f"{len(failures)} runs of {total} could not be made; they count as wrong in the strict score, and the "
            "official one leaves them out where its rule does"
        )
    if layout.faults:
        raise DataError(
            f"{len(layout.faults)} rows of {layout.rows} could not be asked; the scores are over the other "
            f"{len(rows)}"
        )


def chosen(file: str, data: str | None, split: str | None) -> Benchmark:
    """The benchmark that is named, or a file of questions as one of its own.

    Raises:
        QuestionError: A benchmark is named without its folder, or a file with one.
    """
    if file in NAMES:
        if data is None and not Path(file).exists():
            raise QuestionError(f"{file} is a benchmark: say where its files are with --data FOLDER")
        if data is not None:
            return load_benchmark(file)
    elif data is not None:
        raise QuestionError(f"{file!r} is not a benchmark: with --data there are {', '.join(NAMES)}")
    if split is not None:
        raise QuestionError(f"--split {split}: {file} is a file of questions, which has no splits")
    return of_file(file)


def in_shard(rows: Sequence[Question], shard: str | None) -> list[Question]:
    """The rows of one part: ``3/8`` are every eighth row from the third on.

    Raises:
        QuestionError: It is no such part, or there is no row in it.
    """
    if shard is None:
        return list(rows)
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    number, parts = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= number <= parts:
        raise QuestionError(f"--shard {shard!r}: write which part of how many, such as 3/8")
    if not (mine := rows[number - 1 :: parts]):
        raise QuestionError(f"--shard {shard}: there are only {len(rows)} questions")
    return list(mine)


def check_outputs(outputs: Outputs, benchmark: Benchmark, file: str, out: str | None) -> None:
    """Refuse, before anything is asked, outputs that would overwrite each other or have the wrong kind."""
    if outputs.report is not None and Path(outputs.report).suffix != ".html":
        raise QuestionError(f"--report {outputs.report}: name a page, such as report.html")
    if outputs.submission is not None and Path(outputs.submission).suffix != benchmark.suffix:
        raise QuestionError(
            f"--submission {outputs.submission}: predictions for {benchmark.title} are a {benchmark.suffix} file"
        )
    for option, path in (("--report", outputs.report), ("--submission", outputs.submission)):
        check_output(option, path, file)
    paths = [real_path(path) for path in (out, outputs.report, outputs.submission) if path is not None]
    if len(set(paths)) < len(paths):
        raise QuestionError("--out, --report and --submission name the same file")


def load_judge(name: str | None) -> Judge | None:
    """The chat model that judges open answers; what it is asked is kept in ``$ECHO_AGENT_HOME/judge``."""
    if name is None:
        return None
    from echo_agent.benchmarks.judge import Judge
    from echo_agent.finetune.data.llm.chat_models import load_chat_model
    from echo_agent.finetune.data.llm.completions import Completions
    from echo_agent.threads import home

    settings = {"temperature": 0.0}
    return Judge(
        Completions(load_chat_model(name, **settings), name, home("judgements") / "judge", settings=settings)
    )


def load_nearest(name: str | None) -> Nearest | None:
    """The embedding model that finds the choice that a text is nearest to."""
    if name is None:
        return None
    from echo_agent.benchmarks.nearest import load_embedder, nearest_by

    return nearest_by(load_embedder(name))


def _write(
    outputs: Outputs,
    benchmark: Benchmark,
    rows: Sequence[Question],
    outcomes: Sequence[Outcome],
    controls: Sequence[Condition],
    summary: dict[str, Any],
) -> None:
    """Write the files that are wanted."""
    if outputs.submission is not None:
        first = {one.id: one for one in reversed(outcomes) if one.control == controls[0]}
        write_whole(Path(outputs.submission), benchmark.submit(benchmark.predictions(rows, first)))
    if outputs.report is not None:
        from echo_agent.pages.evaluation import page
        from echo_agent.pages.tables import markdown

        path = Path(outputs.report)
        write_whole(path, page(benchmark, rows, outcomes, summary).encode())
        write_whole(path.with_suffix(".md"), markdown(summary).encode())


def _describe(file: str, failure: Failure) -> str:
    seed = f", seed {failure.seed}" if failure.seed else ""
    return f"{file}:{failure.row.line}: {failure.row.id} ({failure.control}{seed}): {failure.message}"


@contextmanager
def _progress(total: int, status: StatusLine) -> Iterator[Callable[[Outcome | None], None]]:
    """A bar on stderr while runs go by, with the share that is right and what is left of the time."""
    status.clear()
    with progress("{task.description}", transient=True) as bar:
        task = bar.add_task("asking", total=total)
        made, right = 0, 0

        def advance(outcome: Outcome | None) -> None:
            nonlocal made, right
            made += 1
            right += outcome is not None and outcome.correct
            bar.update(task, advance=1, description=f"asking, {right / made:.1%} right")

        yield advance


# --- the table ----------------------------------------------------------------------------------------------------


def print_scores(summary: dict[str, Any]) -> None:
    """One table: a column per control, a row per score, per group and per figure; then what controls differ in."""
    from rich.table import Table
    from rich.text import Text

    scores: dict[str, dict[str, Any]] = summary["controls"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", *scores):
        table.add_column(title)
    for rule in ("official", "strict"):
        table.add_row(rule, *(share(score[rule]) for score in scores.values()), style="bold")
    for kind in dict.fromkeys(kind for score in scores.values() for kind in score["groups"]):
        for name in dict.fromkeys(
            name for score in scores.values() for name in score["groups"].get(kind, ())
        ):
            groups = (score["groups"].get(kind, {}) for score in scores.values())
            title = f"  {kind.replace('_', '-')} {printable(name)}"
            table.add_row(Text(title), *(share(group[name]) if name in group else "" for group in groups))
    figures: dict[str, Callable[[dict[str, Any]], str]] = {
        "mean IoU (strict)": lambda score: _optional(score["strict"].get("mIoU")),
        "unparsed": lambda score: str(score.get("unparsed", "")),
        "listened again": lambda score: _optional(score.get("listened")),
        "re-listens per question": lambda score: _number(score.get("relistens"), 2),
        "seconds heard again": lambda score: _number(score.get("seconds_heard"), 1),
        "audio tokens": lambda score: _number(score["audio_tokens"], 1),
        "gold span heard": lambda score: _optional(score.get("gold_heard")),
        "gold span IoU": lambda score: _optional(score.get("gold_iou")),
    }
    for title, figure in figures.items():
        cells = [figure(score) for score in scores.values()]
        if any(cells):
            table.add_row(title, *cells)
    console().print(table)
    for apart in summary["differences"]:
        console().print(Text(difference(apart)))
    if summary["unscored"]:
        console().print(Text(f"{summary['unscored']} questions are not scored: their answers are withheld"))


def share(score: dict[str, Any]) -> str:
    """A score with its interval, and what it is over."""
    if score["accuracy"] is None:
        return f"not scored  0/{score['n']}"
    low, high = score["interval"]
    left_out = f" of {score['n']}" if score["over"] < score["n"] else ""
    return (
        f"{score['accuracy']:6.1%}  ({low:.1%} to {high:.1%})  {score['correct']:g}/{score['over']}{left_out}"
    )


def difference(apart: dict[str, Any]) -> str:
    """What one control has over another, in a line."""
    p = "" if apart["p"] is None else f"; McNemar p = {apart['p']:.2g}"
    return (
        f"{apart['one']} over {apart['other']}: {apart['points']:+.1f} points "
        f"({apart['low']:+.1f} to {apart['high']:+.1f}), {apart['mended']} mended, {apart['spoiled']} spoiled, "
        f"n = {apart['n']}{p}"
    )


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
