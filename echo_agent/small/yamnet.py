"""YAMNet: 521 sounds of AudioSet by name, and 1,024 features, for every 0.96 s of sound.

The network is MobileNet v1 (Howard et al. 2017) on log-mel patches of 96 frames and 64 bands, trained by Google on
AudioSet (Plakal and Ellis, tensorflow/models, Apache-2.0). Batch norms are folded into the convolutions. It stays
frozen; ``echo_agent.finetune.small.convert_yamnet`` makes its file.
"""

from __future__ import annotations

from functools import cache

import torchaudio
from torch import Tensor, nn

RATE = 16_000
FRAMES, BANDS = 96, 64
"""Frames of 10 ms in a patch, and mel bands."""
HOP_FRAMES = 48
"""Frames from one patch to the next: two patches cover every moment."""
PATCH_SECONDS, HOP_SECONDS = 0.96, 0.48
CLASSES, WIDTH = 521, 1024
CHANNELS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1),
    (1024, 2), (1024, 1),
)  # fmt: skip
"""Width and stride of the separable convolutions, after the first full one of 32 channels with stride 2."""


class Same(nn.Module):
    """A convolution of 3 x 3 or 1 x 1 with TensorFlow's padding, then ReLU."""

    def __init__(self, width: int, out: int, size: int, stride: int, groups: int = 1) -> None:
        """Build with random weights."""
        super().__init__()
        self.conv = nn.Conv2d(width, out, size, stride, groups=groups)
        # At stride 2 an even input is padded at its end alone.
        self.padding = (0, 0, 0, 0) if size == 1 else (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, width, frames, bands]`` to ``[batch, out, ...]``."""
        return nn.functional.relu(self.conv(nn.functional.pad(x, self.padding)))


class Yamnet(nn.Module):
    """The network."""

    def __init__(self) -> None:
        """Build with random weights."""
        super().__init__()
        layers: list[nn.Module] = [Same(1, 32, 3, 2)]
        width = 32
        for out, stride in CHANNELS:
            layers += [Same(width, width, 3, stride, groups=width), Same(width, out, 1, 1)]
            width = out
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[n, 1024]`` and logits ``[n, 521]`` of patches ``[n, 96, 64]``."""
        features = self.layers(patches[:, None]).mean(dim=(2, 3))
        return features, self.classifier(features)


@cache
def _mel() -> torchaudio.transforms.MelSpectrogram:
    return torchaudio.transforms.MelSpectrogram(
        RATE,
        n_fft=512,
        win_length=400,
        hop_length=160,
        f_min=125.0,
        f_max=7500.0,
        n_mels=BANDS,
        power=1.0,
        center=False,
        mel_scale="htk",
        norm=None,
    )


def patches(samples: Tensor) -> Tensor:
    """Log-mel patches ``[n, 96, 64]`` of samples at 16 kHz; the last one is filled up with silence.

    Patch ``i`` begins at ``0.48 * i`` seconds; there is at least one.
    """
    frames = max(FRAMES, 1 + max(0, len(samples) - 400) // 160)
    count = 1 + -(-(frames - FRAMES) // HOP_FRAMES)
    wanted = (FRAMES + (count - 1) * HOP_FRAMES - 1) * 160 + 512
    filled = nn.functional.pad(samples.float(), (0, max(0, wanted - len(samples))))[:wanted]
    log_mel = (_mel()(filled) + 1e-3).log().T
    return log_mel.unfold(0, FRAMES, HOP_FRAMES)[:count].transpose(1, 2)
