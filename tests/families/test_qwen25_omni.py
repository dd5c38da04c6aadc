"""Qwen2.5-Omni against its own processor: counts, features, ids; positions, and features that it would drop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from echo_agent.audio.recording import Recording
from echo_agent.errors import PlaceholderError, RecordingTooLongError
from echo_agent.families.base import Family
from tests.tiny import sounds, tiny_family, tiny_processor

KIND = "qwen2.5-omni"


@pytest.fixture(scope="module")
def family() -> Family:
    return tiny_family(KIND)


def recording(seconds: float, seed: int = 0) -> Recording:
    return Recording.from_array(sounds(seconds, seed), 16000)


def silent(samples: int) -> Recording:
    return Recording.from_array(np.zeros(samples, np.float32), 16000)


def test_counts_and_features_equal_the_processors(family: Family) -> None:
    """Its processor pads to five minutes; here a crop is padded by a moment of silence, and the frames are the same."""
    processor = tiny_processor(KIND)
    lengths = [3200, 3201, 3360, 3361, 31_999, 32_000, 32_001, 32_160, 100_000, 480_001]
    crops = [sounds(samples / 16000, samples) for samples in lengths]
    for crop in crops:
        heard = Recording.from_array(crop, 16000)
        theirs = processor(
            text="<|audio_bos|><|AUDIO|><|audio_eos|>", audio=[crop], sampling_rate=16000, return_tensors="pt"
        )
        ours = family.forward_inputs(family.audio_ids(heard.ref()), [(heard.ref(), crop)])
        assert torch.equal(theirs["input_ids"], ours["input_ids"])
        frames = ours["input_features"].shape[-1]
        assert theirs["feature_attention_mask"].sum() == ours["feature_attention_mask"].sum() == frames
        assert torch.equal(theirs["input_features"][..., :frames], ours["input_features"])


def test_counts_equal_the_processors_at_every_kind_of_length(family: Family) -> None:
    processor = tiny_processor(KIND)
    ref = silent(3200).ref()
    lengths = list(range(3200, 3200 + 700)) + list(range(31_600, 32_400)) + list(range(3200, 4_800_001, 9973))
    for samples in lengths:
        heard = ref.model_copy(update={"duration": samples / 16000, "end": samples / 16000})
        assert family.audio_tokens(heard) == processor._get_num_audio_tokens(samples), samples


def test_beyond_the_window_of_its_processor_the_count_goes_on(family: Family) -> None:
    """The processor would cut a recording to five minutes in silence; the encoder has no such limit."""
    ref = silent(3200).ref()
    seven = ref.model_copy(update={"duration": 420.0, "end": 420.0})
    assert family.audio_tokens(seven) == 25 * 420
    heard = silent(16 * 310_000)
    features = family.frozen_features([(heard.ref(), heard.crop(heard.ref(), 16000))])
    assert len(family.audio_embeds([heard.ref()], features)[0]) == 25 * 310


def test_the_prompt_is_tokenised_as_the_processor_would(family: Family) -> None:
    ref = recording(2.5).ref()
    pieces = family.question_pieces([ref], "Which is louder?", ["the first", "the second"])
    ids, _ = family.render(pieces)
    text = "".join(
        f"<|audio_bos|><|AUDIO|><|audio_eos|>{piece.text}" if piece.audio else piece.text for piece in pieces
    )
    theirs = tiny_processor(KIND)(text=[text], audio=[sounds(2.5)], sampling_rate=16000)
    assert ids == theirs["input_ids"][0]
    assert "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|> (2.5 seconds)\nWhich is louder?\n" in text


def test_embeddings_are_those_of_the_models_own_encoder(family: Family) -> None:
    heard = [recording(5.0, 1), recording(0.7, 2), recording(2.0, 3)]
    crops = [(each.ref(), each.crop(each.ref(), 16000)) for each in heard]
    ids = [token for ref, _ in crops for token in family.audio_ids(ref)]
    inputs = family.forward_inputs(ids, crops)
    with torch.no_grad():
        theirs = family.model.get_audio_features(
            inputs["input_features"], inputs["feature_attention_mask"]
        ).last_hidden_state
        ours = family.audio_embeds([ref for ref, _ in crops], family.frozen_features(crops))
    assert (torch.cat(ours) - theirs).abs().max() < 1e-5


def test_long_crops_are_encoded_in_several_batches(family: Family) -> None:
    heard = recording(200.0, 4)
    short = recording(3.0, 5)
    crops = [(each.ref(), each.crop(each.ref(), 16000)) for each in (short, heard, short)]
    towers = [features["tower"] for features in family.frozen_features(crops)]
    assert [len(tower) for tower in towers] == [75, 5000, 75]
    assert (towers[0] - towers[2]).abs().max() < 1e-5


def test_positions_never_touch_what_the_model_remembers(family: Family) -> None:
    heard = recording(2.0)
    ids, _ = family.render(family.question_pieces([heard.ref()], "What?", None))
    inputs = family.forward_inputs(ids, [(heard.ref(), heard.crop(heard.ref(), 16000))])
    assert inputs["position_ids"].shape == (3, 1, len(ids))
    thinker = family.model.get_submodule("model")
    with torch.no_grad():
        clean = family.model(**inputs).logits
        assert thinker.rope_deltas is None
        try:
            thinker.rope_deltas = torch.tensor([[77]])  # as somebody else's call would leave it
            assert torch.equal(family.model(**inputs).logits, clean)
            embeds = family.token_embeds(torch.tensor([ids[:10]]))
            steps = torch.arange(10)[None]
            dirty, cache = family.forward_embeds(embeds[:, :9], torch.ones(1, 9), steps[:, :9], None)
            last, _ = family.forward_embeds(embeds[:, 9:], torch.ones(1, 10), steps[:, 9:], cache)
            assert thinker.rope_deltas.item() == 77
        finally:
            thinker.rope_deltas = None
        again, _ = family.forward_embeds(embeds, torch.ones(1, 10), steps, None)
    assert (torch.cat([dirty, last], dim=1) - again).abs().max() < 1e-5


def test_the_models_own_positions_for_audio_are_the_plain_count(family: Family) -> None:
    heard = recording(2.0)
    ids, _ = family.render(family.question_pieces([heard.ref()], "What?", None))
    inputs = family.forward_inputs(ids, [(heard.ref(), heard.crop(heard.ref(), 16000))])
    rope, _ = family.model.get_submodule("model").get_rope_index(
        inputs["input_ids"],
        None,
        None,
        inputs["attention_mask"],
        False,
        inputs["feature_attention_mask"].sum(-1),
        None,
    )
    assert torch.equal(rope.long(), inputs["position_ids"])


def test_surplus_features_that_the_model_would_drop_are_an_error(family: Family) -> None:
    heard = recording(2.0)
    crop = (heard.ref(), heard.crop(heard.ref(), 16000))
    ids = family.audio_ids(heard.ref())
    inputs = family.forward_inputs(ids * 2, [crop, crop])
    surplus = {key: inputs[key] for key in ("input_features", "feature_attention_mask")}
    with torch.no_grad():
        family.model(
            input_ids=torch.tensor([ids]), **surplus
        )  # two clips, one run of placeholders: not a word
    with pytest.raises(PlaceholderError, match="1 runs of audio placeholders for 2 pieces"):
        family.forward_inputs(ids, [crop, crop])
    with pytest.raises(PlaceholderError, match=r"\[50\] placeholders.*\[25\] features"):
        family.forward_inputs(ids, [(crop[0], crop[1][:16000])])


def test_limits_name_the_way_out(family: Family) -> None:
    ref = silent(16000).ref()
    long = ref.model_copy(update={"duration": 601.0, "end": 601.0})
    with pytest.raises(
        RecordingTooLongError, match=r"the recording .* 601\.0 s of audio.*at most 600 s.*echo-agent models"
    ):
        family.audio_ids(long)
    with pytest.raises(RecordingTooLongError, match=r"the crop .* at most 60 s"):
        family.audio_ids(long.model_copy(update={"end": 70.0}))
