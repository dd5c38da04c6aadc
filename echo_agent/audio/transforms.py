"""What can be done to a stretch of sound: resampled, slower or faster, one frequency band, louder, quieter.

All functions take and return mono float32 waveforms `[samples]`; rates are in samples per second, speeds are
factors (0.5 = twice as long), frequencies are in Hz, gains in dB.

This is the one module that imports torchaudio, and only inside functions: torchaudio does not import with
every build of torch. Where it does not, the two kernels taken from it (windowed-sinc resampling and the phase
vocoder) are computed here in plain torch, by the same formulas: a model must not hear other samples on
another machine, so the fallback is *equal* to within float rounding, and a test says so. Bands and gains need
only numpy.

Order inside one transform: band, then speed, then gain, then a limiter. The limiter works sample by sample (a
sample up to 0.9 is left alone, a larger one is bent to below 1), so what is heard never depends on what is
next to it.
"""

from __future__ import annotations

import importlib
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from echo_agent.forks import torch_computes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Samples", "Transform", "apply", "audio_backend", "resample", "resample_margin"]

Samples = NDArray[np.float32]
"""A mono waveform `[samples]`; full scale is -1 to 1."""

_ZERO_CROSSINGS = 32
"""Half-width of the resampling kernel in zero crossings of its sinc."""
_ROLLOFF = 0.96
"""Cut-off of the resampling kernel as a fraction of the lower Nyquist frequency."""
_KAISER_BETA = 9.0
"""Shape of the kernel's Kaiser window: within 1 dB up to 0.92 of Nyquist, 90 dB down from 1.06 (44.1 -> 16
kHz)."""
_LARGEST_KERNEL = 1_000_000
"""Kernel entries above which resampling goes through soxr. A polyphase kernel grows with the *product* of the
reduced rates: 44 100 -> 16 000 Hz has 160 phases, 44 101 -> 16 000 Hz has 16 000 (tried: 23 s for 30 s of
audio)."""
_SOXR_REACH = 200
"""Reach of soxr's HQ filter in samples of the lower rate (measured: a slice equals the whole from 160 on)."""
_KNEE = 0.9
"""Level above which the limiter starts to bend."""


class Transform(BaseModel):
    """How a stretch is to be heard; the default is as it is.

    Example:
        >>> Transform(speed=0.5, low_hz=300, high_hz=3400).is_identity
        False
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    speed: float = Field(default=1.0, ge=0.25, le=2.0)
    """Playing speed, pitch kept: 0.5 sounds twice as long. Outside 0.25 to 2 the phase vocoder smears too
    much."""
    low_hz: float | None = Field(default=None, gt=0)
    """Lower edge of the band that is kept, Hz; None keeps everything below `high_hz`."""
    high_hz: float | None = Field(default=None, gt=0)
    """Upper edge of the band that is kept, Hz; None keeps everything above `low_hz`."""
    gain_db: float = Field(default=0.0, ge=-40.0, le=40.0)
    """Gain in dB; peaks are bent below full scale, never wrapped or cut flat."""

    @model_validator(mode="after")
    def _band_is_ordered(self) -> Transform:
        if self.low_hz is not None and self.high_hz is not None and self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz ({self.low_hz:g}) must be below high_hz ({self.high_hz:g})")
        return self

    @property
    def is_identity(self) -> bool:
        """Whether the stretch is heard exactly as recorded."""
        return self.speed == 1.0 and self.low_hz is None and self.high_hz is None and self.gain_db == 0.0

    def samples_out(self, samples_in: int) -> int:
        """How many samples `samples_in` samples become."""
        return samples_in if self.speed == 1.0 or samples_in == 0 else max(1, round(samples_in / self.speed))


def apply(samples: Samples, rate: int, transform: Transform) -> Samples:
    """Hear `samples` through `transform`.

    Never fails on a policy's wish: a band that lies above the Nyquist frequency holds nothing, so it sounds
    as silence.

    Args:
        samples: Mono waveform `[n]`; not changed.
        rate: Its rate in Hz.
        transform: What to do to it.

    Returns:
        A float32 waveform of exactly `transform.samples_out(n)` samples; `samples` itself for the identity.
    """
    if transform.is_identity or samples.size == 0:
        return samples
    heard = samples
    if transform.low_hz is not None or transform.high_hz is not None:
        heard = _band(heard, rate, transform.low_hz, transform.high_hz)
    if transform.speed != 1.0:
        heard = _stretch(heard, rate, transform.speed)
    if transform.gain_db:
        heard = heard * np.float32(10.0 ** (transform.gain_db / 20.0))
    return _limit(heard)


def resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Bring a waveform to another rate; sample j of the result lies at time `j / new_rate`.

    Small reduced ratios use a Kaiser-windowed sinc (torchaudio's kernel), large ones soxr, so an odd rate in
    a file's header costs no more than a usual one.

    Args:
        samples: Mono waveform `[n]`.
        rate: Its rate in Hz.
        new_rate: The wanted rate in Hz.

    Returns:
        A float32 waveform of `round(n * new_rate / rate)` samples (at least one if there was one).
    """
    if rate == new_rate or samples.size == 0:
        return samples.astype(np.float32, copy=False)
    length = max(1, round(samples.size * new_rate / rate))
    out = (
        _sinc_resample(samples, rate, new_rate)
        if _fits_kernel(rate, new_rate)
        else _soxr(samples, rate, new_rate)
    )
    if out.size < length:
        out = np.pad(out, (0, length - out.size))
    return np.ascontiguousarray(out[:length], dtype=np.float32)


