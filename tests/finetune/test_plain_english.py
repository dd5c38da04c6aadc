"""EchoBench's recordings in plain English: the same questions by two hands, each with a right answer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import plain_english as asking
from echo_agent.finetune.data.natural.timelines import simulate
from echo_agent.finetune.data.records import Event, Record
from echo_agent.finetune.small.listens import NOT_OF_SOUNDS_ALONE, Budget, Listener
from echo_agent.finetune.small.named_sounds import NamedSounds
from echo_agent.rows import Row
from tests.small.tiny_small import tiny_small


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [simulate(np.random.default_rng([5, n]), f"r{n}") for n in range(30)]


def listener(tokens: int) -> Listener:
    family = tiny_small()
    return Listener(family.tokenizer, family.config.blank_token_id, Budget(sounds=tokens))


def test_both_hands_ask_the_same_of_all_kinds(records: list[Record]) -> None:
    rows = asking.questions(listener(48), records, Path("bench"), 90)
    assert len(rows["test"]) == len(rows["train"]) == 90
    kinds = Counter(row["id"].partition("-")[2] for row in rows["test"])
    assert not set(kinds) & set(asking.TOLD) and len(kinds) > 25
    assert max(kinds.values()) <= 2 * 90 / len(kinds)
    for test, train in zip(rows["test"], rows["train"], strict=True):
        assert {key: test[key] for key in ("id", "audio", "gold_spans", "difficulty")} == {
            key: train[key] for key in ("id", "audio", "gold_spans", "difficulty")
        }
        for row in (test, train):
            read = Row.model_validate(row)
            assert all(read.is_right(answer) for answer in read.right)
    worded = [a["question"] != b["question"] for a, b in zip(rows["test"], rows["train"], strict=True)]
    assert sum(worded) > 80
    assert rows == asking.questions(listener(48), records, Path("bench"), 90)


def test_asking_ends_where_there_is_no_more(records: list[Record]) -> None:
    assert 0 < len(asking.questions(listener(48), records[3:4], Path("bench"), 1000)["test"]) < 1000


def test_what_a_first_listen_holds_is_plain(records: list[Record]) -> None:
    for tokens, hard in ((10**5, {"plain"}), (1, {"plain", "detail"})):
        rows = asking.questions(listener(tokens), records, Path("bench"), 60)["test"]
        assert {row["difficulty"] for row in rows} == hard


def test_where_somebody_speaks_nothing_is_asked_about_all_that_is_heard(records: list[Record]) -> None:
    silent = next(record for record in records if len(record.events) > 2)
    for label in ("voice", "a sound without a name here"):
        other = Event(label, "words", 0.5, 0.9, content=("one",))
        spoken = silent.model_copy(update={"events": (other, *silent.events)})
        about = NamedSounds.of(spoken)
        assert not set(asking.kinds_of(about)) & NOT_OF_SOUNDS_ALONE and about.record.events == silent.events
        assert len(about.events) == len(silent.events) + (label == "voice")
    assert set(asking.kinds_of(NamedSounds.of(silent))) >= NOT_OF_SOUNDS_ALONE - set(asking.TOLD)
