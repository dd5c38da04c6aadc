"""The composer: what it asks is sound, level, balanced, and a function of its seed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from echo_agent.answers import match_choice
from echo_agent.dialects import InlineDialect
from echo_agent.finetune.data.questions.checks import called_span, places
from echo_agent.finetune.data.questions.composer import (
    CATEGORIES,
    MAKERS,
    SHORT,
    TAUGHT,
    GrammarSettings,
    compose,
)
from echo_agent.finetune.data.questions.difficulty import DETAIL_FROM, READ_AS
from echo_agent.finetune.data.questions.draft import KIN, akin
from echo_agent.finetune.data.questions.music import COURSES
from echo_agent.finetune.data.questions.phrasings import wordings
from echo_agent.finetune.data.questions.reasoning import LONG
from echo_agent.finetune.data.questions.solver import faults
from echo_agent.finetune.data.records import Event, Record, Sample
from tests.finetune.data.symbolic import record

SCENES = 800


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [record(n) for n in range(SCENES)]


@pytest.fixture(scope="module")
def samples(records: list[Record]) -> list[Sample]:
    return list(compose(records, GrammarSettings(seed=3)))


def kind_of(sample: Sample) -> str:
    return sample.phrasing.rsplit("/", 2)[0]


def test_every_kind_of_question_but_those_about_chords_is_asked_and_has_wordings(
    samples: list[Sample],
) -> None:
    assert set(wordings()) == set(MAKERS)
    assert {kind_of(sample) for sample in samples} == {
        kind for kind in MAKERS if not kind.startswith(("chord", *TAUGHT))
    }


def test_the_solver_finds_every_answer_anew_from_text_and_events(
    records: list[Record], samples: list[Sample]
) -> None:
    by_id = {r.id: r for r in records}
    assert len(samples) > 5 * SCENES
    assert [(s.question, found) for s in samples if (found := faults(s, by_id[s.record]))] == []


def test_families_are_level(samples: list[Sample]) -> None:
    counts = Counter(sample.category for sample in samples)
    assert set(counts) == set(CATEGORIES) - {"chord"}, counts
    common = [count for category, count in counts.items() if category not in ("pattern",)]
    assert max(common) < 1.3 * min(common)


def test_the_right_choice_stands_everywhere_alike(samples: list[Sample]) -> None:
    fixed = {
        "presence/is",
        "count/hits",
        "when/part",
        "who/speaks",
        "who/first",
        "compare/voice",
        "melody/course",
    }
    for size, row in places([s for s in samples if kind_of(s) not in fixed]).items():
        assert max(row) - min(row) <= 30, (size, row)
    for kind in sorted(fixed):
        answers = Counter(s.answer for s in samples if kind_of(s) == kind and s.choices)
        assert max(answers.values()) < 1.35 * min(answers.values()), (kind, answers)


def test_no_label_is_right_more_often_than_its_share(samples: list[Sample]) -> None:
    """What a listener who never hears would guess: the label that is mostly right."""
    for kind in ("order/first", "loudness/louder", "duration/longer", "presence/which", "order/next"):
        score: dict[str, float] = defaultdict(float)
        some = [s for s in samples if kind_of(s) == kind and s.choices]
        for sample in some:
            assert sample.choices
            for choice in sample.choices:
                score[choice] += (choice == sample.answer) - 1 / len(sample.choices)
        right = 0
        for sample in some:
            assert sample.choices
            right += max(sample.choices, key=lambda choice: score[choice]) == sample.answer
        chance = float(np.mean([1 / len(s.choices or "?") for s in some]))
        assert right / len(some) < chance + 0.2, kind


def test_presence_is_yes_as_often_as_no_for_every_label(samples: list[Sample]) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        if kind_of(sample) == "presence/is":
            label = next(
                word for word in sample.question.lower().strip("?").split() if word in _labels(samples)
            )
            counts[label][str(sample.answer)] += 1
    assert sum(row.total() for row in counts.values()) > 100
    assert all(abs(row["yes"] - row["no"]) <= 2 for row in counts.values()), counts


def _labels(samples: list[Sample]) -> set[str]:
    return set(record(0).labels)


def test_a_voice_is_the_answer_only_where_it_may_be(records: list[Record], samples: list[Sample]) -> None:
    by_id = {r.id: r for r in records}
    asked = {"order/next", "order/previous", "between/which"}
    voiced = list(compose(records, GrammarSettings(seed=3, voices=True)))
    offered = [s for s in voiced if s.choices and "voice" in s.choices]
    assert {kind_of(s) for s in offered} == asked
    assert not any("voice" in (*(s.choices or ()), s.answer) for s in samples)
    right = [s for s in offered if s.answer == "voice"]
    assert {kind_of(s) for s in right} == asked
    assert 0.15 < len(right) / len(offered) < 0.45  # right as often as any of four choices
    assert [(s.question, found) for s in right if (found := faults(s, by_id[s.record]))] == []


def test_a_list_of_all_sounds_is_asked_only_where_it_is_wanted(
    records: list[Record], samples: list[Sample]
) -> None:
    by_id = {r.id: r for r in records}
    assert not {s.category for s in samples} & set(TAUGHT)
    settings = GrammarSettings(seed=3, categories=(*CATEGORIES, *TAUGHT), reasoning="terse")
    lists = [s for s in compose(records, settings) if s.category == "list"]
    assert len(lists) > 100 and not any(s.listens for s in lists)
    for sample in lists:
        events = by_id[sample.record].events
        assert sample.right == (", ".join(dict.fromkeys(event.label for event in events)),)
        if sample.reasoning:
            told = ", ".join(f"{math.floor(event.onset)} {event.label}" for event in events)
            assert sample.reasoning == f"{told}."
        assert faults(sample, by_id[sample.record]) == []


def test_reasoning_names_a_span_before_it_says_what_is_heard(
    records: list[Record], samples: list[Sample]
) -> None:
    by_id = {r.id: r for r in records}
    told = [s for s in samples if s.listens and s.category in ("digit", "word", "digit_sequence")]
    assert len(told) > 300
    for sample in told:
        before, _, after = sample.reasoning.partition("<seg>")
        heard = next(
            " ".join(e.content)
            for e in by_id[sample.record].events
            if (e.onset, e.offset) == sample.gold_spans[0]
        )
        assert heard not in before and heard in after


def test_calls_can_be_read_and_hold_what_must_be_heard(records: list[Record], samples: list[Sample]) -> None:
    by_id = {r.id: r for r in records}
    for sample in samples:
        parsed = InlineDialect().parse(sample.reasoning)
        assert not parsed.invalid
        spans = [called_span(call) for call in parsed.calls]
        assert all(0 <= start < end <= by_id[sample.record].duration for start, end in spans)
        if sample.difficulty == "detail" and sample.reasoning:
            assert all(any(a <= s and e <= b for a, b in spans) for s, e in sample.gold_spans), sample


def test_about_a_third_answers_without_a_call_and_short_recordings_do(samples: list[Sample]) -> None:
    told = [sample for sample in samples if sample.reasoning]
    assert 0.25 < np.mean([not sample.listens for sample in told]) < 0.5
    short = list(compose([record(n, 8, SHORT - 1) for n in range(60)], GrammarSettings()))
    silent = [sample for sample in short if sample.difficulty == "plain"]
    assert silent and not any(sample.listens for sample in silent)
    assert all(sample.listens for sample in short if sample.difficulty == "detail" and sample.reasoning)


def test_in_a_long_recording_a_wide_stretch_is_heard_first() -> None:
    long = list(compose([record(n, 300, 600) for n in range(20)], GrammarSettings(rl_share=0)))
    told = [sample for sample in long if sample.category == "digit" and sample.listens]
    assert told
    for sample in told:
        spans = [called_span(call) for call in InlineDialect().parse(sample.reasoning).calls]
        assert spans[0][1] - spans[0][0] >= 20 > spans[-1][1] - spans[-1][0]
        assert spans[0][0] <= spans[-1][0] and spans[-1][1] <= spans[0][1]
    assert all(sample.duration and sample.duration > LONG for sample in told)


def test_tests_have_wordings_that_training_has_not(records: list[Record]) -> None:
    lines = {
        split: {line for kind in wordings().values() for line in kind[split]} for split in ("train", "test")
    }
    assert not lines["train"] & lines["test"]
    tested = list(compose(records[:50], GrammarSettings(wording="test"), lambda _: "test"))
    assert all("/test/" in sample.phrasing and sample.use == "" for sample in tested)


def test_some_are_left_to_reinforcement_learning_without_reasoning(samples: list[Sample]) -> None:
    left = [sample for sample in samples if sample.use == "rl"]
    assert 0.25 < len(left) / len(samples) < 0.35
    assert not any(sample.reasoning for sample in left)
    assert all(sample.reasoning for sample in samples if sample.use == "sft")


def test_the_same_seed_gives_the_same_samples_and_another_gives_others(records: list[Record]) -> None:
    first, again, other = (list(compose(records[:40], GrammarSettings(seed=s))) for s in (1, 1, 2))
    assert first == again != other


def test_a_recording_is_never_asked_the_same_twice(samples: list[Sample]) -> None:
    assert len({(s.record, s.question) for s in samples}) == len(samples) == len({s.id for s in samples})


def test_a_recording_may_be_asked_more_than_there_are_categories(records: list[Record]) -> None:
    many = list(compose(records[:40], GrammarSettings(fewest=32, most=32)))
    counts = Counter(sample.record for sample in many)
    assert max(counts.values()) > len(CATEGORIES)
    assert len({(s.record, s.question) for s in many}) == len(many)


def test_open_questions_are_asked_and_take_numerals(samples: list[Sample]) -> None:
    opened = [sample for sample in samples if sample.choices is None]
    assert {s.category for s in opened} == {"digit", "digit_sequence", "word", "count"}
    sequence = next(s for s in opened if s.category == "digit_sequence")
    spoken = sequence.right[0].split()
    assert len(sequence.right) == 3 and len(sequence.right[2]) == len(spoken)


def test_choices_of_digits_are_as_like_each_other_as_can_be(samples: list[Sample]) -> None:
    """No choice is the one that the others were made from."""
    for sample in samples:
        if sample.category == "digit_sequence" and sample.choices:
            rows = [choice.split() for choice in sample.choices]
            distances = [
                sorted(sum(a != b for a, b in zip(row, other, strict=True)) for other in rows) for row in rows
            ]
            assert distances == [[0, 1, 1, 2]] * 4


def test_where_not_everything_is_marked_nothing_is_asked_that_needs_it() -> None:
    partial = [record(n).model_copy(update={"complete": False}) for n in range(60)]
    asked = {kind_of(sample) for sample in compose(partial, GrammarSettings())}
    assert asked & {"order/first", "when/second", "loudness/louder"}
    assert not asked & {
        "order/next", "order/previous", "between/which", "first_last/first", "first_last/last", "count/hits",
        "presence/missing", "presence/which", "word/nth", "pattern/pair",
    }  # fmt: skip


def test_sounds_that_begin_together_have_no_order() -> None:
    events = (
        Event("bell", "sound", 5.0, 6.0),
        Event("car", "sound", 5.1, 7.0),
        Event("dog", "sound", 5.2, 8.0),
    )
    chord = Record(id="r", audio="r.wav", duration=20, events=events)
    assert not [s for s in compose([chord], GrammarSettings(categories=("order", "between", "first_last")))]


def test_akin_labels_are_no_choices_beside_each_other(samples: list[Sample]) -> None:
    assert akin("bell", "telephone") and akin("dog bark", "dog") and not akin("bell", "dog")
    assert all(len(kin) > 1 for kin in KIN)
    for sample in samples:
        if sample.choices and kind_of(sample) in (
            "order/next",
            "presence/which",
            "order/first",
            "between/which",
        ):
            labels = list(sample.choices)
            assert not any(akin(a, b) for i, a in enumerate(labels) for b in labels[:i])


def test_in_a_set_where_only_men_speak_nobody_is_asked_who_speaks() -> None:
    def lowered(r: Record) -> Record:
        return r.model_copy(update={"events": tuple(replace(e, gender=e.gender and "man") for e in r.events)})

    men = [lowered(record(n)) for n in range(60)]
    assert not [s for s in compose(men, GrammarSettings(categories=("who",)))]


def test_detail_follows_the_gate(samples: list[Sample]) -> None:
    for sample in samples:
        assert sample.duration
        category = READ_AS.get(kind_of(sample), sample.category)
        hard = sample.duration >= DETAIL_FROM.get(category, float("inf"))
        assert sample.difficulty == ("detail" if hard else "plain")


def test_chords_are_asked_about_and_found() -> None:
    names = ("A minor", "F", "C", "G", "D minor", "E")
    songs = []
    for n in range(30):
        order = np.random.default_rng(n).permutation(len(names))
        events = tuple(Event(names[int(k)], "chord", 2.0 * i, 2.0 * i + 2) for i, k in enumerate(order))
        songs.append(Record(id=f"m{n}", audio="m.wav", duration=12, events=events))
    asked = list(compose(songs, GrammarSettings(categories=("chord",))))
    assert {kind_of(sample) for sample in asked} == {"chord/at", "chord/next"}
    assert [faults(s, r) for s in asked for r in songs if r.id == s.record and faults(s, r)] == []


Break = Callable[[Sample], Sample]


def _other(sample: Sample) -> Sample:
    """Another choice is said to be right."""
    assert sample.choices
    index = match_choice(sample.answer, sample.choices)
    assert index is not None
    return sample.model_copy(update={"answer": sample.choices[index - 1]})


def _moved(sample: Sample) -> Sample:
    """Its spans are elsewhere."""
    spans = [(start + 0.5, end + 0.5) for start, end in sample.gold_spans] or [(0.0, 1.0)]
    return sample.model_copy(update={"gold_spans": tuple(spans)})


def _renamed(sample: Sample) -> Sample:
    """The question is none of the wordings."""
    return sample.model_copy(update={"question": sample.question + " Really?"})


@pytest.mark.parametrize("breaking", [_other, _moved, _renamed])
def test_the_solver_sees_what_is_broken(
    records: list[Record], samples: list[Sample], breaking: Break
) -> None:
    by_id = {r.id: r for r in records}
    broken = [breaking(sample) for sample in samples if sample.choices]
    assert len(broken) > 1000
    assert all(faults(sample, by_id[sample.record]) for sample in broken)


def test_the_solver_doubts_what_the_events_do_not_settle(
    records: list[Record], samples: list[Sample]
) -> None:
    """The same questions of records where everything is twice: what names a sound is in doubt."""
    by_id = {r.id: r for r in records}
    for sample in samples:
        if kind_of(sample) in ("order/next", "order/first", "when/second", "count/hits", "loudness/louder"):
            whole = by_id[sample.record]
            again = [replace(e, onset=e.onset + 200, offset=e.offset + 200) for e in whole.events]
            doubled = whole.model_copy(update={"events": (*whole.events, *again), "duration": 400.0})
            assert faults(sample, doubled)[0].startswith("in doubt")


def test_courses_are_named_as_they_move() -> None:
    assert list(COURSES) == ["up", "down", "up and then down", "down and then up"]
