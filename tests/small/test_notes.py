"""Notes of listens: everything where it fits, less of each event where not, and never more tokens than there are."""

from __future__ import annotations

import random

import pytest

from echo_agent.small.notes import MORE, NOTHING, Heard, note, read, told
from echo_agent.small.processing import word_ids
from tests.small.tiny_small import byte_tokenizer

BELL = Heard("church bell", 12.4, 15.9, hits=3, level_db=-10.0)
DOG = Heard("dog", 20.0, 20.9, level_db=-40.0, score=0.4)
RAIN = Heard("rain", 30.0, 90.2, level_db=-20.0, score=0.8)


def words(text: str) -> int:
    return len(text.split())


def test_a_line_tells_all_that_is_known_or_less() -> None:
    assert told(BELL) == "12-15 church bell 3s x3 loud"
    assert told(BELL, 2) == "12-15 church bell"
    assert told(BELL, 1) == "12 church bell"
    assert told(DOG) == "20-20 dog 0s soft"
    assert told(RAIN) == "30-90 rain 60s"


@pytest.mark.parametrize(("tokens", "text"), [
    (13, "12-15 church bell 3s x3 loud\n20-20 dog 0s soft\n30-90 rain 60s"),
    (12, "12-15 church bell\n20-20 dog\n30-90 rain"),
    (7, "12-15 church bell\n20-20 dog\n30-90 rain"),
    (6, "12 church bell\n30 rain\n..."),
    (5, "12 church bell\n..."),
    (1, "..."),
])  # fmt: skip
def test_events_that_share_few_tokens_are_told_briefly_and_the_least_certain_left_out(
    tokens: int, text: str
) -> None:
    assert note([BELL, DOG, RAIN], tokens, words) == text


def test_silence_is_said() -> None:
    assert note([], 48, words) == NOTHING


def test_a_note_never_takes_more_than_it_may_and_says_whether_something_is_missing() -> None:
    draw = random.Random(0)
    for _ in range(200):
        events = [
            Heard(
                draw.choice(("dog", "church bell", "rain")),
                t,
                t + draw.uniform(0, 9),
                draw.randint(1, 4),
                score=draw.random(),
            )
            for t in sorted(draw.uniform(0, 300) for _ in range(draw.randint(1, 20)))
        ]
        tokens = draw.randint(1, 60)
        text = note(events, tokens, words)
        assert words(text) <= tokens
        assert (len(text.splitlines()) < len(events) or MORE in text) == text.endswith(MORE)


def test_what_whisper_says_in_brackets_is_no_speech() -> None:
    words = byte_tokenizer(()).backend_tokenizer
    tokenizer = byte_tokenizer(("<|blank|>",))
    blank = tokenizer.convert_tokens_to_ids("<|blank|>")

    def written(said: str) -> str:
        ids = word_ids(words.encode(said).ids, 20, words, tokenizer, blank)
        assert len(ids) == 20
        return tokenizer.decode([i for i in ids if i != blank])

    assert written("[Music] Hi  (all) there") == '\n"Hi there"'
    assert written(" [Music]") == written("(ring") == written("") == ""
    assert written("a very long sentence") == '\n"a very long senten'


@pytest.mark.parametrize("detail", [1, 2, 3])
def test_a_note_is_read_back(detail: int) -> None:
    events = (BELL, DOG, RAIN)
    found = read("\n".join([*(told(event, detail) for event in events), MORE, '"12 dogs said so"']))
    assert [(event.name, event.onset) for event in found] == [(e.name, float(int(e.onset))) for e in events]
    assert all(event.offset > event.onset for event in found)
    assert read(NOTHING) == []
