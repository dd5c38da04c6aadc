"""Lessons: who wrote which token, and the audio that stands where a run would put it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from echo_agent.errors import DataError
from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.vocabulary import WORDS
from echo_agent.finetune.nano.lessons import (
    CLOSER_SECONDS,
    SPOKEN,
    Lesson,
    Teacher,
    collate,
    misheard,
    mislooked,
    with_branch,
)
from echo_agent.finetune.nano.pretraining import PretrainingConfig, duration_at
from echo_agent.finetune.nano.questions import SOUNDS, Question
from echo_agent.finetune.nano.reasoning import thought, trace, transcript
from echo_agent.finetune.nano.tiles import Tile
from echo_agent.nano.adapter import pool
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.processing import listen_times
from tests.finetune.nano.test_questions import answer_of


@pytest.fixture(scope="module")
def lessons(teacher: Teacher) -> list[Lesson]:
    """Lessons of mixed durations, as in a run of training."""
    rng, config = np.random.default_rng(0), PretrainingConfig(steps=100)
    return [teacher.lesson(rng, duration_at(step, config, rng)) for step in range(100) for _ in range(2)]


def text(teacher: Teacher, ids: list[int]) -> str:
    return teacher.tokenizer.decode(ids, skip_special_tokens=False)


def turn(teacher: Teacher, lesson: Lesson) -> tuple[str, str]:
    """Prompt and the assistant's turn, with one ~ for every placeholder."""
    written = text(teacher, lesson.ids).replace("<|audio|>", "~")
    prompt, _, said = written.partition("<|assistant|>")
    return prompt, said


def calls(teacher: Teacher, lesson: Lesson) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in re.findall(r"<seg> (\d+), (\d+)</seg>", turn(teacher, lesson)[1])]


def runs(lesson: Lesson, audio: int) -> list[int]:
    """Lengths of the runs of placeholders."""
    marks = "".join("~" if token == audio else " " for token in lesson.ids)
    return [len(run) for run in marks.split()]


def test_the_mask_is_one_exactly_on_what_the_policy_writes(teacher: Teacher, lessons: list[Lesson]) -> None:
    """The written tokens of a lesson spell the turn without its audio and without the request for the answer."""
    refused = given = 0
    for lesson in lessons:
        assert len(lesson.ids) == len(lesson.mask) == len(lesson.listing)
        prompt, said = turn(teacher, lesson)
        head = len(teacher.tokenizer.encode(prompt.replace("~", "<|audio|>"), add_special_tokens=False)) + 1
        assert lesson.mask[:head] == [0] * head, "the prompt is given"
        written = text(teacher, [i for i, m in zip(lesson.ids, lesson.mask, strict=True) if m])
        expected = re.sub(r"<\|audio_start\|>~+<\|audio_end\|>", "", said)
        if "</seg></think><answer>" in expected:
            refused += 1
            expected = expected.replace("</think><answer>", "")
        if written != expected:
            call = re.search(r"<seg>.*</seg>", expected)
            heard = re.search(r"[.>]( [a-z0-9 ]+)</think>", expected)
            looked = re.match(r"<think>[a-z0-9, ]*\.", expected)
            shorter = [expected]
            for found, group in ((call, 0), (heard, 1), (looked, 0)):
                if found:
                    shorter += [one.replace(found[group], "", 1) for one in shorter]
            assert written in shorter, "only what was looked up, a span or what is heard may be given"
            given += 1
        assert lesson.mask[-1] == 1, "the end of the turn is written by the policy"
        assert said.endswith(f" {lesson.question.answer}</answer><|end|>")
    assert refused > 3 and 10 < given < 0.5 * len(lessons)


def test_the_list_of_events_is_what_listing_marks(teacher: Teacher, lessons: list[Lesson]) -> None:
    lists = spoken = 0
    for lesson in lessons:
        listed = text(teacher, [i for i, m in zip(lesson.ids, lesson.listing, strict=True) if m])
        if lesson.category == "list":
            lists += 1
            short = lesson.duration <= SPOKEN
            rows = [
                " ".join((f" {int(event.onset)} {event.label}", *(event.content if short else ())))
                for event in lesson.events
            ]
            assert listed == f"<think>{','.join(rows)}."
            spoken += short and any(event.content for event in lesson.events)
            assert turn(teacher, lesson)[1].endswith(
                f"</think><answer> {lesson.question.answer}</answer><|end|>"
            )
        else:
            assert listed == ""
        assert all(m for m, n in zip(lesson.mask, lesson.listing, strict=True) if n)
    assert lists > 10 and spoken > 2


