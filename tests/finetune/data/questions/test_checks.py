"""Judging: each rule has a sample that breaks it, and nothing sound is dropped."""

from __future__ import annotations

import pytest

from echo_agent.finetune.data.questions.checks import check_samples, places
from echo_agent.finetune.data.questions.composer import GrammarSettings, compose
from echo_agent.finetune.data.records import Event, Record, Sample
from tests.finetune.data.symbolic import record

KITCHEN = Record(
    id="k", audio="k.wav", duration=30, events=(Event("bell", "sound", 3, 5), Event("dog", "sound", 10, 12))
)
WRITTEN: dict[str, object] = {
    "id": "k-1", "audio": "k.wav", "duration": 30, "question": "What rings?", "choices": ["the bell", "the dog"],
    "answer": "the bell", "gold_spans": [[3, 5]], "record": "k", "composer": "a-model",
    "reasoning": "Near the start <seg>2, 6</seg> and hear a bell.",
}  # fmt: skip


def test_what_the_grammar_asks_is_kept() -> None:
    records = [record(n) for n in range(60)]
    checked = check_samples(compose(records, GrammarSettings()), {r.id: r for r in records})
    assert len(checked.kept) > 300 and not checked.dropped


def test_a_sound_sample_of_a_model_is_kept() -> None:
    assert len(check_samples([Sample.model_validate(WRITTEN)], {"k": KITCHEN}).kept) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": "What is it about the bell that rings, is it the bell?"}, "names its answer"),
        ({"choices": None, "answer": None, "answers": ["bell"], "question": "A bell?"}, "holds its answer"),
        ({"gold_spans": [[20, 22]], "reasoning": ""}, "no event is"),
        ({"gold_spans": [[29.9, 30.04]], "reasoning": ""}, "no event is"),
        ({"reasoning": "It rings <seg>40, 41</seg> there."}, "outside of the recording"),
        ({"reasoning": "It rings <seg>5, 2</seg> there."}, "outside of the recording"),
        ({"reasoning": "It rings <seg>20, 25</seg> there."}, "nowhere where the answer"),
        ({"reasoning": "It rings <seg>soon</seg> there."}, "cannot be read"),
        ({"reasoning": "It rings <seg>2, 6 there."}, "cannot be read"),
        ({"reasoning": "So <answer>the bell</answer>"}, "answer tag"),
        ({"record": "elsewhere"}, "no record"),
        ({"composer": "grammar"}, "do not bear the answer out"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_dropped_with_the_reason(change: dict[str, object], reason: str) -> None:
    checked = check_samples([Sample.model_validate(WRITTEN | change)], {"k": KITCHEN})
    assert not checked.kept
    assert reason in checked.dropped[0][1]
    assert "0 samples kept, 1 dropped" in checked.report()


def test_nothing_is_asked_twice_of_one_recording() -> None:
    first = Sample.model_validate(WRITTEN)
    checked = check_samples(
        [first, first.model_copy(update={"id": "k-2", "question": "what rings"})], {"k": KITCHEN}
    )
    assert [s.id for s in checked.kept] == ["k-1"] and "twice" in checked.dropped[0][1]


def test_places_of_the_right_choice_are_counted() -> None:
    first = Sample.model_validate(WRITTEN)
    second = first.model_copy(update={"choices": ("a", "the bell", "c"), "answer": "the bell"})
    assert places([first, first, second]) == {2: [2, 0], 3: [0, 1, 0]}
