"""Builds: splits that share nothing, stages that are taken as they are, audio that is brought along."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent.errors import DataError
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.pipeline import (
    QuestionSet,
    by_split,
    finish,
    gather,
    questions_of,
    split_of,
)
from echo_agent.finetune.data.questions.composer import GrammarSettings
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.stages import read_rows
from echo_agent.finetune.data.tally import Tally
from tests.finetune.data.symbolic import record

GRAMMAR = GrammarSettings()


def test_groups_are_split_about_as_wanted_and_never_torn_apart() -> None:
    records = [record(n).model_copy(update={"group": f"video {n // 3}"}) for n in range(900)]
    shares = Counter(split_of(r) for r in records)
    assert 60 < shares["test"] < 130 and 60 < shares["validation"] < 130
    assert all(len({split_of(r) for r in records if r.group == f"video {g}"}) == 1 for g in range(300))
    assert split_of(records[0].model_copy(update={"split": "test"})) == "test"


def test_a_set_is_composed_and_judged_once(tmp_path: Path) -> None:
    which = QuestionSet("core", [record(n) for n in range(30)], GRAMMAR, most=100)
    told: list[str] = []
    tally = Tally()
    samples = questions_of(tmp_path, which, tally, report=told.append, split="test")
    assert len(samples) == 100 and {s.split for s in samples} == {"test"} and told[0].startswith("core: ")
    assert [s.id for s in samples[:2]] == ["core-00000", "core-00001"]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {path.name for path in times} == {"composed-core.parquet", "checked-core.parquet"}
    assert questions_of(tmp_path, which, Tally(), split="test") == samples
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times
    with pytest.raises(DataError, match="other settings"):
        questions_of(
            tmp_path, QuestionSet("core", [record(n) for n in range(31)], GRAMMAR), Tally(), split="test"
        )


def test_what_is_dropped_is_kept_with_its_reason(tmp_path: Path) -> None:
    records = [record(n) for n in range(5)]
    given = questions_of(tmp_path / "a", QuestionSet("x", records, GRAMMAR), Tally())
    wrong = [given[0].model_copy(update={"gold_spans": ((0.0, 0.01),)}), *given[1:]]
    kept = questions_of(tmp_path / "b", QuestionSet("x", records, GRAMMAR, samples=wrong), Tally())
    assert kept == given[1:]
    rows = read_rows(tmp_path / "b" / "checked-x.parquet")
    assert "do not bear the answer out" in rows[0]["dropped"] and not any(row["dropped"] for row in rows[1:])


def test_audio_is_brought_into_the_folder_and_left_where_it_was(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a b.wav", np.zeros(1600, np.float32), 16000)
    given = [Record(id="x/1", audio=str(tmp_path / "a b.wav"), duration=0.1)]
    (one,) = gather(given, tmp_path / "out")
    assert (tmp_path / "out" / one.audio).read_bytes() == (tmp_path / "a b.wav").read_bytes()
    assert one.audio.startswith("audio/") and gather(given, tmp_path / "out") == [one]
    with pytest.raises(DataError, match="cannot bring"):
        gather(
            [given[0].model_copy(update={"id": "y", "audio": str(tmp_path / "none.wav")})], tmp_path / "out"
        )


def test_another_recording_of_the_same_name_is_never_lent(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for level in (0.1, 0.2):
        soundfile.write(tmp_path / "a.wav", np.full(1600, level, np.float32), 16000)
        (one,) = gather([Record(id="x", audio=str(tmp_path / "a.wav"), duration=0.1)], out)
        assert (out / one.audio).read_bytes() == (tmp_path / "a.wav").read_bytes()
        (tmp_path / "a.wav").unlink()


def test_a_link_is_brought_as_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    soundfile.write(tmp_path / "store" / "a.wav", np.zeros(1600, np.float32), 16000)
    (tmp_path / "a.wav").symlink_to("store/a.wav")
    (one,) = gather([Record(id="x", audio=str(tmp_path / "a.wav"), duration=0.1)], tmp_path / "out")
    brought = tmp_path / "out" / one.audio
    assert brought.is_file() and not brought.is_symlink()


def test_nothing_to_write_is_said(tmp_path: Path) -> None:
    about = About(name="x", description="x", command="x", seed=0)
    with pytest.raises(DataError, match="not one question"):
        finish(tmp_path, {"train": []}, [], about, Tally())
    assert by_split([]) == {}
