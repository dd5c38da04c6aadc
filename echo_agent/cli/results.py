"""``echo-agent eval compare`` and ``merge``: what is made of files of results, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from echo_agent.benchmarks.summary import compared
from echo_agent.cli.evaluate import difference
from echo_agent.console import console
from echo_agent.controls import Condition
from echo_agent.errors import DataError
from echo_agent.results_file import Results, in_order, key_of
from echo_agent.scores import Outcome
from echo_agent.terminal import printable, say, say_json


def compare(first: str, second: str, *, as_json: bool) -> None:
    """Print what the first evaluation has over the second, under each control that both were asked under.

    Raises:
        DataError: A file holds no results, or the two have no question in common.
    """
    one, other = read(first), read(second)
    found: dict[str, Any] = {}
    for control in get_args(Condition):
        apart = compared(_means(one, control), _means(other, control))
        if apart:
            found[control] = {"one": first, "other": second, **apart}
    if not found:
        raise DataError(f"{first} and {second} have no question in common under the same control")
    asked = [{outcome.id for outcome in outcomes} for outcomes in (one, other)]
    summary = {
        "first": first,
        "second": second,
        "only_in_first": len(asked[0] - asked[1]),
        "only_in_second": len(asked[1] - asked[0]),
        "controls": found,
    }
    if as_json:
        say_json(summary)
        return
    for control, apart in found.items():
        console().print(f"{control}: {difference(apart)}", soft_wrap=True)
    for name, count in ((first, summary["only_in_first"]), (second, summary["only_in_second"])):
        if count:
            say(
                f"{printable(name)}: {count} questions are not in the other file, and not compared",
                error=True,
            )


def merge(out: str, shards: Sequence[str]) -> None:
    """Join results of shards in one file, in the order of the questions.

    Raises:
        DataError: A file holds no results, they are not of one evaluation, or two hold different results for the same
            run.
    """
    joined: dict[Any, tuple[str, Outcome]] = {}
    made_by: dict[str, str] = {}
    for path in shards:
        for outcome in read(path):
            made_by.setdefault(outcome.made_by, path)
            if len(made_by) > 1 or not outcome.made_by:
                raise DataError(_not_together(path, made_by))
            known = joined.setdefault(key_of(outcome), (path, outcome))
            if known[1] != outcome:
                raise DataError(
                    f"{known[0]} and {path} hold different results for row {outcome.id!r} ({outcome.control}, seed "
                    f"{outcome.seed}): they are not shards of one evaluation"
                )
    results = Results(out)
    try:
        if strange := {one.made_by for one in results.outcomes.values()} - made_by.keys():
            raise DataError(
                f"{out} holds results of another evaluation ({', '.join(strange)}); name another file"
            )
        for outcome in in_order(outcome for _, outcome in joined.values()):
            if key_of(outcome) not in results.outcomes:
                results.add(outcome)
        results.arrange()
        asked = {outcome.id for outcome in results.outcomes.values()}
        say(
            f"{out}: {len(results.outcomes)} results of {len(asked)} questions. The command of the shards without "
            f"--shard and with --out {out} scores them, and asks what is missing"
        )
    finally:
        results.close()


def read(path: str) -> list[Outcome]:
    """The outcomes of a file of results.

    Raises:
        DataError: There is no such file, it is in use, or it holds no results.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: there is no such file of results")
    results = Results(path)
    results.close()
    if not results.outcomes:
        raise DataError(f"{path} holds no results")
    return list(results.outcomes.values())


def _not_together(path: str, made_by: dict[str, str]) -> str:
    """Why a shard is refused."""
    if len(made_by) < 2:
        return f"{path} holds results that do not say what they were made by; ask its questions again"
    first = next(iter(made_by.values()))
    return f"{first} and {path} are not shards of one evaluation: model, version, settings or file of questions differ"


def _means(outcomes: Sequence[Outcome], control: str) -> dict[str, float]:
    """Share of a question's seeds that are right, by id."""
    marks: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.control == control:
            marks.setdefault(outcome.id, []).append(float(outcome.correct))
    return {name: sum(values) / len(values) for name, values in marks.items()}
