"""Lessons in listening again: every listen has its price, and what an answer needs is heard before it is given."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from echo_agent.finetune.data.natural.asking import Asked
from echo_agent.finetune.data.natural.talk import make_talk
from echo_agent.finetune.data.natural.timelines import heard
from echo_agent.finetune.data.records import Event, Record
from echo_agent.finetune.small.listens import (
    MOST_LISTENS,
    Budget,
    Listener,
    merged,
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


@pytest.mark.parametrize("make", [sound_lesson, talk_lesson])
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
    events = [heard(event) for event in CROWDED.events]
    assert 1 <= listener.detail(events) < 3
    asked = Asked("count/hits", "How often does the bell ring?", None, "4", ("4",), "bell 27 x4.", gold=(3,))
    text = "".join(tokenizer.decode(part.ids) for part in sound_branch(listener, CROWDED, events, asked))
    ((start, end),) = ((int(a), int(b)) for a, b in CALL.findall(text))
    assert start <= 27 and end >= 31 and end - start < 10
    (crop,) = LISTEN.findall(text)
    assert "bell 3s x4" in crop and "dog" not in crop
    assert text.index("x4") < text.index("<answer>4")


def test_what_the_first_note_tells_is_answered_at_once(listener: Listener, tokenizer: Any) -> None:
    events = [heard(event) for event in CROWDED.events]
    asked = Asked(
        "order/first", "Cow or owl first?", None, "the cow", (), "cow 45, owl 72: cow.", gold=(5, 8)
    )
    texts = [tokenizer.decode(part.ids) for part in sound_branch(listener, CROWDED, events, asked)]
    assert len(texts) == 2 and texts[1].startswith("cow 45, owl 72: cow.<answer>the cow</answer>")


def test_where_the_note_leaves_sounds_out_the_whole_is_heard_in_parts(tokenizer: Any) -> None:
    small = Listener(tokenizer, 0, Budget(sounds=50, words=50))
    events = [heard(event) for event in CROWDED.events]
    assert small.detail(events) == 0
    spans = parts(small, events, CROWDED.duration)
    assert 2 <= len(spans) <= MOST_LISTENS
    assert spans[0][0] == 0 and spans[-1][1] >= CROWDED.duration
    assert all(one[1] == other[0] for one, other in zip(spans, spans[1:], strict=False))
    assert parts(Listener(tokenizer, 0, Budget(sounds=12, words=12)), events, CROWDED.duration) == []


def test_spans_that_touch_are_one() -> None:
    assert merged([(20.0, 22.0), (3.2, 4.9), (22.5, 30.0)], 40.0) == [(2.0, 6.0), (19.0, 32.0)]
    assert merged([(0.2, 1.0)], 1.5) == [(0.0, 2.0)]


def test_a_note_that_leaves_something_out_says_so(listener: Listener, tokenizer: Any) -> None:
    events = [heard(event) for event in CROWDED.events] * 3
    assert MORE in tokenizer.decode(listener.listen(events, 100.0))


def test_what_is_quoted_has_been_heard(listener: Listener, tokenizer: Any) -> None:
    found = 0
    for seed in range(25):
        talk = make_talk(np.random.default_rng(seed))
        assert [one.word for one in timed(talk.lines)] == " ".join(line.text for line in talk.lines).split()
        for text in branch_texts(talk_lesson(listener, np.random.default_rng(seed), 3), tokenizer):
            quote = re.search(r'<\|audio_end\|>"([^"]+)"<answer>', text)
            if quote and CALL.search(text):
                said = " ".join(LISTEN.findall(text))
                assert quote[1].split()[-1] in said and quote[1].split()[0] in said
                found += 1
    assert found
