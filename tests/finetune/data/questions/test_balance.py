"""Balance: the counts even out."""

from __future__ import annotations

from collections import Counter

import numpy as np

from echo_agent.finetune.data.questions.balance import LEAD, Balance


def test_options_are_taken_in_turn() -> None:
    balance, rng = Balance(), np.random.default_rng(0)
    taken = Counter(balance.least("k", ("a", "b", "c"), rng) for _ in range(31))
    assert sorted(taken.values()) == [10, 10, 11]
    assert balance.rarest("other", ("a",), rng) == "a"


def test_the_answer_stands_at_every_place_in_turn() -> None:
    balance, rng = Balance(), np.random.default_rng(0)
    rows = [balance.place("k", "right", ["x", "y", "z"], rng) for _ in range(40)]
    assert set(Counter(row.index("right") for row in rows).values()) == {10}
    assert all(sorted(row) == ["right", "x", "y", "z"] for row in rows)


def test_a_label_that_was_right_too_often_is_not_let_win_and_is_wrong_first() -> None:
    balance, rng = Balance(), np.random.default_rng(0)
    assert balance.may_win("k", "drum", "bell")
    while balance.score("k", "drum") < LEAD:
        balance.decide("k", "drum", ["car"])
    assert not balance.may_win("k", "drum", "bell")
    assert balance.overdue("k", ["bell", "drum", "car"], rng)[0] == "drum"
    assert balance.due("k", ["bell", "drum", "car"], rng)[0] == "car"
    assert balance.score("other", "drum") == 0
