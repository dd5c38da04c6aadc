"""The order of examples: every pass has each of them once, and steps are of one length."""

from __future__ import annotations

import numpy as np

from echo_agent.finetune.batching import STRETCH, by_length, sampler_order


def test_each_pass_has_every_example_once_in_an_order_of_its_own() -> None:
    order = sampler_order(10, 35, seed=3)
    rounds = [order[first : first + 10] for first in (0, 10, 20)]
    assert all(sorted(one) == list(range(10)) for one in rounds) and len(order) == 35
    assert len({tuple(one) for one in rounds}) == 3
    assert len(set(order[30:])) == 5
    assert sampler_order(10, 35, seed=3) == order and sampler_order(10, 35, seed=4) != order
    assert sampler_order(10, 12, seed=3) == order[:12], "a longer run begins as a shorter one"


def test_steps_are_of_one_length_and_nothing_is_lost() -> None:
    lengths = np.random.default_rng(0).integers(10, 1000, 5000).tolist()
    places = sampler_order(5000, 4000, seed=0)
    order = by_length(places, lengths, step=16, seed=0)
    assert sorted(order) == sorted(places) and by_length(places, lengths, step=16, seed=0) == order

    def spread(of: list[int]) -> float:
        steps = np.array([lengths[place] for place in of]).reshape(-1, 16)
        return float((steps.max(1) - steps.min(1)).mean())

    assert spread(order) < 0.1 * spread(places)
    assert max(lengths[place] for place in places) in [lengths[place] for place in order[:16]]
    means = np.array([lengths[place] for place in order]).reshape(-1, 16).mean(1)
    assert not np.all(np.diff(means[1:STRETCH]) > 0), "steps come in no order of length"
