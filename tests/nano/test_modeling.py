"""The model: two ways to hear are one, placeholders are counted, and what is saved is what is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from echo_agent.errors import PlaceholderError
from echo_agent.nano.adapter import pool
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.processing import listen_inputs, listen_times
from tests.tiny import sounds, tiny_family

SECONDS = (7.0, 1.5)


@pytest.fixture(scope="module")
def model() -> NanoForConditionalGeneration:
    model = tiny_family("echo-nano").model
    assert isinstance(model, NanoForConditionalGeneration)
    return model.eval()


def listens(model: NanoForConditionalGeneration, waves: Sequence[torch.Tensor]) -> dict[str, Any]:
    inputs = listen_inputs(waves, model.config)
    return {
        "mels": inputs.mels,
        "mel_lengths": inputs.mel_lengths,
        "listen_windows": inputs.listen_windows,
    }


def context(model: NanoForConditionalGeneration) -> tuple[torch.Tensor, list[torch.Tensor], list[int]]:
    """Two listens in one context: ids, samples, audio tokens of each."""
    audio = model.config.audio_token_id
    sizes = [model.config.listen_size(seconds) for seconds in SECONDS]
    ids = [5, *[audio] * sizes[0], 6, 7, *[audio] * sizes[1], 8, 9]
    return torch.tensor([ids]), [torch.from_numpy(sounds(s, seed=i)) for i, s in enumerate(SECONDS)], sizes


def times_of(sizes: Sequence[int]) -> torch.Tensor:
    return torch.tensor([t for s, n in zip(SECONDS, sizes, strict=True) for t in listen_times(0.0, s, n)])


@torch.no_grad()
def test_mels_and_pooled_features_are_the_same_hearing(model: NanoForConditionalGeneration) -> None:
    ids, waves, sizes = context(model)
    times = times_of(sizes)
    heard = listens(model, waves)
    from_mels = model(input_ids=ids, audio_times=times, listen_tokens=torch.tensor(sizes), **heard).logits
    features = torch.cat([pool(f, n) for f, n in zip(model.model.frames(**heard), sizes, strict=True)])
    from_features = model(input_ids=ids, audio_times=times, audio_features=features).logits
    torch.testing.assert_close(from_mels, from_features, atol=1e-5, rtol=0)
    changed = model(input_ids=ids, audio_times=times, audio_features=features.flip(0)).logits
    assert (changed - from_mels).abs().max() > 1e-2
    later = model(input_ids=ids, audio_times=times + 1, audio_features=features).logits
    assert (later - from_mels).abs().max() > 1e-2


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_wrong_count_of_placeholders_is_refused(model: NanoForConditionalGeneration, wrong: int) -> None:
    ids, _, sizes = context(model)
    right = sum(sizes)
    features = torch.zeros(right + wrong, model.config.feature_dim)
    with pytest.raises(
        PlaceholderError, match=f"{right} audio placeholders .* {right + wrong} audio features"
    ):
        model(
            input_ids=ids, audio_features=features, audio_times=torch.zeros(right + wrong, dtype=torch.long)
        )


def test_placeholders_without_audio_are_refused(model: NanoForConditionalGeneration) -> None:
    with pytest.raises(PlaceholderError, match="1 audio placeholders .* 0 audio features"):
        model(input_ids=torch.tensor([[5, model.config.audio_token_id]]))
    with pytest.raises(ValueError, match="input_ids"):
        model()


@torch.no_grad()
def test_windows_are_independent(model: NanoForConditionalGeneration) -> None:
    """A recording of two whole windows has the frames of its windows, one after the other."""
    first, second = (torch.from_numpy(sounds(5.0, seed=seed)) for seed in (0, 1))
    whole, *parts = model.model.frames(**listens(model, [torch.cat([first, second]), first, second]))
    assert whole.shape == (250, model.config.feature_dim // 2)
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-5, rtol=0)
    (swapped,) = model.model.frames(**listens(model, [torch.cat([second, first])]))
    torch.testing.assert_close(swapped, torch.cat(parts[::-1]), atol=1e-4, rtol=0)


@torch.no_grad()
def test_listens_of_a_batch_do_not_mix(model: NanoForConditionalGeneration) -> None:
    waves = [torch.from_numpy(sounds(s, seed=i)) for i, s in enumerate((6.0, 0.7, 12.0, 0.05))]
    together = model.model.frames(**listens(model, waves))
    for wave, frames in zip(waves, together, strict=True):
        (alone,) = model.model.frames(**listens(model, [wave]))
        torch.testing.assert_close(frames, alone, atol=1e-4, rtol=0)


@torch.no_grad()
def test_save_and_load(model: NanoForConditionalGeneration, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = NanoForConditionalGeneration.from_pretrained(tmp_path).eval()
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert again.model.time_tokens.tolist() == model.config.time_token_ids
    assert len(set(model.config.time_token_ids)) == 601, "the test's ids say nothing"
    kept = again.config.to_dict()
    wanted = model.config.to_dict()
    for key in (
        "encoder_dim",
        "branch_dim",
        "listen_tokens",
        "tokens_per_second",
        "audio_token_id",
        "window_seconds",
    ):
        assert kept[key] == wanted[key], key
    assert kept["text_config"]["hidden_size"] == wanted["text_config"]["hidden_size"]
    ids, waves, sizes = context(model)
    heard = dict(audio_times=times_of(sizes), listen_tokens=torch.tensor(sizes), **listens(model, waves))
    torch.testing.assert_close(
        again(input_ids=ids, **heard).logits, model(input_ids=ids, **heard).logits, atol=0, rtol=0
    )


@torch.no_grad()
def test_loss_counts_labels_of_the_next_token(model: NanoForConditionalGeneration) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    labels = torch.tensor([[-100, -100, 7, -100]])
    output = model(input_ids=ids, labels=labels)
    expected = -torch.log_softmax(output.logits[0, 1].float(), -1)[7]
    assert output.loss is not None
    torch.testing.assert_close(output.loss, expected)
