"""Qwen3-Omni against its own processor and encoder; and that short listens do not depend on their company."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration
from transformers.models.qwen3_omni_moe.processing_qwen3_omni_moe import _get_feat_extract_output_lengths

from echo_agent.families.base import Family
from echo_agent.families.loading import load_family
from tests.tiny import crop, randomise, tiny_extractor, tiny_family, tiny_tokenizer

KIND = "qwen3-omni"


@pytest.fixture(scope="module")
def family() -> Family:
    return tiny_family(KIND)


def test_counts_equal_the_processors_at_every_kind_of_length(family: Family) -> None:
    ref, _ = crop(1.0)
    for samples in [*range(3200, 3900, 7), *range(15_800, 16_400, 7), 480_000, 4_800_001]:
        heard = ref.model_copy(update={"duration": samples / 16000, "end": samples / 16000})
        frames = torch.tensor([-(-samples // 160)])
        assert family.audio_tokens(heard) == int(_get_feat_extract_output_lengths(frames, 50)), samples


def test_features_and_embeddings_are_those_of_its_own_classes(family: Family) -> None:
    """The extractor pads to its own window; here a crop is padded by a moment of silence, with the same frames."""
    ref, samples = crop(3.3)
    theirs = tiny_extractor(KIND)([samples], sampling_rate=16000, padding="max_length", return_tensors="pt")
    ours = family.forward_inputs(family.audio_ids(ref), [(ref, samples)])
    frames = ours["input_features"].shape[-1]
    assert torch.equal(theirs["input_features"][..., :frames], ours["input_features"])
    with torch.no_grad():
        own = family.model.get_audio_features(
            ours["input_features"], ours["feature_attention_mask"]
        ).last_hidden_state
        (embeds,) = family.audio_embeds([ref], family.frozen_features([(ref, samples)]))
    assert (embeds - own).abs().max() < 1e-5 and len(own) == family.audio_tokens(ref)


def test_what_is_heard_of_a_short_listen_does_not_depend_on_its_company(family: Family) -> None:
    """In its own encoder it does: chunks are padded to the longest of the call."""
    short, long = crop(0.43, 1), crop(2.0, 2)
    alone = family.frozen_features([short])[0]["tower"]
    beside = family.frozen_features([short, long])[0]["tower"]
    assert torch.equal(alone, beside)
    inputs = family._model_features([short[1], long[1]])
    with torch.no_grad():
        own = family.model.get_audio_features(**inputs).last_hidden_state[: len(alone)]
        (embeds,) = family.audio_embeds([short[0]], [{"tower": alone}])
    assert (own - embeds).abs().max() > 1e-3


def test_of_a_full_checkpoint_the_thinker_is_taken(tmp_path: Path) -> None:
    thinker = tiny_family(KIND).model
    talker = {"code_predictor_config": {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16,
              "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 32},
              "text_config": {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16,
              "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 32, "num_experts": 2,
              "num_experts_per_tok": 1, "moe_intermediate_size": 8}, "thinker_hidden_size": 32}  # fmt: skip
    config = Qwen3OmniMoeConfig(
        thinker_config=thinker.config.to_dict(), talker_config=talker, enable_audio_output=False
    )
    full = Qwen3OmniMoeForConditionalGeneration(config)
    randomise(full)
    full.save_pretrained(tmp_path)
    tiny_tokenizer(KIND).save_pretrained(tmp_path)
    tiny_extractor(KIND).save_pretrained(tmp_path)
    family = load_family(str(tmp_path), "cpu")
    theirs, ours = full.thinker.state_dict(), family.model.state_dict()
    assert family.kind == KIND and theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
