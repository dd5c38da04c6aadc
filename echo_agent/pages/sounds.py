"""Audio inside a page: what was heard, small enough to travel with it, in a form that every browser plays."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile

from echo_agent.audio.transforms import Samples, resample

RATE = 16_000
"""Samples per second of what is embedded, in Hz; models hear no more."""
_BLOCK = 1 << 16


def mp3_bytes(samples: Samples, rate: int) -> bytes:
    """A mono waveform as mp3 at 16 kHz: about 4 KB per second.

    Peaks above full scale are cut; a sound that is too short for one frame is followed by silence.
    """
    sound = np.clip(resample(samples, rate, RATE), -1.0, 1.0)
    if len(sound) < RATE // 10:
        sound = np.pad(sound, (0, RATE // 10 - len(sound)))
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", RATE, 1, "MPEG_LAYER_III", format="MP3", compression_level=0.8, bitrate_mode="CONSTANT"
    ) as encoder:
        for start in range(0, len(sound), _BLOCK):
            encoder.write(sound[start : start + _BLOCK])
    return file.getvalue()


def sound_source(samples: Samples, rate: int) -> str:
    """A mono waveform as a ``data:`` address."""
    return f"data:audio/mpeg;base64,{base64.b64encode(mp3_bytes(samples, rate)).decode('ascii')}"
