"""From an encoded recording to the clips that the bank stores.

A clip is float32 mono ``[samples]`` at 16 kHz, without silence at its ends, with its peak at 0.9 and at most
six seconds long. The level says nothing, on purpose: how loud an event is gets decided where recordings are
mixed. A recording much longer than a clip contributes up to three windows, which share one source and
therefore one split.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from echo_agent.disk import MAKE_ROOM, write_whole
from echo_agent.errors import DataError

Wave = NDArray[np.float32]

SAMPLE_RATE = 16_000
PEAK = 0.9
MAX_SECONDS = 6.0
MIN_SECONDS = 0.03
MAX_WINDOWS = 3
SILENCE = 10 ** (-45 / 20)
"""What lies this far below the peak counts as silence (45 dB)."""
_FRAME_SECONDS = 0.01
_FADE_SECONDS = 0.05


def decode(data: bytes, name: str = "recording") -> Wave:
    """Decodes a file of any format that libsndfile reads to mono 16 kHz."""
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{name} cannot be decoded: {error}") from error
    return to_mono_16k(np.asarray(samples, dtype=np.float32), rate)


def to_mono_16k(samples: NDArray[np.float32], rate: int) -> Wave:
    """Averages the channels of ``[samples]`` or ``[samples, channels]`` and resamples to 16 kHz."""
    mono = samples.mean(axis=1) if samples.ndim == 2 else samples
    mono = mono.astype(np.float32, copy=False)
    return (
        mono if rate == SAMPLE_RATE else np.asarray(soxr.resample(mono, rate, SAMPLE_RATE), dtype=np.float32)
    )


def tidy(wave: Wave) -> Wave:
    """Removes the mean, cuts what is 45 dB below the peak at both ends and scales the peak to 0.9.

    Silence stays silence: a recording without any signal comes back empty.
    """
    if not len(wave) or not np.isfinite(wave).all():
        return np.zeros(0, np.float32)
    wave = wave - wave.mean()
    peak = float(np.abs(wave).max())
    if peak < 1e-4:
        return np.zeros(0, np.float32)
    kept = wave[audible(wave, peak * SILENCE)]
    return (kept * (PEAK / peak)).astype(np.float32)


def audible(wave: Wave, floor: float) -> slice:
    """From the first to the last 10 ms in which a sample reaches `floor`; empty where none does."""
    frame = int(_FRAME_SECONDS * SAMPLE_RATE)
    padded = np.pad(np.abs(wave), (0, -len(wave) % frame))
    loud = np.flatnonzero(padded.reshape(-1, frame).max(axis=1) >= floor)
    return slice(int(loud[0]) * frame, (int(loud[-1]) + 1) * frame) if len(loud) else slice(0, 0)


def windows(wave: Wave) -> list[Wave]:
    """Cuts a tidied recording into at most three clips of at most six seconds; [] if it is too short to use.

    Up to twelve seconds give one clip, the beginning. Longer ones give two or three windows spread evenly
    from the first to the last sample. Cut edges fade over 50 ms.
    """
    length = int(MAX_SECONDS * SAMPLE_RATE)
    if len(wave) < MIN_SECONDS * SAMPLE_RATE:
        return []
    if len(wave) <= length:
        return [wave]
    count = max(1, min(MAX_WINDOWS, len(wave) // length))
    starts = np.linspace(0, len(wave) - length, count).astype(int) if count > 1 else np.zeros(1, int)
    fade = np.linspace(0.0, 1.0, int(_FADE_SECONDS * SAMPLE_RATE), dtype=np.float32)
    clips = []
    for start in starts:
        clip = wave[start : start + length].copy()
        if start > 0:
            clip[: len(fade)] *= fade
        if start + length < len(wave):
            clip[-len(fade) :] *= fade[::-1]
        clips.append(rescaled(clip))
    return [clip for clip in clips if len(clip)]


def rescaled(clip: Wave) -> Wave:
    """Scales the peak to 0.9; a clip without signal comes back empty."""
    peak = float(np.abs(clip).max(initial=0.0))
    return (clip * (PEAK / peak)).astype(np.float32) if peak > 1e-4 else np.zeros(0, np.float32)


def fingerprint(wave: Wave) -> str:
    """A hash of the 16-bit samples; equal for recordings that decode to the same sound."""
    return hashlib.sha256(to_int16(wave).tobytes()).hexdigest()


def to_int16(wave: Wave) -> NDArray[np.int16]:
    """Rounds a waveform in [-1, 1] to 16-bit samples."""
    return np.round(np.clip(wave, -1.0, 1.0) * 32767.0).astype(np.int16)


def write_clip(path: Path, clip: Wave) -> None:
    """Writes a clip as 16 kHz 16-bit wav, making the folder if needed; raises DataError where it cannot."""
    write_sound(path, to_int16(clip), "WAV")


def write_sound(
    path: Path, samples: NDArray[Any], form: Literal["WAV", "FLAC"], advice: str = MAKE_ROOM
) -> None:
    """Writes 16 kHz 16-bit sound, whole or not at all; raises DataError where it cannot."""
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE, format=form, subtype="PCM_16")
    write_whole(path, encoded.getvalue(), advice)