def test_a_thought_begins_with_what_led_to_the_answer(teacher: Teacher, lessons: list[Lesson]) -> None:
    wrong = 0
    for lesson in lessons:
        if lesson.category != "list":
            said = turn(teacher, lesson)[1]
            right = said.startswith("<think>" + trace(lesson.events, lesson.question))
            assert (
                right or not lesson.mask[lesson.ids.index(teacher.tokenizer.convert_tokens_to_ids("<think>"))]
            )
            wrong += not right
    assert 3 < wrong < 0.2 * len(lessons)


def test_a_crops_audio_stands_right_after_the_call(teacher: Teacher, lessons: list[Lesson]) -> None:
    heard = 0
    for lesson in lessons:
        said = turn(teacher, lesson)[1]
        for (start, end), follows in zip(
            calls(teacher, lesson), re.findall(r"</seg>(.{0,20})", said), strict=True
        ):
            if not follows.startswith("<|audio_start|>"):
                assert follows.startswith("</think><answer>")
                continue
            size = teacher.config.listen_size(float(end - start))
            assert f"</seg><|audio_start|>{'~' * size}<|audio_end|> " in said
            if lesson.question.choices is None:
                assert f"<|audio_end|> {lesson.question.heard}</think>" in said
            heard += 1
    assert heard > 20


def test_a_call_holds_the_event_that_tells_the_answer(teacher: Teacher, lessons: list[Lesson]) -> None:
    for lesson in lessons:
        for start, end in calls(teacher, lesson):
            ((onset, offset),) = lesson.question.gold_spans
            assert start <= onset and offset <= end <= math.ceil(lesson.duration)
            assert start >= math.floor(onset) - 3 and end <= math.ceil(offset) + 3


def test_placeholders_features_and_times_agree(teacher: Teacher, lessons: list[Lesson]) -> None:
    for lesson in lessons:
        sizes = runs(lesson, teacher.config.audio_token_id)
        assert sum(sizes) == len(lesson.features) == len(lesson.times)
        assert lesson.features.shape[1] == teacher.config.feature_dim
        assert sizes[0] == teacher.config.listen_size(lesson.duration)
        assert lesson.times[: sizes[0]] == listen_times(0.0, lesson.duration, sizes[0])
        if len(sizes) > 1:
            ((start, end),) = calls(teacher, lesson)
            assert lesson.times[sizes[0] :] == listen_times(start, end, sizes[1])


def test_the_features_are_those_of_the_crop(teacher: Teacher, lessons: list[Lesson]) -> None:
    """Each crop's features are found among those of the tiles' own crops, of the right event."""
    known = {
        tuple(pool(crop.frames.float(), teacher.config.listen_size(float(crop.end - crop.start))).flatten().tolist()):
        tile.events[crop.event].label
        for tile in teacher.tiles
        for crop in tile.crops
    }  # fmt: skip
    found = 0
    for lesson in lessons:
        sizes = runs(lesson, teacher.config.audio_token_id)
        for size in sizes[1:]:
            label = known[tuple(lesson.features[-size:].flatten().tolist())]
            assert lesson.question.event is not None
            assert label == lesson.events[lesson.question.event].label
            found += 1
    assert found > 20


def test_what_is_spoken_in_a_listen_is_that_of_its_events(teacher: Teacher, lessons: list[Lesson]) -> None:
    first = closer = 0
    for lesson in lessons:
        sizes = runs(lesson, teacher.config.audio_token_id)
        for listen in lesson.spoken:
            said = text(teacher, list(listen.words)).split()
            if listen.first == 0:
                first += 1
                assert lesson.duration <= SPOKEN and listen.count == sizes[0]
                assert said == [word for event in lesson.events for word in event.content]
            else:
                closer += 1
                assert (listen.first, listen.count) == (sizes[0], sizes[1])
                ((start, end),) = calls(teacher, lesson)
                inside = [event for event in lesson.events if start <= event.onset < end]
                assert said == [word for event in inside for word in event.content]
                assert all(event.offset <= end for event in inside if event.content)
    assert first > 20 and closer > 20


def test_named_sounds_point_to_the_audio_tokens_that_hold_them(
    teacher: Teacher, lessons: list[Lesson]
) -> None:
    found = 0
    for lesson in lessons:
        size = runs(lesson, teacher.config.audio_token_id)[0]
        named = [i for i in lesson.question.trace[: len(lesson.question.named)] if i is not None]
        if not lesson.pointings:
            continue  # what was looked up is given, with a mistake
        assert len(lesson.pointings) == len(named)
        for point, index in zip(lesson.pointings, named, strict=True):
            event, step = lesson.events[index], lesson.duration / size
            assert text(teacher, [lesson.ids[point.place]]) == f" {event.label}"
            assert text(teacher, [lesson.ids[point.place + 1]]) == f" {math.floor(event.onset)}"
            assert point.first * step <= event.onset < (point.first + 1) * step + 1e-6
            assert point.last * step <= event.offset and point.last < size
            found += 1
    assert found > 50


