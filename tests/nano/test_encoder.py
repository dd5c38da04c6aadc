"""The encoder: Whisper's front end, windows that do not know of each other, 25 frames per second."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.encoder import (
    FRAMES_PER_SECOND,
    SAMPLE_RATE,
    SHORTEST_WINDOW,
    NanoEncoder,
    log_mel,
    window_mels,
)
from echo_agent.nano.processing import listen_inputs
from tests.tiny import sounds


@pytest.fixture(scope="module")
def encoder() -> NanoEncoder:
    torch.manual_seed(0)
    return NanoEncoder(NanoConfig(encoder_dim=32, encoder_heads=2, encoder_ffn=48)).eval()


def encode(encoder: NanoEncoder, mels: list[torch.Tensor]) -> list[torch.Tensor]:
    lengths = torch.tensor([mel.shape[-1] for mel in mels])
    batch = torch.zeros(len(mels), 80, int(lengths.max()))
    for row, mel in enumerate(mels):
        batch[row, :, : mel.shape[-1]] = mel
    with torch.no_grad():
        frames, steps = encoder(batch, lengths)
    return [part[: int(n)] for part, n in zip(frames, steps, strict=True)]


@pytest.mark.parametrize("seconds", [0.5, 3.21, 5.0])
def test_mel_is_whispers(seconds: float) -> None:
    samples = sounds(seconds)
    extractor = WhisperFeatureExtractor(feature_size=80)
    theirs = extractor(samples, sampling_rate=SAMPLE_RATE, padding="do_not_pad", return_tensors="np")
    ours = log_mel(torch.from_numpy(samples)).numpy()
    assert ours.shape == theirs["input_features"][0].shape
    np.testing.assert_allclose(ours, theirs["input_features"][0], atol=1e-3)


def test_mel_is_that_of_thirty_seconds_away_from_the_end() -> None:
    """Whisper pads to thirty seconds with silence; we reflect at the end: only the last frames can tell."""
    samples = sounds(4.0)
    extractor = WhisperFeatureExtractor(feature_size=80)
    theirs = extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"][0]
    assert theirs.shape == (80, 3000)
    np.testing.assert_allclose(log_mel(torch.from_numpy(samples)).numpy()[:, :-2], theirs[:, :398], atol=1e-3)


def test_mel_of_silence_is_finite_and_flat() -> None:
    mel = log_mel(torch.zeros(SAMPLE_RATE))
    assert torch.isfinite(mel).all()
    assert mel.unique().tolist() == [-1.5]  # (log10(1e-10) + 4) / 4


def test_batched_windows_equal_single_ones(encoder: NanoEncoder) -> None:
    lengths = (5.0, 0.05, 1.235, 3.0, 0.5, 4.99)
    mels = [log_mel(torch.from_numpy(sounds(seconds, seed=i))) for i, seconds in enumerate(lengths)]
    assert any(mel.shape[-1] % 2 for mel in mels), "odd lengths are where halving goes wrong"
    together = encode(encoder, mels)
    for mel, frames in zip(mels, together, strict=True):
        (alone,) = encode(encoder, [mel])
        torch.testing.assert_close(frames, alone, atol=1e-4, rtol=0)


def test_a_neighbour_does_not_matter_but_the_sound_does(encoder: NanoEncoder) -> None:
    here, loud = log_mel(torch.from_numpy(sounds(1.0))), log_mel(torch.from_numpy(10 * sounds(5.0, seed=3)))
    alone, beside = encode(encoder, [here])[0], encode(encoder, [here, loud])[0]
    torch.testing.assert_close(alone, beside, atol=1e-4, rtol=0)
    other = encode(encoder, [log_mel(torch.from_numpy(sounds(1.0, seed=1)))])[0]
    assert (alone - other).abs().max() > 0.01


def test_silence_behind_a_windows_end_is_left_out(encoder: NanoEncoder) -> None:
    """Padding steps are zero in what comes out, so nobody can read them by mistake."""
    mels = [log_mel(torch.from_numpy(sounds(s))) for s in (5.0, 1.0)]
    batch = torch.stack([mels[0], torch.nn.functional.pad(mels[1], (0, 400))])
    with torch.no_grad():
        frames, steps = encoder(batch, torch.tensor([500, 100]))
    assert steps.tolist() == [125, 25]
    assert frames[1, 25:].abs().max() == 0
    assert frames[1, :25].abs().min(dim=0).values.max() > 0


@pytest.mark.parametrize(
    ("seconds", "steps"), [(5.0, 125), (1.0, 25), (2.0, 50), (0.48, 12), (0.5, 13), (1.02, 26)]
)
def test_25_frames_per_second(encoder: NanoEncoder, seconds: float, steps: int) -> None:
    """A last frame that is not full counts as one."""
    (frames,) = encode(encoder, [log_mel(torch.from_numpy(sounds(seconds)))])
    assert FRAMES_PER_SECOND == 25
    assert frames.shape == (steps, 2 * 32)


@pytest.mark.parametrize("samples", [1, 160, 399, 400, 799])
def test_short_input_is_padded(encoder: NanoEncoder, samples: int) -> None:
    wave = torch.from_numpy(sounds(0.05))[:samples]
    padded = torch.cat([wave, torch.zeros(SHORTEST_WINDOW - samples)])
    mel = log_mel(wave)
    assert mel.shape == (80, 5)
    torch.testing.assert_close(mel, log_mel(padded), atol=0, rtol=0)
    (frames,) = encode(encoder, [mel])
    assert torch.isfinite(frames).all() and frames.shape[0] == 2


def test_windows_are_cut_at_five_seconds() -> None:
    samples = torch.from_numpy(sounds(12.5))
    mels = window_mels(samples, 5.0)
    assert [mel.shape[-1] for mel in mels] == [500, 500, 250]
    torch.testing.assert_close(mels[1], log_mel(samples[80_000:160_000]), atol=0, rtol=0)


def test_listen_inputs_say_whose_windows_are_whose() -> None:
    config = NanoConfig()
    inputs = listen_inputs([torch.from_numpy(sounds(s)) for s in (6.0, 0.5, 5.0)], config)
    assert inputs.listen_windows.tolist() == [2, 1, 1]
    assert inputs.mel_lengths.tolist() == [500, 100, 50, 500]
    assert inputs.mels.shape == (4, 80, 500)
    assert inputs.mels[1, :, 100:].abs().max() == 0
