"""Granite Speech and Phi-4-multimodal against their own processors, which pad clips together; and Voxtral's windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GraniteSpeechProcessor

from echo_agent.conformance.story import apart, by_steps, native, tell
from echo_agent.errors import ContextError
from echo_agent.families.base import Family
from tests.tiny import crop, tiny_extractor, tiny_family, tiny_tokenizer

KINDS = ("granite-speech", "phi4-multimodal")


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest) -> Family:
    return tiny_family(request.param)


def together(family: Family, crops: list[Any]) -> dict[str, torch.Tensor]:
    """What the family's own processor makes of several clips."""
    extractor = tiny_extractor(family.kind)
    if family.kind == "phi4-multimodal":
        return dict(extractor(crops, sampling_rate=16000))
    made = extractor([torch.from_numpy(samples) for samples in crops])
    return {key: made[key] for key in ("input_features", "input_features_mask")}


def test_counts_and_features_equal_the_processors_for_one_clip(family: Family) -> None:
    for seconds in (0.2, 0.2001, 0.3, 0.61, 1.0, 1.2345, 7.7):
        ref, samples = crop(seconds)
        ours = family.forward_inputs(family.audio_ids(ref), [(ref, samples)])
        for key, value in together(family, [samples]).items():
            if key in ours:
                assert torch.equal(value, ours[key]), (seconds, key)
    if family.kind == "granite-speech":
        made = GraniteSpeechProcessor(tiny_extractor(family.kind), tiny_tokenizer(family.kind))
        ids = made(text="<|audio|>", audio=[samples])["input_ids"][0]
        assert list(ids) == family.audio_ids(ref)[:-1]


def test_padding_two_clips_together_changes_more_than_another_crop_does(family: Family) -> None:
    """So clips are encoded one by one: cached equals uncached, and the processor's way of both at once does not."""
    told = tell(family, seconds=6.0, spans=[(1.5, 3.0)])
    other = tell(family, seconds=6.0, spans=[(1.52, 3.02)])
    ours = by_steps(family, told)
    assert apart(ours, native(family, told)) < 1e-4
    inputs = family._text_inputs(told.ids) | together(family, [samples for _, samples in told.crops])
    with torch.no_grad():
        padded = family.model(**inputs).logits[0].float().log_softmax(-1)
    assert apart(padded, ours) > 0.01
    assert apart(padded, ours) > apart(by_steps(family, other), ours)


def test_the_context_of_phi4_ends_where_its_positions_would_change() -> None:
    family = tiny_family("phi4-multimodal")
    config: Any = family.model.config
    assert config.max_position_embeddings > family.context_length == 4096
    ids = family.tokenize("dog bell ") * 2048
    ids = torch.tensor([ids[:4097]])
    with torch.no_grad():
        short = family.model(input_ids=ids[:, :4096]).logits
        long = family.model(input_ids=ids).logits
    assert (short - long[:, :4096]).abs().max() > 1e-3, (
        "one token more, and all that stands before it is another"
    )


def test_turns_are_written_as_each_was_taught() -> None:
    granite, phi = (tiny_family(kind) for kind in KINDS)
    text = "".join(piece.text for piece in granite.question_pieces([crop(1.0)[0]], "What?", None))
    assert text.startswith("<|start_of_role|>system<|end_of_role|>You are")
    assert text.endswith("<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>")
    text = "".join(piece.text for piece in phi.question_pieces([crop(1.0)[0]], "What?", None))
    assert text.startswith("<|system|>You are") and text.endswith("<|end|><|assistant|>")


def test_voxtral_hears_in_windows_and_has_no_system_turn() -> None:
    family = tiny_family("voxtral")
    costs = [family.audio_tokens(crop(seconds)[0]) for seconds in (0.2, 2.0, 30.0, 30.01, 60.0)]
    assert costs == [375, 375, 375, 750, 750]
    text = "".join(piece.text for piece in family.question_pieces([crop(1.0)[0]], "What?", None))
    assert text.startswith("<s>[INST]You are") and text.endswith("[/INST]") and "</s>" not in text
    with pytest.raises(ContextError, match="voxtral has no system turn: use the inline dialect"):
        family.turn_open("system")
    ref, samples = crop(31.0)
    mel = tiny_extractor("voxtral")(samples, sampling_rate=16000, padding=True, pad_to_multiple_of=480_000,
                                    truncation=False, return_tensors="pt")["input_features"]  # fmt: skip
    ours = family.forward_inputs(family.audio_ids(ref), [(ref, samples)])["input_features"]
    assert torch.equal(mel.reshape(128, -1, 3000).transpose(0, 1), ours)
    with torch.no_grad():
        own = family.model.get_audio_features(ours).pooler_output
        (embeds,) = family.audio_embeds([ref], family.frozen_features([(ref, samples)]))
    assert (embeds - own).abs().max() < 1e-5