def test_answers_are_right(lessons: list[Lesson]) -> None:
    for lesson in lessons:
        if lesson.category not in ("list", "places"):
            assert answer_of(lesson.events, lesson.question)[0] == lesson.question.answer
        assert lesson.question.category == lesson.category
        onsets = [event.onset for event in lesson.events]
        assert onsets == sorted(onsets) and all(event.offset <= lesson.duration for event in lesson.events)


def test_many_lessons_answer_without_a_call(teacher: Teacher, lessons: list[Lesson]) -> None:
    without = sum(not calls(teacher, lesson) for lesson in lessons) / len(lessons)
    assert 0.3 <= without <= 0.9, without


def test_short_recordings_need_no_second_listen(teacher: Teacher) -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        lesson = teacher.lesson(rng, 10.0)
        if lesson.duration <= CLOSER_SECONDS:
            assert not calls(teacher, lesson)
            assert "<|audio_start|>" not in turn(teacher, lesson)[1]


def test_refused_calls_are_given_the_opening_of_the_answer(teacher: Teacher) -> None:
    rng, seen = np.random.default_rng(2), 0
    for _ in range(40):
        lesson = teacher.lesson(rng, 60.0, refused=1.0)
        said = turn(teacher, lesson)[1]
        if calls(teacher, lesson):
            seen += 1
            assert "~" not in said
            assert said.endswith(f"</seg></think><answer> {lesson.question.answer}</answer><|end|>")
            given = [i for i, m in zip(lesson.ids, lesson.mask, strict=True) if not m]
            assert text(teacher, given).endswith("</think><answer>")
    assert seen > 5
    kept = [turn(teacher, teacher.lesson(rng, 60.0, refused=0.0))[1] for _ in range(40)]
    assert not any("</seg></think>" in said for said in kept)


def test_same_seed_same_lesson(teacher: Teacher) -> None:
    def drawn(seed: int) -> Lesson:
        return teacher.lesson(np.random.default_rng(seed), 40.0)

    assert drawn(3).ids == drawn(3).ids and torch.equal(drawn(3).features, drawn(3).features)
    assert drawn(3).ids != drawn(4).ids


def test_a_batch_keeps_every_lesson(teacher: Teacher, lessons: list[Lesson]) -> None:
    chosen = lessons[:5]
    batch = collate(chosen, 900, listing_weight=0.25)
    assert len({len(lesson.ids) for lesson in chosen}) > 1
    for row, lesson in enumerate(chosen):
        size = len(lesson.ids)
        assert batch["input_ids"][row, :size].tolist() == lesson.ids
        assert set(batch["input_ids"][row, size:].tolist()) <= {900}
        assert batch["attention_mask"][row].tolist() == [1] * size + [0] * (
            batch["input_ids"].shape[1] - size
        )
        labels = [i if m else -100 for i, m in zip(lesson.ids, lesson.mask, strict=True)]
        assert batch["labels"][row, :size].tolist() == labels
        assert set(batch["labels"][row, size:].tolist()) <= {-100}
        assert batch["weights"][row, :size].tolist() == [0.25 if n else 1.0 for n in lesson.listing]
    assert torch.equal(batch["audio_features"], torch.cat([lesson.features for lesson in chosen]))
    assert batch["audio_times"].tolist() == [t for lesson in chosen for t in lesson.times]


