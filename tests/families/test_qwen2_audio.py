"""Qwen2-Audio against its own processor: counts, features, ids; its window and its legacy merge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from echo_agent.audio.recording import Recording, Transform
from echo_agent.errors import ModelError, RecordingTooLongError
from echo_agent.families.base import Family, Piece
from echo_agent.families.chatml import audio_token_count
from echo_agent.families.qwen2_audio import Qwen2AudioFamily
from tests.tiny import sounds, tiny_extractor, tiny_family, tiny_processor, tiny_tokenizer

KIND = "qwen2-audio"


@pytest.fixture(scope="module")
def family() -> Family:
    return tiny_family(KIND)


def recording(seconds: float) -> Recording:
    return Recording.from_array(sounds(seconds), 16000)


def test_counts_and_features_equal_the_processors(family: Family) -> None:
    processor = tiny_processor(KIND)
    lengths = [
        3200,
        3201,
        3359,
        3360,
        3361,
        16000,
        16001,
        47999,
        48160,
        479_839,
        479_840,
        479_841,
        479_999,
        480_000,
    ]
    lengths += np.random.default_rng(0).integers(3200, 480_000, size=12).tolist()
    for samples in lengths:
        heard = Recording.from_array(sounds(samples / 16000), 16000)
        ref = heard.ref()
        crop = heard.crop(ref, 16000)
        assert len(crop) == samples
        theirs = processor(
            text="<|audio_bos|><|AUDIO|><|audio_eos|>", audio=[crop], sampling_rate=16000, return_tensors="pt"
        )
        ours = family.forward_inputs(family.audio_ids(ref), [(ref, crop)])
        for key in ("input_ids", "attention_mask", "input_features", "feature_attention_mask"):
            assert torch.equal(theirs[key], ours[key]), (samples, key)


def test_the_prompt_is_tokenised_as_the_processor_would(family: Family) -> None:
    refs = [recording(2.5).ref(), recording(1.5).ref()]
    pieces = family.question_pieces(refs, "Which is louder?", ["the first", "the second"])
    ids, audio = family.render(pieces)
    text = "".join(
        f"<|audio_bos|><|AUDIO|><|audio_eos|>{piece.text}" if piece.audio else piece.text for piece in pieces
    )
    theirs = tiny_processor(KIND)(text=text, audio=[sounds(2.5), sounds(1.5)], sampling_rate=16000)
    assert ids == theirs["input_ids"][0]
    assert audio == refs
    assert text.startswith("<|im_start|>system\nYou are") and text.endswith(
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    user = text.split("<|im_start|>user\n")[1]
    assert user.startswith(
        "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|> (2.5 seconds)\nAudio 2: <|audio_bos|>"
    )
    assert "\nWhich is louder?\nChoices:\n- the first\n- the second\n\n" in user
    assert "<seg>start, end</seg>" in user and "copied word for word from the choices.<|im_end|>" in user


def test_an_open_question_lists_no_choices(family: Family) -> None:
    text = "".join(piece.text for piece in family.question_pieces([recording(1.0).ref()], "What?", None))
    assert "Choices" not in text and "$" not in text and "as short as possible.<|im_end|>" in text


def test_dollar_signs_in_a_question_stay(family: Family) -> None:
    text = "".join(
        piece.text for piece in family.question_pieces([recording(1.0).ref()], "Is $question $5?", ["$rule"])
    )
    assert "Is $question $5?" in text and "- $rule\n" in text


def test_slower_audio_costs_more_tokens(family: Family) -> None:
    heard = recording(4.0)
    slow = heard.ref(1.0, 3.0, Transform(speed=0.5))
    assert family.audio_tokens(slow) == family.audio_tokens(heard.ref()) == 100


def test_the_window_is_the_limit(family: Family) -> None:
    assert family.limits.longest_crop == family.limits.longest_recording == 30.0
    padded = Recording.from_array(np.zeros(16 * 30_050, np.float32), 16000)  # as MP3 encoders pad
    assert family.audio_tokens(padded.ref()) == 750
    features = family.frozen_features([(padded.ref(), padded.crop(padded.ref(), 16000))])
    assert len(family.audio_embeds([padded.ref()], features)[0]) == 750
    long = Recording.from_array(np.zeros(16 * 30_200, np.float32), 16000)
    with pytest.raises(RecordingTooLongError, match=r"30\.2 s of audio.*at most 30 s.*cut it into pieces"):
        family.audio_ids(long.ref())


def test_no_listen_is_so_short_that_the_legacy_merge_switches_on(family: Family) -> None:
    """The model's own forward lengthens a sequence in which no two placeholders stand side by side."""
    assert [audio_token_count(frames) for frames in (2, 3, 6, 7)] == [0, 1, 1, 2]
    for seconds in (0.001, 0.05, family.limits.shortest):
        ref = recording(max(seconds, 1 / 16000)).ref()
        ids, _ = family.render([Piece(text="dog"), Piece(audio=ref), Piece(text="bell")])
        inputs = family.forward_inputs(ids, [(ref, recording(seconds).crop(ref, 16000))])
        with torch.no_grad():
            assert family.model(**inputs).logits.shape[1] == len(ids)
        assert family.audio_tokens(ref) == 5


def test_many_crops_are_encoded_in_several_batches(family: Family) -> None:
    heard = recording(6.0)
    crops = [(ref, heard.crop(ref, 16000)) for ref in (heard.ref(i / 2, i / 2 + 0.4) for i in range(9))]
    encoded = family.frozen_features(crops)
    assert len(encoded) == 9
    alone = family.frozen_features(crops[8:])[0]["tower"]
    assert (encoded[8]["tower"] - alone).abs().max() < 1e-5


def test_silence_after_the_crop_is_not_heard(family: Family) -> None:
    """The tower's window is padded: without its mask the padding would leak into the crop's features."""
    heard = recording(3.0)
    ref = heard.ref(0.0, 1.0)
    tower = family.frozen_features([(ref, heard.crop(ref, 16000))])[0]["tower"]
    inputs = family.forward_inputs(family.audio_ids(ref), [(ref, heard.crop(ref, 16000))])
    with torch.no_grad():
        unmasked = family.model.get_submodule("model.audio_tower")(inputs["input_features"]).last_hidden_state
    assert (unmasked[0, : len(tower)] - tower).abs().max() > 1e-3


def test_a_tokenizer_of_another_model_is_refused() -> None:
    model = tiny_family(KIND).model
    with pytest.raises(ModelError, match=r"<\|AUDIO\|> is token \d+ for the tokenizer and \d+ for the model"):
        Qwen2AudioFamily("mixed", model, tiny_tokenizer("qwen2.5-omni"), tiny_extractor(KIND))
    bare = tiny_tokenizer(KIND).__class__(vocab={"a": 0}, merges=[])
    with pytest.raises(ModelError, match=r"does not know <\|AUDIO\|>"):
        Qwen2AudioFamily("bare", model, bare, tiny_extractor(KIND))
