from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from echo_agent.audio.channels import Balance, down_mix
from echo_agent.audio.recording import Recording
from tests.sounds import apart, ffmpeg, lively, write

RATE = 16_000
WAVE = lively(3.0, RATE)


def _balance(samples: np.ndarray) -> tuple[tuple[float, ...] | None, str | None]:
    balance = Balance()
    for at in range(0, len(samples), RATE // 10):
        balance.add(samples[at : at + RATE // 10])
    return balance.weights()


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_that_go_together_are_averaged(channels: int) -> None:
    samples = lively(3.0, RATE, channels).reshape(-1, channels)
    assert _balance(samples) == (None, None)
    assert apart(down_mix(samples, None), samples.mean(axis=1)) < 1e-6


def test_one_silent_channel_and_silence_are_averaged() -> None:
    assert _balance(np.stack([WAVE, np.zeros_like(WAVE)], axis=1)) == (None, None)
    assert _balance(np.zeros((RATE, 2), np.float32)) == (None, None)


def test_an_inverted_channel_is_turned_round() -> None:
    weights, said = _balance(np.stack([WAVE, -WAVE], axis=1))
    assert weights == (0.5, -0.5) and said is not None and "cancel each other out" in said
    noisy = np.stack([WAVE, -0.9 * WAVE + 0.02 * lively(3.0, RATE, seed=1)], axis=1)
    assert _balance(noisy)[0] == (0.5, -0.5)


def test_a_channel_that_is_inverted_for_a_part_is_left_out() -> None:
    other = WAVE.copy()
    other[RATE:] *= -0.9
    weights, said = _balance(np.stack([WAVE, other], axis=1))
    assert weights == (1.0, 0.0) and said is not None and "channel 1 is heard alone" in said


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.m4a", "array"])
def test_a_recording_with_an_inverted_channel_is_heard_and_says_so(tmp_path: Path, name: str) -> None:
    samples = np.stack([WAVE, -WAVE], axis=1)
    if name == "array":
        recording = Recording.from_array(samples, RATE)
    elif name == "a.m4a":
        ffmpeg("-i", write(tmp_path / "a.wav", samples, RATE), tmp_path / name)
        recording = Recording.open(tmp_path / name)
    else:
        recording = Recording.open(write(tmp_path / name, samples, RATE))
    heard = recording.read(0.5, 2.5)
    assert np.corrcoef(heard, WAVE[RATE // 2 : RATE // 2 + len(heard)])[0, 1] > 0.8
    assert recording.channels == 2
    assert len(recording.notes) == 1 and "cancel each other out" in recording.notes[0]
