"""Gemma 4: layers of two shapes, windows of positions, and ids that are read beside embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from echo_agent.audio.recording import Recording
from echo_agent.conformance.story import SAME, apart, by_steps, native, tell
from echo_agent.engine import SamplingParams, TorchEngine
from echo_agent.engine.prefix_cache import symbols_of
from echo_agent.errors import DataError, ModelError, RecordingTooLongError
from echo_agent.families.base import Family
from echo_agent.families.checkpoint import check_sizes
from echo_agent.families.loading import load_family
from echo_agent.finetune.policy import mark_trainable
from echo_agent.stores import RecordingStore
from tests.families.test_loading import PUBLISHED
from tests.tiny import crop, sounds, tiny_extractor, tiny_family

KINDS = ("gemma4", "gemma4-unified")


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest) -> Family:
    return tiny_family(request.param)


def test_counts_and_features_equal_the_processors_for_one_clip(family: Family) -> None:
    for seconds in (0.2, 0.2001, 0.3, 0.61, 1.0, 1.2345, 7.7, 30.0):
        ref, samples = crop(seconds)
        own = tiny_extractor(family.kind)([samples], return_tensors="pt")
        ours = family.forward_inputs(family.audio_ids(ref), [(ref, samples)])
        assert all(torch.equal(own[key], ours[key]) for key in own)
        heard = own["input_features_mask"][0]
        tokens = int(heard[::4].sum()) if family.kind == "gemma4" else len(heard)
        assert family.audio_tokens(ref) == tokens
    assert family.audio_tokens(ref) == 750


def test_the_embeddings_of_a_batch_are_those_that_the_model_makes_of_each_listen(family: Family) -> None:
    crops = [crop(seconds, seed) for seed, seconds in enumerate((0.2, 3.0, 1.1))]
    with torch.no_grad():
        ours = family.audio_embeds([ref for ref, _ in crops], family.frozen_features(crops))
        for (ref, samples), embeds in zip(crops, ours, strict=True):
            inputs = family.forward_inputs(family.audio_ids(ref), [(ref, samples)])
            model: Any = family.model
            own = model.model.get_audio_features(inputs["input_features"], inputs["input_features_mask"])
            assert apart(own.pooler_output[0][: len(embeds)], embeds) < 1e-5


def test_a_context_reaches_further_back_than_a_window(family: Family) -> None:
    """With all layers looking back over everything, or the last ones over less, scores are others: a mask counts."""
    told = tell(family)
    full = native(family, told)
    text: Any = family.model.config.get_text_config()
    window = text.sliding_window
    assert len(told.ids) > 3 * window
    for other in (10**6, window - 1):
        text.sliding_window = other
        try:
            assert apart(by_steps(family, told), full) > 10 * SAME
        finally:
            text.sliding_window = window
    assert apart(by_steps(family, told), full) < SAME


def test_layers_without_keys_of_their_own_leave_nothing_in_the_cache(family: Family) -> None:
    """The engine keeps two stacks, of narrow layers and of wide ones; in E2B the last two read what others keep."""
    store = RecordingStore()
    ref = store.add(Recording.from_array(sounds(1.0), 16000))
    ids, audio = family.render(family.question_pieces([ref], "What?", None))
    with TorchEngine(family, store) as engine:
        engine.submit(ids, audio, SamplingParams(temperature=0.0, max_new_tokens=2)).result()
        symbols = symbols_of(ids, family.placeholder_ranges(ids), [each.key() for each in audio])
        parts = engine._scheduler.prefixes.match(symbols)
    assert sum(part.tokens for part in parts) == len(ids)
    stacks = [(len(stack), stack.shape[-1]) for stack in parts[0].stacks]
    if family.kind == "gemma4":
        assert stacks == [(2, 8), (1, 16)] and parts[0].order == (0, 1, 0)
    else:
        assert stacks == [(3, 8), (2, 16)] and parts[0].order == (0, 1, 0, 0, 1)


def test_what_layers_read_of_ids_counts_and_audio_leaves_it_alone() -> None:
    family = tiny_family("gemma4")
    told = tell(family, spans=[])
    hidden = family.model.config.get_text_config().hidden_size
    ids = torch.tensor([told.ids])
    embeds = family.token_embeds(ids)
    places = ids == family.audio_id
    audio = torch.randn(int(places.sum()), hidden)
    heard = family.with_audio(embeds, places, audio)
    assert torch.equal(heard[places][:, :hidden], audio)
    assert torch.equal(heard[places][:, hidden:], embeds[places][:, hidden:])
    padding = family.token_embeds(torch.tensor([family.pad_id]))[:, hidden:]
    assert torch.equal(embeds[places][:, hidden:], padding.expand(len(audio), -1))
    other = embeds.clone()
    other[0, -1, hidden:] = 0.0
    mask, positions = torch.ones_like(ids), torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        scores, changed = (
            family.logits(family.forward_embeds(each, mask, positions, None)[0][0, -1])
            for each in (embeds, other)
        )
    assert apart(scores, changed) > 10 * SAME


def test_turns_and_marks_are_its_own(family: Family) -> None:
    text = "".join(piece.text for piece in family.question_pieces([crop(1.0)[0]], "What?", None))
    assert text.startswith("<bos><|turn>system\nYou are") and text.endswith("<turn|>\n<|turn>model\n")
    vocabulary = family.tokenizer.get_vocab()
    for token in ("<|audio>", "<audio|>", "<|audio|>", "<|image>", "<image|>", "<|image|>", "<|video|>"):
        assert vocabulary[token] in family.banned_ids
    assert not {vocabulary["<turn|>"], vocabulary["<|channel>"]} & set(family.banned_ids)
    assert family.eos_ids == (vocabulary["<turn|>"], vocabulary["<eos>"])
    assert "<|turn>" not in family.escape("a <|turn>system b")


def test_more_than_half_a_minute_is_refused(family: Family) -> None:
    ref, _ = crop(31.0)
    with pytest.raises(RecordingTooLongError, match="hears at most 30 s"):
        family.audio_ids(ref)


def test_a_checkpoint_that_does_not_hear_is_refused(tmp_path: Path) -> None:
    family = tiny_family("gemma4")
    family.save(tmp_path)
    config: Any = family.model.config
    config.audio_config = None
    config.save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"a Gemma 4 that does not hear \(its config.json has no audio_config\)"
    ):
        load_family(str(tmp_path), "cpu")


def test_what_published_checkpoints_hold_beside_their_weights_is_left_alone(tmp_path: Path) -> None:
    """They have keys and values for layers that read those of others."""
    family = tiny_family("gemma4")
    family.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    own = "model.language_model.layers.1.self_attn."
    for name in ("k_proj.weight", "v_proj.weight", "k_norm.weight"):
        weights[own.replace("1", "4") + name] = weights[own + name].clone()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    told = tell(family)
    assert apart(native(load_family(str(tmp_path), "cpu"), told), native(family, told)) < 1e-6


@pytest.mark.parametrize("name", ["google/gemma-4-E2B-it", "google/gemma-4-12B-it"])
def test_published_sizes_are_sizes(name: str) -> None:
    check_sizes(name, PUBLISHED[name][1].to_dict())


def test_an_encoder_cannot_be_trained_where_there_is_none() -> None:
    mark_trainable(tiny_family("gemma4"), train_encoder=True)
    with pytest.raises(DataError, match="model.train_encoder: tiny-gemma4-unified has no encoder"):
        mark_trainable(tiny_family("gemma4-unified"), train_encoder=True)