def resample_margin(rate: int, new_rate: int) -> int:
    """How many samples at `rate` on either side of a stretch have a say in its resampled samples."""
    if rate == new_rate:
        return 0
    if _fits_kernel(rate, new_rate):
        return _kernel_width(rate, new_rate) + 1
    return math.ceil(_SOXR_REACH * rate / min(rate, new_rate))


def audio_backend() -> str:
    """Name what resamples and stretches here, for a run's record: "torchaudio 2.11.0" or "torch 2.14.1"."""
    backend = _torchaudio()
    return f"torchaudio {backend.__version__}" if backend is not None else f"torch {_torch().__version__}"


# ---------------------------------------------------------------------------------------------- resampling


def _reduced(rate: int, new_rate: int) -> tuple[int, int]:
    shared = math.gcd(rate, new_rate)
    return rate // shared, new_rate // shared


def _kernel_width(rate: int, new_rate: int) -> int:
    down, up = _reduced(rate, new_rate)
    return math.ceil(_ZERO_CROSSINGS * down / (min(down, up) * _ROLLOFF))


def _fits_kernel(rate: int, new_rate: int) -> bool:
    down, up = _reduced(rate, new_rate)
    return up * (2 * _kernel_width(rate, new_rate) + down) <= _LARGEST_KERNEL


def _soxr(samples: Samples, rate: int, new_rate: int) -> Samples:
    import soxr

    return soxr.resample(samples.astype(np.float32, copy=False), rate, new_rate, quality="HQ")


def _sinc_resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    down, up = _reduced(rate, new_rate)
    wave = _tensor(samples)[None]
    backend = _torchaudio()
    if backend is None:
        return _plain_resample(wave, down, up)[0].numpy()
    return backend.functional.resample(
        wave,
        down,
        up,
        lowpass_filter_width=_ZERO_CROSSINGS,
        rolloff=_ROLLOFF,
        resampling_method="sinc_interp_kaiser",
        beta=_KAISER_BETA,
    )[0].numpy()


