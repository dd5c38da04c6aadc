"""The blind policy: it finds what is planted, finds nothing in what is fair, and never sees what it is scored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from echo_agent.finetune.data.questions.blind_baseline import (
    BlindPolicy,
    blind_accuracy,
    cross_fitted,
    needs_audio,
)
from echo_agent.finetune.data.questions.composer import GrammarSettings, compose
from echo_agent.finetune.data.records import Sample
from tests.finetune.data.symbolic import record

LABELS = ("bell", "dog", "car", "drum", "bird", "saw", "door", "wolf")
Order = Callable[[np.random.Generator, list[str]], int]


def made(count: int, right: Order, seed: int = 0, choices: Callable[[np.random.Generator], list[str]] | None = None,
         start: int = 0) -> list[Sample]:  # fmt: skip
    rng = np.random.default_rng(seed)
    samples = []
    for n in range(start, start + count):
        drawn = choices(rng) if choices else [LABELS[int(i)] for i in rng.permutation(len(LABELS))[:4]]
        samples.append(
            Sample(
                id=f"s{n}",
                audio="a.wav",
                duration=30,
                question="What comes after the gong?",
                choices=tuple(drawn),
                answer=drawn[right(rng, drawn)],
                record=f"r{n}",
                category="order",
            )  # fmt: skip
        )
    return samples


def numbers(rng: np.random.Generator) -> list[str]:
    return [f"{int(n)} s" for n in rng.choice(100, 4, replace=False)]


def fair(rng: np.random.Generator, drawn: list[str]) -> int:
    return int(rng.integers(len(drawn)))


def mostly(place: Order) -> Order:
    return lambda rng, drawn: place(rng, drawn) if rng.random() < 0.7 else fair(rng, drawn)


def second_largest(_: np.random.Generator, drawn: list[str]) -> int:
    values = [int(text.split()[0]) for text in drawn]
    return values.index(sorted(values)[2])


def bell(rng: np.random.Generator, drawn: list[str]) -> int:
    return drawn.index("bell") if "bell" in drawn else fair(rng, drawn)


def graded(*shares: float) -> Order:
    """Every place right with its own share: where the likeliest is thinned out, the next must not take its place."""
    return lambda rng, drawn: int(rng.choice(4, p=shares))


BIASES = {
    "places by degrees": (graded(0.4, 0.3, 0.2, 0.1), None),
    "two places": (graded(0.5, 0.4, 0.05, 0.05), None),
    "the third place": (mostly(lambda rng, drawn: 2), None),
    "one label": (mostly(bell), None),
    "the longest": (mostly(lambda rng, drawn: max(range(4), key=lambda k: (len(drawn[k]), -k))), None),
    "a number in the middle": (mostly(second_largest), numbers),
}


@pytest.mark.parametrize(
    "bias",
    [
        pytest.param(bias, marks=[] if bias in ("places by degrees", "one label") else pytest.mark.slow)
        for bias in sorted(BIASES)
    ],
)
def test_a_planted_bias_is_found_and_thinned_out(bias: str) -> None:
    right, choices = BIASES[bias]
    train, test = made(1500, right, 1, choices), made(800, right, 2, choices, start=5000)
    report = blind_accuracy(BlindPolicy(train), test)
    assert report.gap > 8 and report.interval[0] > report.chance
    kept, dropped = needs_audio([*train, *test], seed=0)
    assert dropped and len(kept) > 0.12 * 2300
    held = [sample for sample in kept if int(sample.id[1:]) >= 5000]
    after = blind_accuracy(BlindPolicy([sample for sample in kept if int(sample.id[1:]) < 5000]), held)
    assert after.gap < 5, after.report()


def test_nothing_is_found_in_what_is_fair() -> None:
    train, test = made(1500, fair, 1), made(1500, fair, 2, start=5000)
    report = blind_accuracy(BlindPolicy(train), test)
    assert report.interval[0] < report.chance < report.interval[1]
    kept, _ = needs_audio(train, seed=0)
    assert len(kept) > 0.93 * len(train)


def test_the_grammar_gives_nothing_away() -> None:
    train = compose([record(n) for n in range(500)], GrammarSettings())
    test = compose([record(n, seed=1) for n in range(250)], GrammarSettings(wording="test"))
    report = blind_accuracy(BlindPolicy(list(train)), list(test))
    assert report.questions > 1200
    assert abs(report.gap) < 5, report.report()


def test_a_question_is_judged_by_a_policy_that_saw_nothing_of_its_recording() -> None:
    """Each question gives its own answer away by a word of its own, asked twice of one recording."""
    samples = []
    for sample in made(300, fair):
        asked = sample.model_copy(update={"question": f"What comes after {sample.id}?"})
        samples += [asked, asked.model_copy(update={"id": f"{sample.id}-again"})]
    seen = BlindPolicy(samples).answers(samples)
    hits = [
        sample.choices is not None and sample.choices[k] == sample.answer
        for k, sample in zip(seen, samples, strict=True)
    ]
    assert np.mean(hits) > 0.9
    rows = cross_fitted(samples, 0)
    unseen = [
        s.choices is not None and s.choices[int(r.argmax())] == s.answer
        for r, s in zip(rows, samples, strict=True)
    ]
    assert np.mean(unseen) < 0.4


def test_open_questions_are_kept_and_the_order_stays() -> None:
    samples = made(400, mostly(bell))
    opened = [
        s.model_copy(update={"choices": None, "answers": (str(s.answer),), "id": f"o{s.id}"})
        for s in samples[:50]
    ]
    kept, dropped = needs_audio([*opened, *samples], seed=0)
    assert kept[:50] == opened and dropped
    ids = [s.id for s in kept[50:]]
    assert ids == [s.id for s in samples if s.id in set(ids)]
    assert Counter(s.id for s in [*kept, *dropped]) == Counter(s.id for s in [*opened, *samples])


def test_the_same_seed_drops_the_same() -> None:
    samples = made(600, mostly(bell))
    assert needs_audio(samples, seed=1) == needs_audio(samples, seed=1) != needs_audio(samples, seed=2)


def test_nothing_to_learn_from() -> None:
    assert needs_audio([], seed=0) == ([], [])
    report = blind_accuracy(BlindPolicy([]), made(20, fair))
    assert report.questions == 20 and blind_accuracy(BlindPolicy([]), []).questions == 0
