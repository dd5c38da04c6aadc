"""Lessons about scenes that ears have heard: their listens are the family's own, and a run goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from echo_agent.audio.recording import Recording
from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.reader import Clip, SoundBank
from echo_agent.finetune.small import heard_lessons
from echo_agent.finetune.small.heard_lessons import HeardScene, digest, hear, read
from echo_agent.finetune.small.listens import Listener
from echo_agent.finetune.small.packing import IGNORED
from echo_agent.finetune.small.text_first import TextConfig, lessons
from echo_agent.small.processing import AUDIO_END, AUDIO_START
from tests.small.tiny_small import tiny_small
from tests.sounds import lively


@pytest.fixture(scope="module")
def bank() -> SoundBank:
    labels = ("dog", "rain", "church_bell", "cow")
    return SoundBank(
        [
            Clip(label, "sound", "p", "", label, "CC0-1.0", lively(1.0, 16000, seed=seed))
            for seed, label in enumerate(labels)
        ]
    )


@pytest.fixture(scope="module")
def folder(bank: SoundBank, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("lessons")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heard_lessons, "PART", 1)
        hear(tiny_small(), bank, made, 3, seed=0)
    return made


def test_a_listen_is_what_the_model_itself_would_read() -> None:
    family = tiny_small()
    recording = Recording.from_array(lively(4.0, 16000), 16000)
    scene = HeardScene(4.0, (), family=family, recording=recording)
    listener = Listener(family.tokenizer, family.config.blank_token_id)
    for start, end in ((0.0, 4.0), (1.0, 3.0), (2.0, 5.0)):
        ref = recording.ref(start, min(end, 4.0))
        ids = scene.listen(listener, start, end)
        (heard,) = family.frozen_features([(ref, recording.crop(ref, 16000))])
        assert ids == [*listener.ids(AUDIO_START), *heard["ids"].tolist(), *listener.ids(AUDIO_END)]
        assert len(ids) == len(family.audio_ids(ref))


def test_lessons_ask_and_answer(folder: Path) -> None:
    family = tiny_small()
    packs = read(folder)
    assert len(packs) == 3
    for pack in packs:
        assert len(pack.ids) == len(pack.labels) == len(pack.branch) == len(pack.positions)
        assert max(pack.branch) > 2, "several questions about one recording"
        learned = [token for token in pack.labels if token != IGNORED]
        assert family.detokenize(learned).count("</answer>") == max(pack.branch)


def test_what_is_there_is_not_heard_again(
    folder: Path, bank: SoundBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heard_lessons, "PART", 1)
    before = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    (folder / "000001.jsonl").unlink()
    written = (folder / "000000.jsonl").stat().st_mtime_ns
    hear(tiny_small(), bank, folder, 3, seed=0)
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == before
    assert (folder / "000000.jsonl").stat().st_mtime_ns == written


def test_more_scenes_go_on_and_other_settings_are_refused(bank: SoundBank, tmp_path: Path) -> None:
    family = tiny_small()
    hear(family, bank, tmp_path, 2, seed=0)
    two = [pack.ids for pack in read(tmp_path)]
    hear(family, bank, tmp_path, 3, seed=0)
    three = [pack.ids for pack in read(tmp_path)]
    assert (len(two), len(three)) == (2, 3) and three[:2] == two
    before = digest(tmp_path)
    hear(family, bank, tmp_path, 1, seed=0)
    assert digest(tmp_path) == before
    others = SoundBank([clip for clips in bank.sounds.values() for clip in clips][:3])
    for model, clips, seed in ((family, bank, 1), (tiny_small(1), bank, 0), (family, others, 0)):
        with pytest.raises(DataError, match=r"holds lessons with other settings \(settings.json\)"):
            hear(model, clips, tmp_path, 3, seed=seed)


def test_a_step_learns_from_them_beside_its_own(folder: Path) -> None:
    tokenizer = tiny_small().tokenizer
    config = TextConfig(steps=4, tokens=400, questions=2, by_ears=1.0)
    kept = read(folder)
    row = lessons(tokenizer, 1, config, kept)
    assert any(row.ids[0, : len(pack.ids)].tolist() == pack.ids for pack in kept) or any(
        row.ids[0, :60].tolist() == pack.with_fewer(tokenizer.convert_tokens_to_ids("<|audio|>"), 2).ids[:60]
        for pack in kept
    )
    assert lessons(tokenizer, 1, config, kept).ids.equal(row.ids)
    alone = lessons(tokenizer, 1, replace(config, by_ears=0.0), kept)
    assert alone.ids.shape != row.ids.shape or not alone.ids.equal(row.ids)


def test_a_folder_without_lessons_and_a_damaged_one_are_said(tmp_path: Path) -> None:
    for look in (read, digest):
        with pytest.raises(DataError, match="holds no lessons"):
            look(tmp_path)
    for text in ("{", '{"ids": [1]}', "[]"):
        (tmp_path / "000000.jsonl").write_text(text + "\n")
        with pytest.raises(
            DataError, match=r"000000.jsonl is damaged .*: remove it and hear its scenes again"
        ):
            read(tmp_path)


def test_the_seed_and_the_number_make_a_scene(bank: SoundBank, tmp_path: Path, folder: Path) -> None:
    hear(tiny_small(), bank, tmp_path, 2, seed=0)
    assert [pack.ids for pack in read(tmp_path)] == [pack.ids for pack in read(folder)][:2]
    assert np.all([pack.positions[0] == 0 for pack in read(tmp_path)])