def _plain_resample(wave: Tensor, down: int, up: int) -> Tensor:
    """The `functional.resample` of torchaudio in plain torch: one strided convolution for `up` phases."""
    torch = _torch()
    base = min(down, up) * _ROLLOFF
    width = _kernel_width(down, up)
    offsets = torch.arange(-width, width + down, dtype=wave.dtype)[None, None] / down
    times = torch.arange(0, -up, -1, dtype=wave.dtype)[:, None, None] / up + offsets
    times = (times * base).clamp(-_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    beta = torch.tensor(_KAISER_BETA)
    window = torch.i0(beta * torch.sqrt(1 - (times / _ZERO_CROSSINGS) ** 2)) / torch.i0(beta)
    kernel = torch.sinc(times) * window * (base / down)
    padded = torch.nn.functional.pad(wave, (width, width + down))
    phases = torch.nn.functional.conv1d(padded[:, None], kernel, stride=down)
    return phases.transpose(1, 2).reshape(wave.shape[0], -1)[:, : math.ceil(up * wave.shape[1] / down)]


# ---------------------------------------------------------------------------------------------- speed


def _stretch(samples: Samples, rate: int, speed: float) -> Samples:
    """Play at `speed` with the pitch kept: STFT, phase vocoder (torchaudio's TimeStretch), inverse STFT.

    Two things are added to the bare vocoder. It runs in double precision: phases add up to millions of
    radians within a minute, of which floats keep too little. And the bins around a spectral peak are locked
    to the peak, as they were in the recording; left alone they drift apart (a sine at a quarter of its speed
    loses 9 dB).
    """
    torch = _torch()
    length = max(1, round(samples.size / speed))
    size = 4 * max(16, round(0.012 * rate))  # a window of 48 ms: 768 samples at 16 kHz
    hop, bins = size // 4, size // 2 + 1
    window = torch.hann_window(size, dtype=torch.float64)
    vocoder = _torchaudio().functional.phase_vocoder if _torchaudio() is not None else _plain_vocoder
    with torch.no_grad():
        wave = _tensor(samples).double()
        heard = torch.stft(wave, size, hop, window=window, pad_mode="constant", return_complex=True)
        advance = torch.linspace(0, math.pi * hop, bins, dtype=torch.float64)[:, None]
        frames = torch.arange(0, heard.shape[1], speed, dtype=torch.float64)
        played = torch.empty((bins, len(frames)), dtype=torch.complex64)
        for at in range(0, bins, 64):  # in blocks, so that a minute does not take a gigabyte
            played[at : at + 64] = vocoder(heard[at : at + 64], speed, advance[at : at + 64])
        nearest = frames.round().long().clamp(max=heard.shape[1] - 1)
        for at in range(0, len(frames), 1024):
            block = slice(at, at + 1024)
            played[:, block] = _lock_phases(played[:, block], heard[:, nearest[block]].angle().float())
        return torch.istft(played, size, hop, window=window.float(), length=length).numpy()


def _lock_phases(played: Tensor, recorded: Tensor) -> Tensor:
    """Give the bins around each spectral peak the phases towards it that they had in the recording.

    Args:
        played: Stretched spectrum, complex `[bins, frames]`.
        recorded: Phases of the recording at the same moments, radians, `[bins, frames]`.
    """
    torch = _torch()
    level, bins = played.abs(), played.shape[0]
    near = torch.nn.functional.pad(level[None], (0, 0, 2, 2), value=-1.0)[0]
    is_peak = (level > near[:-4]) & (level >= near[1:-3]) & (level >= near[3:-1]) & (level >= near[4:])
    index = torch.arange(bins)[:, None].expand_as(level)
    below = torch.where(is_peak, index, -bins).cummax(0).values
    above = torch.where(is_peak, index, 2 * bins).flip(0).cummin(0).values.flip(0)
    peak = torch.where(index - below <= above - index, below, above)
    peak = torch.where(is_peak.any(0), peak, index)  # a frame without a peak is left as it is
    phases = played.angle().gather(0, peak) + recorded - recorded.gather(0, peak)
    return torch.polar(level, phases)


def _plain_vocoder(spectrum: Tensor, speed: float, advance: Tensor) -> Tensor:
    """The `functional.phase_vocoder` of torchaudio in plain torch; `spectrum` is complex `[bins, frames]`."""
    torch = _torch()
    steps = torch.arange(0, spectrum.shape[-1], speed, dtype=torch.float64)
    share = steps % 1.0
    padded = torch.nn.functional.pad(spectrum, [0, 2])
    before, after = padded[:, steps.long()], padded[:, (steps + 1).long()]
    turn = after.angle() - before.angle() - advance
    turn = turn - 2 * math.pi * torch.round(turn / (2 * math.pi)) + advance
    phase = torch.cumsum(torch.cat([spectrum[:, :1].angle(), turn[:, :-1]], dim=-1), dim=-1)
    return torch.polar(share * after.abs() + (1 - share) * before.abs(), phase)


# ---------------------------------------------------------------------------------------------- band and gain


def _band(samples: Samples, rate: int, low_hz: float | None, high_hz: float | None) -> Samples:
    """Keep what lies between two frequencies: a linear-phase FIR without delay, 70 dB down past its edges.

    At 32 ms on either side its edges are some 70 Hz wide; for a low edge under 70 Hz it is made longer.
    """
    nyquist = rate / 2
    if low_hz is not None and low_hz >= nyquist:
        return np.zeros_like(samples, dtype=np.float32)
    if high_hz is not None and high_hz >= nyquist:
        high_hz = None
    if low_hz is None and high_hz is None:
        return samples
    half = math.ceil(rate * min(max(0.032, 2.2 / (low_hz or high_hz or nyquist)), 0.128))
    kernel = np.zeros(2 * half + 1)
    kernel[half] = 1.0
    if high_hz is not None:
        kernel = _low_pass(high_hz / rate, half)
    if low_hz is not None:
        kernel = kernel - _low_pass(low_hz / rate, half)
    size = 1 << (samples.size + kernel.size - 2).bit_length()
    filtered = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(kernel, size), size)
    return filtered[half : half + samples.size].astype(np.float32)


