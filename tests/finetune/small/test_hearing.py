"""The ears' head: what is heard in each step, a run that goes on where it was stopped, and scores of events."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.ears import f1, matched
from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.reader import Clip, SoundBank
from echo_agent.finetune.data.natural.sounds import sounds
from echo_agent.finetune.data.records import Event
from echo_agent.finetune.small.assemble import take_ears
from echo_agent.finetune.small.hearing import (
    best_thresholds,
    false_alarms,
    hear_parts,
    read_part,
    targets,
    teach,
    train_head,
    without_yamnet,
)
from echo_agent.small.ears import STEP_SECONDS, SoundHead
from echo_agent.small.notes import Heard
from echo_agent.small.yamnet import CLASSES, WIDTH
from tests.small.tiny_small import tiny_small
from tests.sounds import lively


def test_a_sound_is_heard_in_the_steps_that_it_fills() -> None:
    events = [
        Event("dog", "sound", 1.0, 2.0),
        Event("church_bell", "sound", 3.9, 4.0),
        Event("zither", "sound", 0.0, 9.0),
    ]
    heard = targets(events, 12, ["church bell", "dog"])
    assert heard[:, 1].nonzero().flatten().tolist() == [2, 3]
    assert heard[:, 0].nonzero().flatten().tolist() == [8]
    assert round(4.0 / STEP_SECONDS) == 8


def test_parts_that_are_there_are_not_heard_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("echo_agent.finetune.small.hearing.PART", 1)
    clips = [
        Clip(label, "sound", "p", "", f"{label}", "CC0-1.0", lively(1.0, 16000, seed=seed))
        for seed, label in enumerate(("dog", "rain", "bell"))
    ]
    bank = SoundBank(clips)
    family = tiny_small()
    first = hear_parts(family, bank, tmp_path, 2, seed=0)
    before = [path.read_bytes() for path in first]
    first[1].unlink()
    written = first[0].stat().st_mtime_ns
    assert hear_parts(family, bank, tmp_path, 2, seed=0) == first
    assert [path.read_bytes() for path in first] == before and first[0].stat().st_mtime_ns == written
    part = read_part(first[0])
    assert part.features.shape[:2] == part.targets.shape[:2] and part.targets.shape[2] == 4
    teach(family, bank, first[:1], first[1:])
    assert family.config.taught == [
        True,
        False,
        True,
        True,
    ]  # there is no church bell; a voice is always taught
    ears = family.model.model.ears
    assert ears.config is family.config
    silent = torch.full((1, WIDTH + CLASSES + 2 * family.config.whisper_config.d_model), -50.0)
    family.config.thresholds = [-100.0, 100.0, 0.0, 0.0]
    with torch.no_grad():
        assert ears.scores(silent)[0, :2].round().tolist() == [1.0, 0.0]


def test_a_name_that_was_not_taught_must_stand_above_its_false_alarms(tmp_path: Path) -> None:
    family = tiny_small()
    width = WIDTH + CLASSES + 2 * family.config.whisper_config.d_model
    features = torch.full((2, 5000, width), -9.0)
    features[0, 0, WIDTH + 195] = 2.0  # a church bell, in a step of ten thousand
    features[1, :, WIDTH + 283] = 1.0  # rain, in all of one scene
    save_file(
        {"features": features.half(), "targets": torch.zeros(2, 5000, 4, dtype=torch.uint8)},
        tmp_path / "0.safetensors",
    )
    dog, bell, rain, _ = false_alarms(family, [tmp_path / "0.safetensors"])
    assert dog == -1.0 and bell == -1.0 and rain == pytest.approx(1.0)


def test_a_head_learns_what_both_networks_say(tmp_path: Path) -> None:
    family = tiny_small()
    config, head = family.config, family.model.model.ears.head
    head.load_state_dict(SoundHead(config).state_dict())  # of the usual size
    width = WIDTH + CLASSES + 2 * config.whisper_config.d_model
    draw = torch.Generator().manual_seed(0)
    heard = (torch.rand(64, 20, 4, generator=draw) > 0.7).to(torch.uint8)
    marks = torch.randn(4, width, generator=draw)
    features = (heard.float() @ marks + 0.3 * torch.randn(64, 20, width, generator=draw)).half()
    save_file({"features": features, "targets": heard}, tmp_path / "0.safetensors")
    losses = train_head(head, [tmp_path / "0.safetensors"])
    assert losses[-1] < 0.5 * losses[0] and family.is_frozen
    with torch.no_grad():
        found = head(features.float()) > 0
    assert (found == heard.bool()).float().mean() > 0.9


def test_the_head_is_believed_where_it_is_most_often_right(tmp_path: Path) -> None:
    class Shy(SoundHead):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features[..., :4]

    heard = torch.zeros(1, 40, 4, dtype=torch.uint8)
    heard[0, :10, 0] = 1
    logits = torch.full((1, 40, 4), -4.0)
    logits[0, :10, 0] = -0.9  # right, but never above zero
    logits[0, 10:15, 0] = -2.1
    save_file({"features": logits.half(), "targets": heard}, tmp_path / "0.safetensors")
    first, *others = best_thresholds(Shy(tiny_small().config), [tmp_path / "0.safetensors"])
    assert -2.1 <= first < -0.9 and others == [0.0, 0.0, 0.0]


def test_whisper_alone_hears_nothing_of_yamnet() -> None:
    features = torch.ones(2, 3, WIDTH + CLASSES + 32)
    alone = without_yamnet(features)
    assert not alone[..., : WIDTH + CLASSES].any() and alone[..., WIDTH + CLASSES :].all()
    assert features.all()


def test_events_are_matched_once_by_name_and_onset() -> None:
    true = [
        Event("dog", "sound", 1.0, 2.0),
        Event("dog", "sound", 5.0, 6.0),
        Event("rain", "sound", 3.0, 9.0),
    ]
    found = [Heard("dog", 1.4, 2.0), Heard("dog", 1.2, 2.0), Heard("rain", 4.5, 9.0), Heard("cat", 1.0, 2.0)]
    right, names, heard = matched(true, found)
    assert dict(right) == {"dog": 1}
    assert dict(names) == {"dog": 2, "rain": 1} and dict(heard) == {"dog": 2, "rain": 1, "cat": 1}
    assert f1(1, 3, 4) == pytest.approx(28.6)
    assert np.isfinite(f1(0, 0, 0)) and "dog" in sounds()


def test_ears_are_taken_from_a_model_that_was_taught(tmp_path: Path) -> None:
    taught, other = tiny_small(1), tiny_small(2)
    taught.config.thresholds = [0.5, -1.0, 2.0, 0.25]
    taught.save(tmp_path / "taught")
    decoder = other.model.model.language_model.layers[0].mlp.up_proj.weight.clone()
    take_ears(other, tmp_path / "taught")
    features = torch.randn(5, WIDTH + CLASSES + 2 * other.config.whisper_config.d_model)
    with torch.no_grad():
        expected, scores = (one.model.model.ears.scores(features) for one in (taught, other))
    assert torch.equal(expected, scores) and other.config.thresholds == taught.config.thresholds
    assert torch.equal(other.model.model.language_model.layers[0].mlp.up_proj.weight, decoder)
    taught.config.sounds = ["cat", *taught.config.sounds[1:]]
    taught.save(tmp_path / "other")
    with pytest.raises(DataError, match="other names for sounds"):
        take_ears(other, tmp_path / "other")
