"""Features of listens: in order, kept where they are to be kept, and what is wrong with one is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from echo_agent.audio.recording import Recording
from echo_agent.audio.references import AudioRef
from echo_agent.engine.feature_files import FeatureFiles
from echo_agent.engine.frozen_features import BATCH_SECONDS, FrozenFeatures, batches
from echo_agent.errors import RecordingError
from echo_agent.stores import RecordingStore
from tests.engine.conftest import World
from tests.tiny import sounds, tiny_family


@pytest.fixture(scope="module")
def qwen() -> World:
    return World(tiny_family("qwen2.5-omni"))


def test_they_come_in_order_and_are_encoded_once(qwen: World) -> None:
    features = FrozenFeatures(qwen.family, qwen.store, 1 << 24)
    first, again, other = features.get([qwen.whole, qwen.whole, qwen.other])
    assert features.encoded == 2 and first is again
    for name, tensor in first.items():
        assert not torch.equal(tensor, other[name])


@pytest.mark.parametrize("crops", [False, True])
def test_crops_are_kept_on_disk_where_they_are_wanted(qwen: World, tmp_path: Path, crops: bool) -> None:
    files = FeatureFiles(tmp_path, qwen.family)
    crop = qwen.whole.span(0.0, 1.0)
    FrozenFeatures(qwen.family, qwen.store, 0, files, crops_on_disk=crops).get([qwen.whole, crop])
    assert qwen.whole in files and (crop in files) == crops


def test_what_is_wrong_with_one_is_raised(qwen: World) -> None:
    gone = Recording.from_array(sounds(1.0, seed=5), 16000).ref()
    with pytest.raises(RecordingError):
        FrozenFeatures(qwen.family, qwen.store, 0).get([qwen.whole, gone])


def test_batches_hold_so_much_audio_and_at_least_one_listen() -> None:
    lengths = [BATCH_SECONDS / 2, BATCH_SECONDS / 2, 1.0, 2 * BATCH_SECONDS, 1.0]
    refs = [
        AudioRef(source="m", sha256=f"{i:064d}", duration=s, start=0, end=s) for i, s in enumerate(lengths)
    ]
    assert [[ref.seconds for ref in batch] for batch in batches(refs)] == [
        lengths[:2],
        lengths[2:3],
        lengths[3:4],
        lengths[4:],
    ]


@pytest.mark.parametrize("seconds", [0.7, 3.1, 11.3, 47.0])
def test_notes_are_the_same_from_as_much_of_the_features_as_they_take(seconds: float) -> None:
    family, store = tiny_family("echo-nano"), RecordingStore()
    ref = store.add(Recording.from_array(sounds(seconds), 16000))
    early = FrozenFeatures(family, store, 1 << 24)
    some = early.for_notes(ref)
    assert early.for_notes(ref) is some and early.encoded == 0 and early.batches == 1
    (whole,) = early.get([ref])
    assert early.for_notes(ref) is whole
    some_nbytes, whole_nbytes = (sum(t.nbytes for t in one.values()) for one in (some, whole))
    assert some_nbytes < whole_nbytes / 4
    told, known = family.notes(ref, some), family.notes(ref, whole)
    assert [(one.start, one.end) for one in told] == [(one.start, one.end) for one in known]
    for one, other in zip(told, known, strict=True):
        assert one.sounds == pytest.approx(other.sounds, abs=1e-5)
    assert len({tuple(one.sounds.values()) for one in told}) > 1


def test_where_notes_take_all_features_these_are_kept_for_all_uses() -> None:
    family, store = tiny_family("echo-small"), RecordingStore()
    ref = store.add(Recording.from_array(sounds(4.0), 16000))
    features = FrozenFeatures(family, store, 1 << 24)
    assert features.for_notes(ref) is features.get([ref])[0] and features.encoded == 1
