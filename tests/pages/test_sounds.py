"""Sound in a page is small, and is the sound."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import soundfile

from echo_agent.pages.sounds import RATE, mp3_bytes, sound_source
from tests.sounds import tone


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_comes_back(rate: int) -> None:
    data = mp3_bytes(tone(440, 3.0, rate), rate)
    heard, got = soundfile.read(io.BytesIO(data), dtype="float32")
    assert got == RATE and len(heard) / RATE == pytest.approx(3.0, abs=0.1)
    assert len(data) < 3 * 6000, "bytes per second"
    spectrum = np.abs(np.fft.rfft(heard[RATE : 2 * RATE]))
    assert spectrum.argmax() == pytest.approx(440, abs=1)


def test_what_is_too_loud_or_too_short_is_encoded_too() -> None:
    assert soundfile.read(io.BytesIO(mp3_bytes(tone(440, 0.5, level=3.0), RATE)))[0].max() < 1.3
    assert len(soundfile.read(io.BytesIO(mp3_bytes(tone(440, 0.001), RATE)))[0])


def test_a_source_holds_the_sound() -> None:
    head, _, data = sound_source(tone(440, 1.0), RATE).partition(",")
    assert head == "data:audio/mpeg;base64" and base64.b64decode(data) == mp3_bytes(tone(440, 1.0), RATE)