@lru_cache(maxsize=64)
def _low_pass(cutoff: float, half: int) -> NDArray[np.float64]:
    """A Kaiser-windowed sinc of `2 * half + 1` taps; `cutoff` is in cycles per sample."""
    kernel = np.sinc(2 * cutoff * np.arange(-half, half + 1)) * np.kaiser(2 * half + 1, 7.0)
    return kernel / kernel.sum()


def _limit(samples: Samples) -> Samples:
    """Bend what exceeds the knee so that nothing exceeds full scale; smooth, and each sample on its own."""
    level = np.abs(samples)
    if samples.size == 0 or float(level.max()) <= _KNEE:
        return samples.astype(np.float32, copy=False)
    room = 1.0 - _KNEE
    bent = np.copysign(_KNEE + room * np.tanh((level - _KNEE) / room), samples)
    return np.where(level <= _KNEE, samples, bent).astype(np.float32)


# ---------------------------------------------------------------------------------------------- torch, lazily


def _torch() -> Any:  # torch's stubs would otherwise be needed wherever this module is checked
    torch = importlib.import_module("torch")
    torch_computes()
    return torch


@lru_cache(maxsize=1)
def _torchaudio() -> Any:
    """The package with its `functional` and `transforms`, or None where it cannot be imported; asked once."""
    try:
        module = importlib.import_module("torchaudio")
        importlib.import_module("torchaudio.functional")
        importlib.import_module("torchaudio.transforms")
    except (
        ImportError,
        OSError,
    ):  # OSError: its extension asks for libraries that a CPU build of torch lacks
        return None
    return module


def _tensor(samples: Samples) -> Tensor:
    """A tensor of its own memory: torch warns about arrays that cannot be written to."""
    return _torch().tensor(np.ascontiguousarray(samples, dtype=np.float32))
