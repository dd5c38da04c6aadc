"""echo-nano's encoder: log-mel front end and Whisper's encoder on windows of any length up to five seconds.

Whisper pads every input to thirty seconds. Here a window is encoded at its own length (positions are simply cut), so a
short crop costs what it is worth; a batch of windows of different lengths gives each the same result as alone. Both the
middle layer (better for sounds) and the last one (words) are kept, at 25 frames per second.

Front end as in Whisper (Radford et al., 2022): 16 kHz, window 400, hop 160, 80 Slaney mel bands, log10 floored eight
below the loudest value, then ``(x + 4) / 4``. The floor is taken per window.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from echo_agent.nano.configuration import NanoConfig

SAMPLE_RATE = 16000
HOP = 160
WINDOW = 400
FRAMES_PER_SECOND = 25
"""Rate of what :class:`NanoEncoder` returns."""
SHORTEST_WINDOW = 2 * WINDOW
"""Samples (0.05 s) to which a shorter window is padded with silence."""


@cache
def _filters(bins: int) -> Tensor:
    """Slaney mel filters ``[bins, 201]``."""
    bank = mel_filter_bank(WINDOW // 2 + 1, bins, 0.0, 8000.0, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).float().T.contiguous()


def log_mel(samples: Tensor, bins: int = 80) -> Tensor:
    """Log-mel ``[bins, frames]`` of mono samples ``[n]`` at 16 kHz, 100 frames per second."""
    if samples.shape[-1] < SHORTEST_WINDOW:
        samples = nn.functional.pad(samples, (0, SHORTEST_WINDOW - samples.shape[-1]))
    window = torch.hann_window(WINDOW, device=samples.device)
    spectrum = torch.stft(samples, WINDOW, HOP, window=window, return_complex=True)[..., :-1].abs() ** 2
    mel = torch.log10(torch.clamp(_filters(bins).to(samples.device) @ spectrum, min=1e-10))
    return (torch.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0


def window_mels(samples: Tensor, seconds: float, bins: int = 80) -> list[Tensor]:
    """Cut samples into windows of at most ``seconds`` and return the log-mel of each."""
    size = int(seconds * SAMPLE_RATE)
    return [log_mel(part, bins) for part in samples.split(size)]


def steps_of(samples: int, seconds: float) -> int:
    """Frames that :class:`NanoEncoder` gives for so many samples, cut into windows of at most ``seconds``."""
    size = int(seconds * SAMPLE_RATE)
    whole, rest = divmod(samples, size)
    return whole * _window_steps(size) + (_window_steps(rest) if rest else 0)


def _window_steps(samples: int) -> int:
    """Frames of one window: two halvings of its log-mel frames, each rounded up."""
    mels = max(samples, SHORTEST_WINDOW) // HOP
    return ((mels + 1) // 2 + 1) // 2


class NanoEncoder(nn.Module):
    """Whisper's encoder for windows of unequal length; returns two layers at 25 frames per second."""

    positions: Tensor

    def __init__(self, config: NanoConfig) -> None:
        """Build with random weights; :mod:`echo_agent.nano.modeling` loads the real ones."""
        super().__init__()
        whisper = WhisperConfig(
            d_model=config.encoder_dim,
            encoder_attention_heads=config.encoder_heads,
            encoder_ffn_dim=config.encoder_ffn,
            encoder_layers=config.encoder_layers,
        )
        whisper._attn_implementation = "sdpa"
        self.middle_layer = config.middle_layer
        self.conv1 = nn.Conv1d(config.mel_bins, config.encoder_dim, 3, padding=1)
        self.conv2 = nn.Conv1d(config.encoder_dim, config.encoder_dim, 3, stride=2, padding=1)
        frames = int(config.window_seconds * 50)
        self.positions = nn.Parameter(sinusoids(frames, config.encoder_dim), requires_grad=False)
        self.layers = nn.ModuleList(WhisperEncoderLayer(whisper) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.encoder_dim)

    def forward(self, mels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode windows.

        Args:
            mels: Log-mel ``[windows, bins, frames]``, zero behind each window's end.
            lengths: Mel frames of each window ``[windows]``.

        Returns:
            Features ``[windows, steps, 2 * dim]`` (middle layer, last layer) at 25 per second, and how many steps of
            each window are real ``[windows]``.
        """
        x, frames, mask = self._enter(mels, lengths)
        middle = x
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, attention_mask=mask)
            if number == self.middle_layer:
                middle = x
        return _halve(torch.cat([middle, self.layer_norm(x)], dim=-1), frames)

    def middle(self, mels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The middle layer alone ``[windows, steps, dim]``, as :meth:`forward` has it: about half of the work."""
        x, frames, mask = self._enter(mels, lengths)
        for layer in self.layers[: self.middle_layer]:
            x = layer(x, attention_mask=mask)
        return _halve(x, frames)

    def _enter(self, mels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the first layer takes ``[windows, n, dim]``, how much of it is real, and the mask of that."""
        x = nn.functional.gelu(self.conv1(mels))
        x = x * (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None]
        x = nn.functional.gelu(self.conv2(x)).transpose(1, 2)
        frames = (lengths + 1) // 2
        x = x + self.positions[: x.shape[1]]
        real = torch.arange(x.shape[1], device=x.device) < frames[:, None]
        mask = None if bool(real.all()) else real[:, None, None].expand(-1, 1, x.shape[1], -1)
        return x, frames, mask


def _halve(x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Average pairs of the frames that are real ``[windows, n, dim]``; an odd last frame stands alone."""
    x = x * (torch.arange(x.shape[1], device=x.device) < frames[:, None])[..., None]
    if x.shape[1] % 2:
        x = nn.functional.pad(x, (0, 0, 0, 1))
    pairs = x.view(x.shape[0], -1, 2, x.shape[-1])
    real = torch.arange(pairs.shape[1] * 2, device=x.device).view(1, -1, 2) < frames[:, None, None]
    return pairs.sum(2) / real.sum(2, keepdim=True).clamp(min=1), (frames + 1) // 2


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's position encodings ``[length, channels]``."""
    scale = torch.exp(-math.log(10000) / (channels // 2 - 1) * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * scale[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
