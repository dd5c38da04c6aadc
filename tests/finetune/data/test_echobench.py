"""EchoBench in small, from a bank of noises: whole, checked, and the same each time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data import echobench
from echo_agent.finetune.data.dataset import read_samples
from echo_agent.finetune.data.echobench import HOURS, LOCK, SETS, TESTS, build_bench
from echo_agent.finetune.data.questions.phrasings import wordings
from echo_agent.finetune.data.questions.solver import faults
from echo_agent.finetune.data.show.browse import records_in
from echo_agent.rows import read_rows
from tests.finetune.small_bank import write_bank

KINDS = ("sound", "note", "background", "digit", "word")
WANTED = {"validation": 20, "core": 30, "unseen": 20, "long": 10}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = ("train", "val", "test", "unseen_package", "unseen_voice")
    return write_bank(tmp_path_factory.mktemp("bank"), dict.fromkeys(splits, KINDS))


@pytest.fixture(scope="module", autouse=True)
def small() -> object:
    """Fewer scenes of each set, and shorter ones."""
    with pytest.MonkeyPatch.context() as patch:
        sets = [
            replace(w, scenes=12, questions=WANTED.get(w.name), duration=(20.0, 120.0 if w.name == "long" else 40.0))
            for w in SETS
        ]  # fmt: skip
        patch.setattr(echobench, "SETS", tuple(sets))
        yield


@pytest.fixture(scope="module")
def built(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bench(
        bank, tmp_path_factory.mktemp("bench"), scenes=10, command="echo-agent finetune data bench"
    )


def test_every_set_is_there_and_whole(built: Path) -> None:
    for name, count in WANTED.items():
        assert len(read_samples(built, name)) == count
    assert len(read_samples(built, "train")) > 30
    for name in TESTS:
        rows = read_rows(built / f"{name}.jsonl")
        assert [row.id for row in rows] == [sample.id for sample in read_samples(built, name)]


def test_every_question_is_borne_out_by_the_events(built: Path) -> None:
    records = records_in(built)
    samples = read_samples(built)
    assert [(s.question, found) for s in samples if (found := faults(s, records[s.record]))] == []


def test_nothing_heard_in_training_is_heard_in_a_test(built: Path) -> None:
    records = records_in(built)
    heard = {
        name: {source for s in read_samples(built, name) for e in records[s.record].events for source in e.sources}
        for name in ("train", "validation", *TESTS)
    }  # fmt: skip
    assert all(heard.values())
    for name in ("validation", *TESTS):
        assert not heard["train"] & heard[name]
    assert not heard["unseen"] & heard["core"]


def test_tests_are_worded_as_training_never_is(built: Path) -> None:
    assert wordings()
    for name in ("train", "validation", *TESTS):
        split = "test" if name in TESTS else "train"
        assert {s.phrasing.split("/")[2] for s in read_samples(built, name)} == {split}


@pytest.mark.slow
def test_the_same_bank_and_seed_give_the_same(bank: Path, built: Path, tmp_path: Path) -> None:
    again = build_bench(
        bank, tmp_path / "again", scenes=10, workers=2, command="echo-agent finetune data bench"
    )
    first, second = (json.loads((folder / LOCK).read_text()) for folder in (built, again))
    assert first == second
    other = build_bench(bank, tmp_path / "other", scenes=10, seed=1, command="x")
    third = json.loads((other / LOCK).read_text())
    for name in first["sets"]:
        assert first["sets"][name]["audio_sha256"] != third["sets"][name]["audio_sha256"]
        assert first["sets"][name]["questions_sha256"] != third["sets"][name]["questions_sha256"]


@pytest.mark.slow
def test_tests_are_the_same_however_reasoning_is_put(bank: Path, built: Path, tmp_path: Path) -> None:
    short = build_bench(bank, tmp_path / "terse", scenes=10, reasoning="terse", command="x")
    first, second = (json.loads((folder / LOCK).read_text())["sets"] for folder in (built, short))
    assert {name: first[name] for name in TESTS} == {name: second[name] for name in TESTS}
    assert all(len(s.reasoning.split()) > 6 for s in read_samples(built, "train") if s.listens)
    assert any(s.reasoning.startswith("drum ") for s in read_samples(short, "train"))


def test_the_card_says_what_it_is(built: Path) -> None:
    card = (built / "README.md").read_text()
    assert "# EchoBench" in card and "echo-agent finetune data bench" in card
    assert str(built) not in card


@pytest.mark.slow
def test_hours_ask_about_what_sounds_once(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tuple(replace(which, scenes=3, duration=(100.0, 140.0)) for which in HOURS)
    few = tuple(which for which in echobench.SETS if which.name in ("train", "validation"))
    monkeypatch.setattr(echobench, "HOURS", short)
    monkeypatch.setattr(echobench, "SETS", few)
    built = build_bench(bank, tmp_path / "hours", scenes=10, hours=True, command="x")
    records = records_in(built)
    for which in HOURS:
        samples = read_samples(built, which.name)
        assert samples and {sample.category for sample in samples} <= set(which.categories)
        assert [row.id for row in read_rows(built / f"{which.name}.jsonl")] == [one.id for one in samples]
        for sample in samples:
            if sample.category == "when":
                events = records[sample.record].events
                (label,) = {
                    event.label for event in events if (event.onset, event.offset) in sample.gold_spans
                }
                assert sum(event.label == label for event in events) == 1
    assert set(json.loads((built / LOCK).read_text())["sets"]) >= {which.name for which in HOURS}


def test_a_bank_that_offers_too_little_is_refused(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = tuple(replace(which, scenes=2) if which.name == "core" else which for which in echobench.SETS)
    monkeypatch.setattr(echobench, "SETS", sets)
    with pytest.raises(DataError, match=r"offer \d+ questions for 'core', not 30"):
        build_bench(bank, tmp_path / "out", scenes=3, command="x")
