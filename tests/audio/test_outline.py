"""Outlines: what is loud and where, at which pitch, in blocks or not, and as characters."""

from __future__ import annotations

import numpy as np
import pytest

from echo_agent.audio import outline
from echo_agent.audio.outline import (
    ASCII_BLOCKS,
    BANDS,
    BLOCKS,
    FLOOR_DB,
    clock,
    mel,
    peaks,
    sketch,
    spectrum,
)
from echo_agent.audio.recording import Recording

RATE = 16000


def tone(hertz: float, seconds: float, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.mark.parametrize(
    ("seconds", "precise", "text"),
    [
        (0, True, "0:00.0"),
        (59.96, True, "1:00.0"),  # rounded before it is split
        (75.25, True, "1:15.2"),
        (3725.4, True, "1:02:05.4"),
        (59.6, False, "1:00"),
        (3600, False, "1:00:00"),
    ],
)
def test_clock(seconds: float, precise: bool, text: str) -> None:
    assert clock(seconds, precise) == text


def test_peaks_are_where_the_sound_is() -> None:
    samples = np.concatenate([np.zeros(RATE), tone(440, 1.0, 0.8), np.zeros(RATE), tone(440, 1.0, 0.2)])
    found = peaks(Recording.from_array(samples.astype(np.float32), RATE), 8)
    assert found == pytest.approx([0, 0, 0.8, 0.8, 0, 0, 0.2, 0.2], abs=0.05)


def test_spectrum_shows_pitch_and_time() -> None:
    samples = np.concatenate([tone(500, 2.0), tone(4000, 2.0)])
    image = spectrum(Recording.from_array(samples, RATE), 40, RATE)
    assert image.shape == (BANDS, 40)
    assert image.max() == 0.0 and image.min() >= -FLOOR_DB
    centres = np.linspace(mel(40.0), mel(RATE / 2), BANDS)
    for column, hertz in ((10, 500.0), (30, 4000.0)):
        assert centres[image[:, column].argmax()] == pytest.approx(mel(hertz), abs=30)


def test_blocks_do_not_change_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, int(7.3 * RATE)).astype(np.float32)
    recording = Recording.from_array(noise, RATE)
    whole = peaks(recording, 100, RATE), spectrum(recording, 100, RATE)
    monkeypatch.setattr(outline, "BLOCK", 1.0)
    parts = peaks(recording, 100, RATE), spectrum(recording, 100, RATE)
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-6)
    np.testing.assert_allclose(parts[1], whole[1], atol=0.1)


@pytest.mark.parametrize("seconds", [0.02, 0.3])
def test_fewer_samples_than_columns(seconds: float) -> None:
    recording = Recording.from_array(tone(500, seconds), RATE)
    assert peaks(recording, 1200).max() > 0.3
    assert np.isfinite(spectrum(recording, 1200, RATE)).all()


def test_silence() -> None:
    recording = Recording.from_array(np.zeros(RATE, np.float32), RATE)
    assert (
        spectrum(recording, 10, RATE).max() == -FLOOR_DB or np.isfinite(spectrum(recording, 10, RATE)).all()
    )
    assert sketch(peaks(recording, 5), 1.0) == [(BLOCKS[0] * 5, False)]


def test_sketch_marks_the_span() -> None:
    loud = np.array([0, 0, 1, 1, 0.1, 0, 0, 0, 0, 0], np.float32)
    pieces = sketch(loud, 10.0, (2.0, 4.0))
    assert [marked for _, marked in pieces] == [False, True, False]
    assert pieces[1][0] == BLOCKS[-1] * 2
    assert "".join(text for text, _ in pieces) == sketch(loud, 10.0)[0][0]


@pytest.mark.parametrize("span", [(0.0, 0.001), (9.9999, 10.0), (3.0, 3.01), (0.0, 10.0)])
def test_sketch_marks_at_least_one_character(span: tuple[float, float]) -> None:
    pieces = sketch(np.ones(10, np.float32), 10.0, span)
    assert sum(len(text) for text, marked in pieces if marked) >= 1
    assert sum(len(text) for text, _ in pieces) == 10


def test_sketch_for_plain_terminals() -> None:
    ((line, _),) = sketch(np.linspace(0, 1, 20, dtype=np.float32), 10.0, ascii_only=True)
    assert set(line) <= set(ASCII_BLOCKS)
