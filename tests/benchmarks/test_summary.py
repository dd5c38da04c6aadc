"""Two scores and what they are over, seeds, groups, paired differences and curves, against values found by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from echo_agent.benchmarks.benchmark import load_benchmark
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.summary import compared, curve, summarised
from echo_agent.controls import Condition
from echo_agent.scores import Outcome, bootstrap, mcnemar, wilson
from tests.benchmarks.test_rules import item, outcome

MMAU = load_benchmark("mmau")


def run(row: Item, right: bool, control: Condition = "on", **fields: Any) -> Outcome:
    answer = row.answer if right else next(choice for choice in row.choices or () if choice != row.answer)
    return outcome(row, answer or "", answer, control=control, **fields)


def test_what_was_not_run_is_wrong_in_the_strict_score_only() -> None:
    rows = [item(number, modality="music" if number > 2 else "sound") for number in range(1, 5)]
    made = [run(rows[0], True), run(rows[1], False), outcome(rows[2], "")]
    summary = summarised(MMAU, rows, made, ["on"])
    assert json.loads(json.dumps(summary)) == summary
    on = summary["controls"]["on"]
    assert (on["official"]["n"], on["official"]["over"], on["official"]["correct"]) == (4, 3, 1)
    assert (on["strict"]["n"], on["strict"]["over"], on["strict"]["correct"]) == (4, 4, 1)
    assert on["official"]["interval"] == list(wilson(1, 3)) and on["strict"]["interval"] == list(wilson(1, 4))
    assert (on["n"], on["correct"], on["unparsed"]) == (3, 1, 1), "the figures of what was run"
    assert (
        on["groups"]["modality"]["sound"]["accuracy"] == 0.5 and on["groups"]["modality"]["music"]["n"] == 2
    )
    assert summary["chance"] == 0.25 and summary["differences"] == []


def test_a_control_of_which_nothing_was_run_has_its_scores_too() -> None:
    summary = summarised(MMAU, [item()], [], ["on", "off"])
    off = summary["controls"]["off"]
    assert (off["strict"]["accuracy"], off["strict"]["n"], off["official"]["accuracy"]) == (0.0, 1, None)


def test_rows_without_an_answer_are_asked_and_not_scored() -> None:
    rows = [item(1), item(2, None)]
    summary = summarised(MMAU, rows, [run(rows[0], True), outcome(rows[1], "x", "Big dog")], ["on"])
    assert summary["unscored"] == 1 and summary["controls"]["on"]["strict"]["n"] == 1


def test_a_question_counts_once_however_many_seeds() -> None:
    rows = [item(number) for number in range(1, 4)]
    made = [run(row, right, seed=seed) for row, rights in zip(rows, ((1, 1), (1, 0), (0, 0)), strict=True)
            for seed, right in enumerate(map(bool, rights))]  # fmt: skip
    on = summarised(MMAU, rows, made, ["on"], seeds=2)["controls"]["on"]
    assert (on["strict"]["n"], on["strict"]["correct"], on["strict"]["accuracy"]) == (3, 1.5, 0.5)
    low, high = on["strict"]["interval"]
    assert 0 <= low < 0.5 < high <= 1
    on = summarised(MMAU, rows, made[:-1], ["on"], seeds=2)["controls"]["on"]
    assert on["strict"]["correct"] == 1.5 and on["strict"]["n"] == 3


def test_controls_are_compared_question_by_question() -> None:
    rows = [item(number) for number in range(1, 13)]
    rights = {"on": 10, "off": 4, "no-audio": 3}
    made = [
        run(row, place < count, control)
        for control, count in rights.items()
        for place, row in enumerate(rows)
    ]  # type: ignore[arg-type]
    made[rows.index(rows[-1]) + 12] = run(rows[-1], True, "off")
    summary = summarised(MMAU, rows, made, ["off", "on", "no-audio"])
    off, blind = summary["differences"]
    assert (off["one"], off["other"], off["n"], off["mended"], off["spoiled"]) == ("on", "off", 12, 6, 1)
    assert off["points"] == pytest.approx(100 * 5 / 12, abs=0.05) and off["low"] < off["points"] < off["high"]
    assert off["p"] == pytest.approx(0.125) and (blind["mended"], blind["spoiled"]) == (7, 0)


def test_mcnemar_against_published_values() -> None:
    """Fagerland, Lydersen and Laake (2013), tables 1 and 2: exact conditional test, 1 against 7 and 59 against 6."""
    assert mcnemar(1, 7) == pytest.approx(0.070, abs=5e-4)
    assert mcnemar(59, 6) < 1e-10 and mcnemar(6, 59) == mcnemar(59, 6)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1.0 and mcnemar(0, 5) == 0.0625


def test_the_bootstrap_is_as_wide_as_it_should_be() -> None:
    scores = [0.0, 1.0] * 200
    low, high = bootstrap(scores)
    assert (low, high) == pytest.approx(wilson(200, 400), abs=0.006)
    assert (
        bootstrap(scores) == (low, high)
        and bootstrap([]) == (0.0, 1.0)
        and bootstrap([0.5] * 9) == (0.5, 0.5)
    )


def test_a_comparison_without_common_questions_is_empty() -> None:
    assert compared({"a": 1.0}, {"b": 0.0}) == {}
    assert compared({"a": 0.5, "b": 1.0}, {"a": 0.0, "b": 1.0})["p"] is None


def test_a_curve_says_what_right_answers_cost() -> None:
    runs = [(10.0, True), (10.0, False), (20.0, True), (40.0, False)]
    assert curve(runs, 5) == [[10.0, 0.2], [20.0, 0.4], [40.0, 0.4]]
    assert curve([], 5) == []
    many = curve([(float(cost), True) for cost in range(1000)], 1000)
    assert len(many) <= 41 and many[-1] == [999.0, 1.0] and many == sorted(many)
