"""Audio Flamingo 3 and Music Flamingo against their own processors and encoders; and the edges of their windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AudioFlamingo3Processor, MusicFlamingoProcessor

from echo_agent.audio.recording import Recording
from echo_agent.families.base import Family
from tests.tiny import sounds, tiny_extractor, tiny_family, tiny_tokenizer

KINDS = ("audio-flamingo-3", "music-flamingo")
LENGTHS = (0.2, 1.0, 29.99, 30.0, 30.03, 31.0, 61.7)
"""Seconds; of one window, two and three."""


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest) -> Family:
    return tiny_family(request.param)


def processor(kind: str) -> Any:
    make = AudioFlamingo3Processor if kind == "audio-flamingo-3" else MusicFlamingoProcessor
    return make(tiny_extractor(kind), tiny_tokenizer(kind))


def test_tokens_and_features_equal_the_processors(family: Family) -> None:
    theirs = processor(family.kind)
    for seconds in LENGTHS:
        heard = Recording.from_array(sounds(seconds), 16000)
        samples = heard.crop(heard.ref(), 16000)
        own = theirs(text=["<sound>"], audio=[samples])
        ours = family.forward_inputs(family.audio_ids(heard.ref()), [(heard.ref(), samples)])
        wanted = own["input_ids"][0].tolist()
        assert ours["input_ids"][0].tolist()[: len(wanted)] == wanted, seconds
        for key in ("input_features", "input_features_mask"):
            assert torch.equal(own[key], ours[key]), (seconds, key)


def test_embeddings_of_several_windows_are_those_of_the_models_own_encoder(family: Family) -> None:
    crops = []
    for seed, seconds in enumerate((31.0, 0.7, 62.0)):
        heard = Recording.from_array(sounds(seconds, seed), 16000)
        crops.append((heard.ref(), heard.crop(heard.ref(), 16000)))
    ids = [token for ref, _ in crops for token in family.audio_ids(ref)]
    inputs = family.forward_inputs(ids, crops)
    extra = {"input_ids": inputs["input_ids"]} if family.kind == "music-flamingo" else {}
    with torch.no_grad():
        own = family.model.get_audio_features(
            inputs["input_features"], inputs["input_features_mask"], **extra
        ).pooler_output
        ours = family.audio_embeds([ref for ref, _ in crops], family.frozen_features(crops))
    assert (torch.cat(ours) - own).abs().max() < 1e-5


def test_a_last_window_that_gives_no_token_is_left_out(family: Family) -> None:
    """Of two frames and less; Music Flamingo's own code fails over it."""
    samples = np.concatenate([sounds(30.0), sounds(0.015, 1)])
    heard = Recording.from_array(samples, 16000)
    ids = family.audio_ids(heard.ref())
    ours = family.forward_inputs(ids, [(heard.ref(), samples)])
    own = processor(family.kind)(text=["<sound>"], audio=[samples])
    assert len(own["input_features"]) == 2 and len(ours["input_features"]) == 1
    with torch.no_grad():
        logits = family.model(**ours).logits
    assert logits.shape[1] == len(ids) and ids.count(family.audio_id) == 750
    if family.kind == "music-flamingo":
        with pytest.raises(IndexError), torch.no_grad():
            family.model(**own)


def test_time_turns_the_states_of_music_flamingo_only() -> None:
    """Two windows that hold the same sound are alike, but for the time."""
    half = sounds(30.0)
    heard = Recording.from_array(np.concatenate([half, half]), 16000)
    crop = (heard.ref(), heard.crop(heard.ref(), 16000))
    for kind in KINDS:
        states = tiny_family(kind).frozen_features([crop])[0]["tower"]
        alike = (states[:750] - states[750:]).abs().max() < 1e-5
        assert alike == (kind == "audio-flamingo-3")
