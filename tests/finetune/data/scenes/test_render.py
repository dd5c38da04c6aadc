"""The stage that writes scenes: a scene depends on its number, and on nothing that happens around it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.manifest import KINDS
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.scenes import render as scene_files
from echo_agent.finetune.data.scenes.augment import RATE, loudness
from echo_agent.finetune.data.scenes.mixer import SceneSettings
from echo_agent.finetune.data.scenes.render import mix_scenes
from echo_agent.finetune.data.stages import read_rows
from tests.finetune.small_bank import NOTES, SOUNDS, write_bank

SETTINGS = SceneSettings(duration=(10.0, 14.0))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of validation clips are not there: whoever reads one fails."""
    return write_bank(tmp_path_factory.mktemp("bank"), {"train": KINDS, "test": KINDS}, listed=("val",))


def made(bank: Path, out: Path, count: int = 5, workers: int = 1) -> Path:
    return mix_scenes(
        bank, out, SETTINGS, count=count, seed=3, splits=["train"], speech_splits=["test"], split="train",
        workers=workers,
    )  # fmt: skip


def hashes(out: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((out / "audio").iterdir())
    }


@pytest.fixture(scope="module")
def whole(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(bank, tmp_path_factory.mktemp("whole"))


def test_records_say_what_is_in_the_files(whole: Path) -> None:
    records = [Record.model_validate(row) for row in read_rows(whole)]
    assert [record.id for record in records] == [f"scenes-{n:06d}" for n in range(5)]
    for record in records:
        path = whole.parent / record.audio
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", RATE, 1)
        assert info.frames == round(record.duration * RATE) and 10 <= record.duration <= 14
        assert record.labels == tuple(sorted({*SOUNDS, *NOTES, "voice"}))
        assert (record.corpus, record.split, record.licence) == ("scenes", "train", "CC0-1.0")
        samples, _ = soundfile.read(path, dtype="float32")
        for event in record.events:
            split = "test" if event.label == "voice" else "train"
            assert all(source.startswith(split) for source in event.sources)
            heard = loudness(samples[round(event.onset * RATE) : round(event.offset * RATE)])
            assert event.level_db is not None and 20 * np.log10(heard) > event.level_db - 0.5
    assert len({record.group for record in records}) == 1


def test_workers_order_and_count_change_nothing(bank: Path, whole: Path, tmp_path: Path) -> None:
    path = made(bank, tmp_path, count=23, workers=2)  # two parts
    ours, theirs = hashes(tmp_path), hashes(whole.parent)
    assert len(ours) == 23 and {name: ours[name] for name in theirs} == theirs
    assert read_rows(path)[:5] == read_rows(whole)


def test_a_stage_that_was_killed_goes_on(
    bank: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while a file is written: the partial file is not taken for a scene, and what follows is the same."""
    write = scene_files.write_sound
    monkeypatch.setattr(scene_files, "PART", 2)

    def killed(path: Path, *given: Any) -> None:
        if path.stem.endswith("3"):
            path.with_name(f".{path.name}.1").write_bytes(b"half")
            raise KeyboardInterrupt
        write(path, *given)

    with monkeypatch.context() as patch:
        patch.setattr(scene_files, "write_sound", killed)
        with pytest.raises(KeyboardInterrupt):
            made(bank, tmp_path)
    assert not (tmp_path / "scenes.parquet").exists()
    assert not (tmp_path / "audio" / "scenes-000003.flac").exists()
    first = (tmp_path / "audio" / "scenes-000000.flac").stat().st_mtime_ns
    assert read_rows(made(bank, tmp_path)) == read_rows(whole)
    assert (tmp_path / "audio" / "scenes-000000.flac").stat().st_mtime_ns == first  # its part was done
    ours = {name: digest for name, digest in hashes(tmp_path).items() if name.endswith(".flac")}
    assert ours == hashes(whole.parent)


def test_another_bank_or_other_settings_are_refused(bank: Path, tmp_path: Path) -> None:
    made(bank, tmp_path, count=1)
    other = SETTINGS.model_copy(update={"speech": 0.0})
    with pytest.raises(DataError, match="other settings"):
        mix_scenes(bank, tmp_path, other, count=1, seed=3, splits=["train"])
    changed = write_bank(tmp_path / "bank", {"train": ("sound",), "test": ("digit",)})
    with pytest.raises(DataError, match="other settings"):
        made(changed, tmp_path, count=1)


def test_no_bank_and_no_clips_are_said(bank: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sound bank there"):
        made(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match="no clip of the chosen splits"):
        mix_scenes(bank, tmp_path / "out", SETTINGS, count=1, seed=0, splits=["unseen_package"])


def test_a_disk_that_refuses_is_said(bank: Path, tmp_path: Path) -> None:
    (tmp_path / "audio").write_text("a file where a folder must be")
    with pytest.raises(DataError, match="run the same command again"):
        made(bank, tmp_path)
