"""Test sets: rows that evaluation reads, made of clips of their own splits and of nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import soundfile

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.questions.difficulty import DETAIL_FROM, difficulty
from echo_agent.finetune.nano.questions import CATEGORIES
from echo_agent.finetune.nano.testset import SETS, TestSet, build_testset, taught
from echo_agent.rows import Row, read_rows
from tests.finetune.small_bank import make_clips, write_bank
from tests.test_disk import small_files

ALL = ("sound", "note", "background", "digit", "word")
SPOKEN = ("digit", "word")
SMALL = TestSet("core", "test", "test", 24, 15.0, 25.0)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of training and validation clips are not there: whoever reads one fails."""
    return write_bank(
        tmp_path_factory.mktemp("bank"), {"test": ALL}, listed=("train", "val", "unseen_package")
    )


@pytest.fixture(scope="module")
def built(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_testset(bank, tmp_path_factory.mktemp("set"), SMALL, seed=4)


@pytest.fixture(scope="module")
def rows(built: Path) -> list[Row]:
    return read_rows(built)


def test_a_full_disk_is_one_sentence(bank: Path, tmp_path: Path) -> None:
    with (
        small_files(2000),
        pytest.raises(DataError, match=r"^cannot write .*0000\.flac: File too large; make room"),
    ):
        build_testset(bank, tmp_path, SMALL, seed=4)


def test_rows_can_be_evaluated(built: Path, rows: list[Row]) -> None:
    assert built.name == "core.jsonl"
    assert len(rows) == SMALL.questions
    for row in rows:
        audio = soundfile.info(row.audio)
        assert (audio.samplerate, audio.channels, audio.format) == (16000, 1, "FLAC")
        assert audio.duration == pytest.approx(row.duration, abs=1e-3)
        assert SMALL.shortest <= audio.duration <= SMALL.longest
        assert all(end <= audio.duration for _, end in row.gold_spans)
        assert row.difficulty == difficulty(row.category, audio.duration)


def test_families_are_level(rows: list[Row]) -> None:
    counts = Counter(row.category for row in rows)
    assert set(counts) == set(CATEGORIES)
    assert max(counts.values()) - min(counts.values()) <= 2, counts


def test_no_question_twice_about_one_recording(rows: list[Row]) -> None:
    assert len({(row.audio, row.question) for row in rows}) == len(rows)
    assert len({row.id for row in rows}) == len(rows)


def test_audio_and_rows_belong_together(built: Path, rows: list[Row]) -> None:
    files = {str(path.resolve()) for path in (built.parent / "core").iterdir()}
    assert files == {row.audio for row in rows}


def test_same_seed_same_rows_and_audio(bank: Path, built: Path, rows: list[Row], tmp_path: Path) -> None:
    again = build_testset(bank, tmp_path / "again", SMALL, seed=4)
    assert again.read_bytes() == built.read_bytes()
    for row in rows:
        name = Path(row.audio).name
        assert (again.parent / "core" / name).read_bytes() == Path(row.audio).read_bytes()
    other = build_testset(bank, tmp_path / "other", SMALL, seed=5)
    assert other.read_bytes() != built.read_bytes()


def test_an_unseen_voice_is_the_only_one_heard(tmp_path: Path) -> None:
    """Sounds of the test split with the held-out voice; voices of the test split are not even there."""
    sounds_only = tuple(kind for kind in ALL if kind not in SPOKEN)
    folder = write_bank(tmp_path / "bank", {"test": sounds_only, "unseen_voice": SPOKEN}, listed=("train",))
    test = TestSet("unseen-voice", "test", "unseen_voice", 8, 15.0, 20.0)
    assert len(read_rows(build_testset(folder, tmp_path / "out", test))) == 8


def test_the_three_sets_read_no_training_split() -> None:
    assert {test.name: (test.sounds, test.voices) for test in SETS} == {
        "core": ("test", "test"),
        "unseen-package": ("unseen_package", "test"),
        "unseen-voice": ("test", "unseen_voice"),
    }


def test_a_set_that_is_there_is_not_written_over(bank: Path, built: Path) -> None:
    before = built.read_bytes()
    with pytest.raises(DataError, match="already"):
        build_testset(bank, built.parent, SMALL, seed=9)
    assert built.read_bytes() == before


def test_a_bank_that_offers_no_question_is_refused(tmp_path: Path) -> None:
    """Words alone: no sound to ask about, and no end of trying otherwise."""
    folder = write_bank(tmp_path / "bank", {"test": SPOKEN})
    with pytest.raises(DataError, match="sounds"):
        build_testset(folder, tmp_path / "out", TestSet("core", "test", "test", 3, 5.0, 6.0))


def test_scenes_too_short_for_a_question_come_to_an_end(bank: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not offer enough questions"):
        build_testset(bank, tmp_path / "out", TestSet("core", "test", "test", 2, 0.6, 0.7))


def test_sounds_too_rare_are_left_out() -> None:
    clips = make_clips()
    bank = taught(SoundBank([*clips, *(c.__class__("dog", *list(vars(c).values())[1:]) for c in clips[:1])]))
    assert "dog" not in bank.sounds and "bell" in bank.sounds


def test_detail_is_what_the_gate_measured() -> None:
    gate = json.loads((Path(__file__).parents[3] / "benchmarks" / "results" / "gate.json").read_text())
    measured = {category: seconds for category, seconds in gate["detail_from"].items() if seconds is not None}
    assert measured == DETAIL_FROM
    for category, seconds in measured.items():
        assert difficulty(category, seconds) == "detail"
        assert difficulty(category, seconds - 0.1) == "plain"
    assert difficulty("presence", 120.0) == "plain"