def test_the_branch_is_added_window_by_window(
    tiny_nano: NanoForConditionalGeneration, shard: list[Tile]
) -> None:
    """What a lesson hears is what the model's own ``frames`` gives: encoder, then branch, per window."""
    tile = next(tile for tile in shard if tile.seconds == 10 and tile.crops)
    branch = tiny_nano.model.adapter.branch
    wide = with_branch(tile, branch)
    assert wide.frames.shape == (250, tiny_nano.config.feature_dim // 2)
    torch.testing.assert_close(wide.frames[:, :64], tile.frames)
    with torch.no_grad():
        second = branch.describe(tile.frames[125:].float()[None])[0]
    torch.testing.assert_close(wide.frames[125:, 64:], second.half())
    assert [(c.start, c.end, c.event) for c in wide.crops] == [(c.start, c.end, c.event) for c in tile.crops]


EVENTS = (
    Event("drum", "burst", 3.2, 4.0, hits=3),
    Event("bird", "sound", 8.0, 9.0),
    Event("voice", "digits", 12.4, 14.9, ("four", "seven", "one")),
)


def spoken(**changes: object) -> Question:
    """Which digits are spoken after the bird?"""
    fields = {
        "category": "digit_sequence", "text": "", "choices": ("four seven one", "four seven two"),
        "answer": "four seven one", "gold_spans": ((12.4, 14.9),), "event": 2, "heard": "four seven one",
        "named": ("bird",), "trace": (1, 2),
    }  # fmt: skip
    return Question(**(fields | changes))  # pyright: ignore[reportArgumentType]


def test_thoughts_name_before_they_tell() -> None:
    looked, call, audio, rest = thought(EVENTS, spoken(), (12, 16))
    assert looked.text == "<think> bird 8, 12 voice." and call.text == "<seg> 12, 16</seg>"
    assert audio.span == (12, 16) and not audio.sampled and call.sampled
    assert rest.text == " four seven one</think><answer> four seven one</answer><|end|>"
    assert transcript(EVENTS) == " 3 drum, 8 bird, 12 voice."
    assert transcript(EVENTS, spoken=True) == " 3 drum, 8 bird, 12 voice four seven one."


def test_what_is_not_there_is_said_to_be_nowhere() -> None:
    question = Question("presence", "", ("yes", "no"), "no", (), named=("wolf",), trace=(None,))
    assert trace(EVENTS, question) == " wolf none."
    first = Question("order", "", ("bird", "drum"), "drum", (), named=("bird", "drum"), trace=(1, 0))
    assert trace(EVENTS, first) == " bird 8, drum 3."


def test_a_given_span_and_what_is_misheard_are_not_learned() -> None:
    looked, call, audio, wrong, rest = thought(
        EVENTS, spoken(), (10, 16), given=True, misheard="four seven six"
    )
    assert [part.sampled for part in (looked, call, audio, wrong, rest)] == [True, False, False, False, True]
    assert wrong.text == " four seven six"
    assert rest.text == "</think><answer> four seven one</answer><|end|>"


def test_a_mistake_leads_to_none_of_the_choices() -> None:
    rng, one, other = np.random.default_rng(0), 0, 0
    digit = spoken(category="digit", choices=("seven", "one", "two", "six"), answer="seven")
    words = spoken(category="word", choices=WORDS[:4], answer="red", heard="red river red")
    count = spoken(category="count", choices=("2", "3", "4", "5"), answer="3", heard="3")
    for _ in range(60):
        text = misheard(spoken(), rng)
        if text is not None:
            assert text not in spoken().choices  # pyright: ignore[reportOperatorIssue]
            differ = sum(a != b for a, b in zip(text.split(), ("four", "seven", "one"), strict=False))
            one += len(text.split()) == 3 and differ == 1
            other += len(text.split()) != 3
        for question in (digit, words, count):
            text = misheard(question, rng)
            assert text and not set(text.split()) & set(question.choices or ())
    assert one > 10 and other > 10
    assert misheard(spoken(choices=None), rng) is None
    assert misheard(spoken(category="time", heard=""), rng) is None


def test_a_wrong_look_leads_to_none_of_the_choices() -> None:
    rng, seen = np.random.default_rng(0), dict[str, int]()
    after = Question(
        "order", "", ("bird", "voice", "wolf", "harp"), "bird", (), named=("drum",), trace=(0, 1)
    )
    when = Question("time", "", ("8 s", "3 s", "12 s", "20 s"), "8 s", (), named=("bird",), trace=(1,))
    first = Question("order", "", ("bird", "drum"), "drum", (), named=("bird", "drum"), trace=(1, 0))
    for _ in range(100):
        text = mislooked(EVENTS, after, rng)
        assert text is not None and text.endswith(".")
        if text != " drum none.":
            assert text.startswith(" drum 3, 8 ")
            assert text.removesuffix(".").split()[-1] in set(SOUNDS) - {"bird", "wolf", "harp", "drum"}
        seen[f"after{text == ' drum none.'}"] = 1
        text = mislooked(EVENTS, when, rng)
        assert text is not None and text.startswith(" bird ") and text.endswith(".")
        assert text.removeprefix(" bird ").removesuffix(".") not in ("8", "3", "12", "20")
        seen[f"when{text}"] = 1
        assert mislooked(EVENTS, first, rng) in (" bird none, drum 3.", " bird none, drum none.")
        assert mislooked(EVENTS, spoken(), rng) in (None, " bird none, 12 voice.")
    assert {"afterTrue", "afterFalse", "when bird none.", "when bird 7."} <= set(seen)
    assert len(seen) > 10, "sounds are also found far from where they are"
    assert mislooked(EVENTS, spoken(named=(), trace=(2,)), rng) is None
    assert mislooked(EVENTS, spoken(choices=None), rng) is None


def test_tiles_without_events_are_refused(teacher: Teacher) -> None:
    with pytest.raises(DataError, match="no events"):
        Teacher([tile for tile in teacher.tiles if not tile.events], teacher.config, teacher.tokenizer)
