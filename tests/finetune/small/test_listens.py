"""Lessons in listening again: every listen has its price, and what an answer needs is heard before it is given."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from echo_agent.finetune.data.natural.asking import Asked
from echo_agent.finetune.data.natural.talk import make_talk
from echo_agent.finetune.data.natural.timelines import heard
from echo_agent.finetune.data.natural.transcripts import Transcript
from echo_agent.finetune.data.records import Event, Record
from echo_agent.finetune.small.listens import (
    MOST_LISTENS,
    Budget,
    Listener,
    Scene,
    merged,
    mixed_lesson,
    parts,
    sound_branch,
    sound_lesson,
    talk_lesson,
    timed,
)
from echo_agent.finetune.small.packing import IGNORED, Pack
from echo_agent.small.notes import MORE
from echo_agent.small.processing import AUDIO

BUDGET = Budget(sounds=100, words=220)
LISTEN = re.compile(r"<\|audio_start\|>(.*?)<\|audio_end\|>", re.DOTALL)
CALL = re.compile(r"<seg>(\d+), (\d+)</seg>")
CROWDED = Record(
    id="crowded",
    audio="none",
    duration=100.0,
    events=tuple(
        Event(label, "burst", 9.0 * n, 9.0 * n + 3.5, hits=4 if label == "bell" else 1, level_db=-20.0)
        for n, label in enumerate("dog rain cat bell violin cow telephone duck owl train".split())
    ),
    labels=(),
)
SCENE = Scene(CROWDED.duration, tuple(heard(event) for event in CROWDED.events))


@pytest.fixture(scope="module")
def listener(tokenizer: Any) -> Listener:
    return Listener(tokenizer, tokenizer.convert_tokens_to_ids(AUDIO), BUDGET)


def branch_texts(pack: Pack, tokenizer: Any) -> list[str]:
    """Shared part and branch of each question, as text."""
    shared = [token for token, branch in zip(pack.ids, pack.branch, strict=True) if not branch]
    return [
        tokenizer.decode(
            shared + [token for token, branch in zip(pack.ids, pack.branch, strict=True) if branch == n]
        )
        for n in range(1, max(pack.branch, default=0) + 1)
    ]


@pytest.mark.parametrize("make", [sound_lesson, talk_lesson, mixed_lesson])
def test_every_listen_has_its_price_and_only_what_the_policy_writes_is_learned(
    make: Any, listener: Listener, tokenizer: Any
) -> None:
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|audio_start|>", "<|audio_end|>"))
    again = 0
    for seed in range(12):
        pack = make(listener, np.random.default_rng(seed), 4)
        first = None
        for place, token in enumerate(pack.ids):
            if token == start:
                first = place
            elif token == end:
                assert first is not None and place - first - 1 in (
                    BUDGET.sounds,
                    BUDGET.sounds + BUDGET.words,
                )
                assert set(pack.labels[first : place + 1]) == {IGNORED}
                again += pack.branch[place] > 0
        for text in branch_texts(pack, tokenizer):
            assert text.count("<answer>") == 1 and len(CALL.findall(text)) <= MOST_LISTENS
    assert again


def test_what_is_not_in_the_first_note_is_listened_to_again(listener: Listener, tokenizer: Any) -> None:
    assert 1 <= listener.detail(SCENE.events) < 3
    asked = Asked("count/hits", "How often does the bell ring?", None, "4", ("4",), "bell 27 x4.", gold=(3,))
    text = "".join(tokenizer.decode(part.ids) for part in sound_branch(listener, CROWDED, SCENE, asked))
    ((start, end),) = ((int(a), int(b)) for a, b in CALL.findall(text))
    assert start <= 27 and end >= 31 and end - start < 10
    (crop,) = LISTEN.findall(text)
    assert "bell 3s x4" in crop and "dog" not in crop
    assert text.index("x4") < text.index("<answer>4")


def test_what_the_first_note_tells_is_answered_at_once(listener: Listener, tokenizer: Any) -> None:
    asked = Asked(
        "order/first", "Cow or owl first?", None, "the cow", (), "cow 45, owl 72: cow.", gold=(5, 8)
    )
    texts = [tokenizer.decode(part.ids) for part in sound_branch(listener, CROWDED, SCENE, asked)]
    assert len(texts) == 2 and texts[1].startswith("cow 45, owl 72: cow.<answer>the cow</answer>")


def test_where_the_note_leaves_sounds_out_the_whole_is_heard_in_parts(tokenizer: Any) -> None:
    small = Listener(tokenizer, 0, Budget(sounds=50, words=50))
    assert small.detail(SCENE.events) == 0
    spans = parts(small, SCENE.events, CROWDED.duration)
    assert 2 <= len(spans) <= MOST_LISTENS
    assert spans[0][0] == 0 and spans[-1][1] >= CROWDED.duration
    assert all(one[1] == other[0] for one, other in zip(spans, spans[1:], strict=False))
    assert parts(Listener(tokenizer, 0, Budget(sounds=12, words=12)), SCENE.events, CROWDED.duration) == []


def test_spans_that_touch_are_one() -> None:
    assert merged([(20.0, 22.0), (3.2, 4.9), (22.5, 30.0)], 40.0) == [(2.0, 6.0), (19.0, 32.0)]
    assert merged([(0.2, 1.0)], 1.5) == [(0.0, 2.0)]


def test_a_note_that_leaves_something_out_says_so(listener: Listener, tokenizer: Any) -> None:
    assert MORE in tokenizer.decode(listener.listen(SCENE.events * 3, 100.0))


@pytest.mark.parametrize("make", [talk_lesson, mixed_lesson])
def test_what_is_quoted_has_been_heard(make: Any, listener: Listener, tokenizer: Any) -> None:
    at_once = after_a_listen = 0
    for seed in range(15):
        for text in branch_texts(make(listener, np.random.default_rng(seed), 3), tokenizer):
            quote = re.search(r'(?:<\|audio_end\|>|assistant\n)"([^"]+)"<answer>', text)
            if quote:
                assert any(quote[1] in listen for listen in LISTEN.findall(text))
                after_a_listen += bool(CALL.search(text))
                at_once += not CALL.search(text)
    assert after_a_listen and (at_once or make is mixed_lesson)


def test_words_of_a_talk_have_their_times() -> None:
    rng = np.random.default_rng(1)
    talk = make_talk(rng)
    transcript = Transcript(talk, rng)
    lines = timed(transcript, 2.0)
    assert [[one.word for one in line] for line in lines] == [line.text.split() for line in transcript.lines]
    times = [one.time for line in lines for one in line]
    assert times[0] == 2.0 and times == sorted(times)


def test_a_scene_is_heard_in_parts(listener: Listener, tokenizer: Any) -> None:
    rng = np.random.default_rng(2)
    lines = timed(Transcript(make_talk(rng), rng))
    scene = Scene(60.0, SCENE.events, tuple(one for line in lines for one in line))
    first, second = lines[0][0], lines[-1][-1]
    text = tokenizer.decode(scene.listen(listener, 0.0, first.time + 0.1))
    assert first.word in text and (second.word not in text or second.word == first.word)
    assert '"' not in tokenizer.decode(scene.listen(listener, 0.0, 60.0)), "words have no place in a long one"


def test_as_many_words_are_read_as_there_are_places_for(tokenizer: Any) -> None:
    words = "one fine day in May".split()
    room = len('\n"one fine day"')
    assert Listener(tokenizer, 0, Budget(words=room)).fitting(words) in (2, 3)
    assert Listener(tokenizer, 0, Budget(words=100)).fitting(words) == 5
