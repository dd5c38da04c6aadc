"""Audio in the training forward pass: as in the model's own forward, in any batch, with gradient where it belongs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.dialects import dialect_named
from echo_agent.engine.feature_files import FeatureFiles
from echo_agent.engine.frozen_features import FrozenFeatures
from echo_agent.errors import DataError, PlaceholderError, RecordingError
from echo_agent.families.base import Family
from echo_agent.finetune.audio_inputs import AudioHook, AudioInput, AudioLoader
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.policy import mark_trainable
from echo_agent.finetune.trajectories import to_trajectory
from echo_agent.stores import RecordingStore
from echo_agent.trajectory import Trajectory
from tests.tiny import KINDS, sounds, tiny_family

REASONINGS = (
    "A dog barks near the end.",
    "It starts <seg>1, 3</seg> and there is a dog.",
    "First <seg>1, 2.5</seg>, then <seg>3, 4.5</seg>: a dog, and once more a dog.",
)
"""Of growing length, with no crop, one, and two that are equally long."""
DECISIVE = 0.01
"""Log-probabilities that differ by so much are others; equal ones differ by less than 1e-4."""


def listener(world: World, files: FeatureFiles | None = None, memory: int = 1 << 30) -> AudioLoader:
    """What a training hears by: crops are kept on disk too."""
    kept = FrozenFeatures(world.family, world.store, memory, files, crops_on_disk=True)
    return AudioLoader(world.family, world.store, kept.get)


@dataclass
class World:
    """A tiny policy that hears, and what it hears."""

    family: Family
    store: RecordingStore = field(default_factory=RecordingStore)

    def __post_init__(self) -> None:
        self.recording = self.store.add(Recording.from_array(sounds(5.0), 16000))
        self.rows = [self.trajectory(reasoning) for reasoning in REASONINGS]
        mark_trainable(self.family, train_encoder=False)
        self.hearing = AudioHook(self.family)
        self.listen = listener(self)

    def trajectory(self, reasoning: str) -> Trajectory:
        fields: Any = {"choices": ("a dog", "a cat"), "answer": "a dog", "duration": 5.0}
        sample = Sample(id="s", audio="s.flac", question="What barks?", reasoning=reasoning, **fields)
        return to_trajectory(sample, self.family, dialect_named("inline"), self.recording)

    def crops(self, refs: Sequence[AudioRef]) -> list[tuple[AudioRef, Any]]:
        return [(ref, self.store.crop(ref, self.family.sample_rate)) for ref in refs]

    def own(self, row: Trajectory) -> Tensor:
        """Log-probabilities ``[n, vocabulary]`` by the model's own ``forward`` from samples."""
        with torch.no_grad():
            inputs = self.family.forward_inputs(row.ids, self.crops(row.audio))
            return self.family.model(**inputs).logits[0].float().log_softmax(-1)

    def heard(
        self,
        rows: Sequence[Trajectory],
        audio: Sequence[Sequence[AudioInput]] | None = None,
        left: bool = False,
        pad: int | None = None,
    ) -> list[Tensor]:
        """The same through the hook, all rows in one padded batch; padding is cut off again."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.family.pad_id if pad is None else pad)
        mask = torch.zeros_like(ids)
        places = [slice(longest - len(r.ids), None) if left else slice(len(r.ids)) for r in rows]
        for number, (row, place) in enumerate(zip(rows, places, strict=True)):
            ids[number, place] = torch.tensor(row.ids)
            mask[number, place] = 1
        audio = [self.listen(row.audio) for row in rows] if audio is None else audio
        with torch.no_grad():
            logits = self.family.model(input_ids=ids, attention_mask=mask, audio=audio).logits
        scores = logits.float().log_softmax(-1)
        return [scores[number, place] for number, place in enumerate(places)]


@pytest.fixture(scope="module", params=KINDS)
def world(request: pytest.FixtureRequest) -> World:
    return World(tiny_family(request.param))


@pytest.fixture
def trained(world: World) -> World:
    """A copy whose weights and gradients a test may change."""
    family = copy.copy(world.family)
    world.hearing.remove()
    family.model = copy.deepcopy(world.family.model)
    world.hearing = AudioHook(world.family)
    return World(family, world.store)


def gap(first: Tensor, second: Tensor) -> float:
    assert first.shape == second.shape and bool(torch.isfinite(first).all() and torch.isfinite(second).all())
    return (first - second).abs().max().item()


# --- equal to the model's own forward -------------------------------------------------------------------------------


def test_the_hook_gives_what_the_models_own_forward_gives(world: World) -> None:
    for row in world.rows:
        assert gap(world.heard([row])[0], world.own(row)) < 1e-4
    assert [len(row.audio) for row in world.rows] == [1, 2, 3]


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_rows_of_a_padded_batch_give_what_they_give_alone(world: World, left: bool) -> None:
    """Whatever the padding holds: only the mask says what is padding."""
    assert len({len(row.ids) for row in world.rows}) == len(world.rows)
    for pad in (world.family.pad_id, world.rows[0].ids[-3]):
        for row, scores in zip(world.rows, world.heard(world.rows, left=left, pad=pad), strict=True):
            assert gap(scores, world.own(row)) < 1e-4


def test_samples_give_what_features_give(world: World) -> None:
    """And both may stand in one batch."""
    row = world.rows[2]
    features = world.listen(row.audio)
    samples = [AudioInput(ref, samples=crop) for ref, crop in world.crops(row.audio)]
    for heard in (samples, [features[0], samples[1], features[2]]):
        assert gap(world.heard([row], [heard])[0], world.own(row)) < 1e-4


# --- the twins that must fail ---------------------------------------------------------------------------------------


def test_features_of_nothing_are_noticed(world: World) -> None:
    row = world.rows[1]
    whole, crop = world.listen(row.audio)
    assert crop.features is not None
    silent = replace(
        crop, features={n: v * 0 if v.is_floating_point() else v for n, v in crop.features.items()}
    )
    scores = world.heard([row], [[whole, silent]])[0]
    first = world.family.placeholder_ranges(row.ids)[1][0]
    assert gap(scores[first:], world.own(row)[first:]) > DECISIVE
    assert gap(scores[:first], world.own(row)[:first]) < 1e-4  # nothing is heard before it is asked for


def test_crops_in_the_wrong_order_are_noticed(world: World) -> None:
    row = world.rows[2]
    whole, first, second = world.listen(row.audio)
    assert gap(world.heard([row], [[whole, second, first]])[0], world.own(row)) > DECISIVE
    other = world.store.add(Recording.from_array(sounds(5.0, seed=9), 16000))
    scores = world.heard([row], [[*world.listen([other]), first, second]])[0]
    assert gap(scores, world.own(row)) > DECISIVE


def test_rows_that_take_each_others_audio_are_noticed(world: World) -> None:
    row = world.rows[1]
    twin = world.trajectory(REASONINGS[1].replace("1, 3", "2, 4"))
    audio = [world.listen(row.audio), world.listen(twin.audio)]
    right = world.heard([row, twin], audio)
    wrong = world.heard([row, twin], audio[::-1])
    assert gap(right[0], world.own(row)) < 1e-4 and gap(right[1], world.own(twin)) < 1e-4
    assert gap(wrong[0], world.own(row)) > DECISIVE and gap(wrong[1], world.own(twin)) > DECISIVE


def test_positions_that_do_not_count_are_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotary embeddings know nothing of a shift of all positions, as left padding without positions gives."""
    row, position_ids = world.rows[1], world.family.position_ids
    own = world.own(row)
    for wrong, noticed in (
        (lambda at: at + 7, False),
        (torch.zeros_like, True),
        (lambda at: at + 7 * (at > len(row.ids) // 2), True),
    ):
        monkeypatch.setattr(world.family, "position_ids", lambda at, wrong=wrong: position_ids(wrong(at)))
        assert (gap(world.heard([row])[0], own) > DECISIVE) is noticed


# --- gradient -------------------------------------------------------------------------------------------------------


def gradients(world: World, audio: Sequence[AudioInput] | None) -> dict[str, Tensor]:
    """Gradients that are not zero, of a loss on what the policy wrote after its second listen.

    Through the hook; without ``audio`` through the model's own forward.
    """
    model, row = world.family.model, world.rows[1]
    model.zero_grad(set_to_none=True)
    inputs = world.family.forward_inputs(row.ids, world.crops(row.audio))
    if audio is not None:
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")} | {"audio": [audio]}
    scores, ids = model(**inputs).logits[0], torch.tensor(row.ids)
    written = torch.tensor(row.mask, dtype=torch.bool)
    written[: world.family.placeholder_ranges(row.ids)[1][0]] = False
    torch.nn.functional.cross_entropy(scores[:-1][written[1:]], ids[1:][written[1:]]).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: grad for name, grad in found.items() if grad is not None and bool(grad.any())}


def inside(family: Family, modules: Sequence[str]) -> set[str]:
    """Names of the parameters of some modules."""
    return {
        f"{module}.{name}"
        for module in modules
        for name, _ in family.model.get_submodule(module).named_parameters()
    }


def test_the_gradient_reaches_projector_and_decoder_and_no_frozen_encoder(trained: World) -> None:
    family, audio = trained.family, trained.listen(trained.rows[1].audio)
    assert all(heard.features is not None and heard.samples is None for heard in audio)
    reached = gradients(trained, audio)
    assert inside(family, [family.projector_module]) <= reached.keys()
    assert inside(family, [f"{family.decoder_module}.layers"]) <= reached.keys()
    assert not inside(family, family.frozen_modules) & reached.keys()


def test_the_gradient_reaches_the_encoder_where_it_is_trained(trained: World) -> None:
    family = trained.family
    mark_trainable(family, train_encoder=True)
    audio = trained.listen(trained.rows[1].audio)
    assert all(heard.features is None and heard.samples is not None for heard in audio)
    reached = gradients(trained, audio)
    deaf = inside(family, family.frozen_modules) - reached.keys()
    assert not {name for name in deaf if "k_proj.bias" not in name and "positions" not in name}
    # softmax does not feel a bias of the keys, and tables of positions stay as they are
    assert inside(family, [family.projector_module]) <= reached.keys()
    # The twin: features that were kept lead to no encoder.
    mark_trainable(family, train_encoder=False)
    kept = trained.listen(trained.rows[1].audio)
    mark_trainable(family, train_encoder=True)
    assert not inside(family, family.frozen_modules) & gradients(trained, kept).keys()


def test_the_gradient_through_the_hook_is_that_of_the_models_own_forward(trained: World) -> None:
    mark_trainable(trained.family, train_encoder=True)
    reached = gradients(trained, trained.listen(trained.rows[1].audio))
    for name, own in gradients(trained, None).items():
        assert torch.allclose(reached[name], own, atol=1e-4, rtol=1e-3), name
    trained.hearing.remove()
    assert not trained.family.model._forward_pre_hooks


# --- placeholders ---------------------------------------------------------------------------------------------------


def test_too_many_and_too_few_listens_are_refused_with_both_numbers(world: World) -> None:
    row = world.rows[1]
    whole, crop = world.listen(row.audio)
    wanted = sum(count for _, count in world.family.placeholder_ranges(row.ids))
    more = world.family.audio_tokens(crop.ref)
    for audio, given in (([whole, crop, crop], wanted + more), ([whole], wanted - more), ([], 0)):
        with pytest.raises(PlaceholderError, match=f"has {wanted} audio placeholders, .* give {given}$"):
            world.heard([row], [audio])
    text = Trajectory().append(row.segments[-1])
    with pytest.raises(PlaceholderError, match=f"has 0 audio placeholders, .* give {more}$"):
        world.heard([text], [[crop]])
    assert len(world.heard([text], [[]])[0]) == len(text.ids)


def test_placeholders_without_audio_are_refused(world: World) -> None:
    """Qwen2-Audio's own forward scores them without a word."""
    row = world.rows[0]
    ids = torch.tensor([row.ids])
    with pytest.raises(PlaceholderError, match="no audio: pass audio="):
        world.family.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    text = torch.tensor([row.segments[-1].ids])
    assert world.family.model(input_ids=text, attention_mask=torch.ones_like(text)).logits is not None


# --- AudioLoader -----------------------------------------------------------------------------------------------


def deaf(_: Any) -> list[Any]:
    raise AssertionError("nothing is to be encoded")


def same(first: Sequence[AudioInput], second: Sequence[AudioInput]) -> bool:
    """The same listens with the same features, bit for bit."""
    for one, two in zip(first, second, strict=True):
        assert one.features is not None and two.features is not None
        if one.ref != two.ref or one.features.keys() != two.features.keys():
            return False
        if not all(torch.equal(value, two.features[name]) for name, value in one.features.items()):
            return False
    return True


def test_what_was_heard_is_kept_at_hand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    refs = world.rows[2].audio
    full, empty = listener(world), listener(world, memory=0)
    first = full([*refs, refs[0]])
    assert [heard.ref for heard in first] == [*refs, refs[0]] and same(first[:1], first[3:])
    assert not same(first[1:2], [replace(first[2], ref=first[1].ref)])
    empty(refs)
    monkeypatch.setattr(world.family, "encode", deaf)
    assert same(full(refs[::-1]), first[2::-1])
    with pytest.raises(AssertionError, match="nothing is to be encoded"):
        empty(refs)


def test_what_was_heard_is_kept_on_disk_for_the_next_run(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = world.rows[2].audio
    first = listener(world, FeatureFiles(tmp_path, world.family))(refs)
    monkeypatch.setattr(world.family, "encode", deaf)
    again = listener(world, FeatureFiles(tmp_path, world.family))
    assert same(again(refs), first)
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    assert same(again(refs), first)  # from memory by now
    with pytest.raises(AssertionError, match="nothing is to be encoded"):
        listener(world, FeatureFiles(tmp_path, world.family))(refs)


def test_a_damaged_file_is_named(world: World, tmp_path: Path) -> None:
    files = FeatureFiles(tmp_path, world.family)
    listener(world, files)(world.rows[1].audio)
    path = files.path(world.rows[1].audio[1])
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match=f"{path} is damaged: remove it"):
        listener(world, files)(world.rows[1].audio)


def test_a_recording_that_is_gone_is_named(world: World) -> None:
    gone = Recording.from_array(sounds(1.0, seed=7), 16000).ref()
    with pytest.raises(RecordingError, match=r"the recording .* is not here any more"):
        world.listen([world.recording, gone])


def test_features_are_the_same_while_the_model_is_trained(trained: World) -> None:
    """echo-nano's branch has a dropout: what is kept for all of a training must not be drawn by it."""
    refs = trained.rows[2].audio
    model = trained.family.model
    expected = listener(trained)(refs)
    model.train()
    assert same(listener(trained)(refs), expected)
    assert all(module.training for module in model.modules())
    if trained.family.kind == "echo-nano":  # the twin: encoded in training, it is another each time
        crops = trained.crops(refs)
        with torch.no_grad():
            drawn = [AudioInput(ref, f) for ref, f in zip(refs, trained.family.encode(crops), strict=True)]
        assert not same(drawn, expected)
