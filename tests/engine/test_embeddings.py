"""Audio features: one batch, once each, and one bad crop spoils no other."""

from __future__ import annotations

import pytest
import torch

from echo_agent.audio.recording import Recording
from echo_agent.audio.references import AudioRef
from echo_agent.engine.embeddings import AudioFeatures
from echo_agent.errors import RecordingError, RecordingTooLongError
from tests.engine.conftest import World
from tests.tiny import sounds, tiny_family


def tensor(value: torch.Tensor | Exception) -> torch.Tensor:
    assert isinstance(value, torch.Tensor)
    return value


def test_crops_are_encoded_together_and_once(world: World) -> None:
    audio = AudioFeatures(world.family, world.store, 1 << 24)
    refs = [world.whole.span(start, start + 1) for start in (0.0, 1.0, 2.0)]
    found = audio.embeddings([*refs, refs[0]])
    assert (audio.frozen.encoded, audio.frozen.batches) == (3, 1)
    for ref in refs:
        embeds = tensor(found[ref.key()])
        assert len(embeds) == world.family.audio_tokens(ref)
        assert not embeds.requires_grad
        alone = AudioFeatures(world.family, world.store, 0).embeddings([ref])[ref.key()]
        assert torch.allclose(embeds, tensor(alone), atol=1e-4)
    again = audio.embeddings([refs[1], world.other])
    assert torch.equal(tensor(again[refs[1].key()]), tensor(found[refs[1].key()]))
    assert (audio.frozen.encoded, audio.frozen.batches) == (4, 2)


def test_nothing_is_kept_beyond_the_limit(qwen: World) -> None:
    audio = AudioFeatures(qwen.family, qwen.store, 0)
    for count in (1, 2):
        tensor(audio.embeddings([qwen.other])[qwen.other.key()])
        assert audio.frozen.encoded == count
    assert audio.frozen.kept.stats.nbytes == audio.embeds.stats.nbytes == 0


def test_frozen_features_outlive_a_change_of_weights() -> None:
    world = World(tiny_family("qwen2-audio"))
    world.family.freeze()
    audio = AudioFeatures(world.family, world.store, 1 << 24)
    before = tensor(audio.embeddings([world.other])[world.other.key()])
    with torch.no_grad():
        world.family.model.get_submodule("model.multi_modal_projector").linear.weight.mul_(2)  # pyright: ignore
    assert torch.equal(tensor(audio.embeddings([world.other])[world.other.key()]), before)
    audio.weights_changed()
    after = tensor(audio.embeddings([world.other])[world.other.key()])
    assert audio.frozen.encoded == 1
    assert not torch.allclose(after, before, atol=1e-3)


def test_stored_tensors_hold_on_to_no_batch(qwen: World) -> None:
    audio = AudioFeatures(qwen.family, qwen.store, 1 << 24)
    refs = [qwen.whole, qwen.other]
    audio.embeddings(refs)
    for ref in refs:
        stored = [audio.embeds.get(ref.key()), *(audio.frozen.kept.get(ref.key()) or {}).values()]
        for value in stored:
            assert value is not None and value.untyped_storage().nbytes() == value.nbytes


def test_one_bad_crop_spoils_no_other(qwen: World, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = AudioFeatures(qwen.family, qwen.store, 1 << 24)
    gone = Recording.from_array(sounds(1.0, seed=5), 16000).ref()
    long = AudioRef(source="memory:long", sha256="1" * 64, duration=9999, start=0, end=9999)
    broken = qwen.twin
    encode = qwen.family.frozen_features

    def refuses(crops):  # noqa: ANN001, ANN202 - the signature of the method it stands before
        if any(ref == broken for ref, _ in crops):
            raise ValueError("this one cannot be encoded")
        return encode(crops)

    monkeypatch.setattr(qwen.family, "frozen_features", refuses)
    found = audio.embeddings([qwen.whole, gone, long, broken, qwen.other])
    assert isinstance(found[gone.key()], RecordingError)
    assert isinstance(found[long.key()], RecordingTooLongError)
    assert isinstance(found[broken.key()], ValueError)
    for ref in (qwen.whole, qwen.other):
        assert len(tensor(found[ref.key()])) == qwen.family.audio_tokens(ref)
