"""What came of an evaluation, as plain JSON: scores per control, what controls differ in, and what answers cost.

The keys of ``echo-agent eval --json``: under ``controls`` each control has ``official`` and ``strict`` beside the
figures of :func:`~echo_agent.scores.summarise`; ``differences`` compares *on* with every other control, question by
question. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from echo_agent.benchmarks.benchmark import Benchmark
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.rules import Referees
from echo_agent.benchmarks.two_scores import Marks, by_group, official_marks, strict_marks
from echo_agent.controls import Condition
from echo_agent.evaluation import can_be_asked
from echo_agent.rows import Question
from echo_agent.scores import Outcome, mcnemar, paired_difference, summarise

POINTS = 40
"""Most points of a curve."""


def summarised(
    benchmark: Benchmark,
    questions: Sequence[Question],
    outcomes: Sequence[Outcome],
    controls: Sequence[Condition],
    *,
    seeds: int = 1,
    referees: Referees | None = None,
) -> dict[str, Any]:
    """Scores of an evaluation.

    Args:
        benchmark: Whose rule is the official one.
        questions: All that were to be asked, in the order of the file.
        outcomes: What came of them, of any controls and seeds.
        controls: What they were to be asked under.
        seeds: How many seeds they were to be asked with.
        referees: Models that some rules need.

    Returns:
        ``controls``, ``differences``, ``chance`` (right by drawing a choice; None without choices) and ``unscored``
        (questions whose answers the benchmark withholds).
    """
    referees = referees or Referees()
    scored = [one for one in questions if not isinstance(one, Item) or one.scored]
    figures = summarise(scored, outcomes)
    found: dict[str, Any] = {}
    strict: dict[Condition, Marks] = {}
    for control in controls:
        asked = [question for question in scored if can_be_asked(question, control)]
        ids = {question.id for question in asked}
        made = [one for one in outcomes if one.control == control and one.id in ids]
        strict[control] = strict_marks(benchmark, asked, made, referees, seeds)
        official = official_marks(benchmark, asked, made, referees)
        found[control] = figures.get(control, {}) | {
            "official": official.score(),
            "strict": strict[control].score(),
            "groups": _behaviour(by_group(strict[control], asked), asked, made),
            "audio_tokens": _mean([one.tokens.get("audio", 0) for one in made]),
            "sampled_tokens": _mean([one.tokens.get("sampled", 0) for one in made]),
            "curves": {
                "audio_tokens": curve(
                    [(one.tokens.get("audio", 0), one.correct) for one in made], len(asked) * seeds
                ),
                "seconds_heard": curve(
                    [(one.seconds_heard, one.correct) for one in made], len(asked) * seeds
                ),
            },
        }
    return {
        "controls": found,
        "differences": differences(strict),
        "chance": _mean([1 / len(question.choices) for question in scored if question.choices]),
        "unscored": len(questions) - len(scored),
    }


def differences(marks: Mapping[Condition, Marks]) -> list[dict[str, Any]]:
    """What *on* has over every other control, or the first control over the others where *on* was not asked."""
    if not marks:
        return []
    first, *others = sorted(marks, key=lambda name: name != "on")
    found = [(other, compared(marks[first].means, marks[other].means)) for other in others]
    return [{"one": first, "other": other, **apart} for other, apart in found if apart]


def compared(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, Any]:
    """Two lists of marks by question, on the questions of both; empty where there are none.

    Returns:
        ``n``, ``points`` of a hundred with ``low`` and ``high`` of the 95 % interval (bootstrap over questions),
        ``mended`` and ``spoiled`` (right in the first only, in the second only), and ``p`` of McNemar's exact test,
        None where marks lie between right and wrong.
    """
    apart = paired_difference(one, other)
    if apart is None:
        return {}
    both = one.keys() & other.keys()
    mended = sum(one[name] > other[name] for name in both)
    spoiled = sum(one[name] < other[name] for name in both)
    whole = all(score in (0.0, 1.0) for name in both for score in (one[name], other[name]))
    return {"n": len(both), **apart, "mended": mended, "spoiled": spoiled} | {
        "p": mcnemar(mended, spoiled) if whole else None
    }


def curve(runs: Sequence[tuple[float, bool]], asked: int) -> list[list[float]]:
    """Which share of all questions is answered right at a cost of at most so much: ``[cost, share]``, rising.

    Args:
        runs: Cost of each run, and whether it was right.
        asked: Runs that were to be made.
    """
    points, right = [], 0
    for cost, several in groupby(sorted(runs), key=lambda run: run[0]):
        right += sum(correct for _, correct in several)
        points.append([float(cost), right / asked])
    step = max(1, -(-len(points) // POINTS))
    return points[::step] + (points[-1:] if points and (len(points) - 1) % step else [])


def _behaviour(
    groups: dict[str, dict[str, Any]], questions: Sequence[Question], outcomes: Sequence[Outcome]
) -> dict[str, dict[str, Any]]:
    """Scores by group, with how the policy listened there."""
    for kind, among in groups.items():
        of = {question.id: question.groups[kind] for question in questions}
        for group, score in among.items():
            made = [one for one in outcomes if of[one.id] == group]
            score["listened"] = _mean([bool(one.relistens) for one in made])
            score["relistens"] = _mean([len(one.relistens) for one in made])
            score["seconds_heard"] = _mean([one.seconds_heard for one in made])
    return groups


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
