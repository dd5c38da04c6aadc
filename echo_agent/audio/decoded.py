"""The temporary wav that a sound is decoded to, and what writes it while the sound comes in."""

from __future__ import annotations

import struct
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echo_agent.audio.channels import Balance, down_mix
from echo_agent.audio.temporary import TemporaryFile
from echo_agent.errors import RecordingError, RecordingTooLongError

__all__ = ["LARGEST", "AuStream", "DecodedFile", "WavWriter", "too_long"]

LARGEST = 2 << 30
"""Bytes that a decoded sound may take on disk: 6 hours at 48 kHz, 18 at 16 kHz."""


def too_long(path: str, seconds: str, longest: float) -> RecordingTooLongError:
    """The error about a recording that is longer than what asks for it can hear; `seconds` is its length in words."""
    return RecordingTooLongError(
        f"the recording {path} is {seconds} of audio, but at most {longest:.0f} s can be heard at once: cut it into "
        f"pieces of at most {longest:.0f} s, or use a model that hears longer ones (see `echo-agent models`)"
    )


class DecodedFile(TemporaryFile):
    """A temporary mono wav that holds the sound of another file; it goes when this object does."""

    rate: int = 0
    """Samples per second."""
    frames: int = 0
    """How many samples it holds."""
    channels: int = 1
    """How many channels the sound had."""
    notes: tuple[str, ...] = ()
    """What the user should know about it."""


class WavWriter:
    """Writes a mono wav of 16 bits from blocks of several channels, and looks at how they go together."""

    balance: Balance
    """How the channels go together."""
    rate: int
    """Samples per second; 0 before it has begun."""
    channels: int
    """Channels that come in."""
    frames: int
    """Samples per channel that have come in."""

    def __init__(
        self, source: str, target: str, weights: tuple[float, ...] | None, longest: float | None = None
    ) -> None:
        """Write the sound of a file.

        Args:
            source: The file.
            target: Where to.
            weights: How channels are mixed; None is their mean.
            longest: Seconds that it may last; None is no limit.
        """
        self._source, self._target, self._weights, self._longest = source, target, weights, longest
        self._file: wave.Wave_write | None = None
        self.balance = Balance()
        self.rate, self.channels, self.frames = 0, 0, 0

    def begin(self, rate: int, channels: int) -> None:
        """Begin the file, when rate and number of channels are known."""
        self.rate, self.channels = rate, channels
        if (
            self._weights is not None and len(self._weights) != channels
        ):  # a damaged file seems to have others
            self._weights = None
        self._file = wave.open(self._target, "wb")  # noqa: SIM115 - closed by `close`
        self._file.setparams((1, 2, rate, 0, "NONE", "not compressed"))

    def write(self, block: NDArray[np.float32]) -> None:
        """Write floats `[samples, channels]`.

        Raises:
            RecordingTooLongError: It lasts longer than it may.
            RecordingError: It takes more room than a sound may.
            OSError: There is no room.
        """
        assert self._file is not None
        for place in range(-self.frames % self.rate, len(block), self.rate):  # the beginning of each second
            self.balance.add(block[place : place + self.rate // 10])
        self.frames += len(block)
        if self._longest is not None and self.frames > self._longest * self.rate:
            raise too_long(self._source, f"more than {self._longest:.0f} s", self._longest)
        if self.frames * 2 > LARGEST:
            raise RecordingError(
                f"the recording {self._source} unpacks to more than {LARGEST / (1 << 30):g} GiB of sound "
                f"({self.frames / self.rate / 3600:.1f} hours at {self.rate} Hz), which is the limit; "
                "split it into shorter files"
            )
        mixed = down_mix(block, self._weights)
        self._file.writeframesraw(np.clip(np.rint(mixed * 32768.0), -32768, 32767).astype("<i2").tobytes())

    def close(self) -> None:
        """Write the length, and close the file."""
        if self._file is not None:
            self._file.close()


class AuStream:
    """Takes an au file of 16 bits piece by piece, and gives its samples to a writer."""

    def __init__(self, writer: WavWriter, lead: float) -> None:
        """Write to `writer`, after so many seconds of silence."""
        self._writer, self._lead, self._held, self._begun = writer, lead, b"", False

    def take(self, piece: bytes) -> None:
        """The next piece, of any length."""
        self._held += piece
        if not self._begun:
            if len(self._held) < 24:
                return
            offset, _, _, rate, channels = struct.unpack(">5I", self._held[4:24])
            if len(self._held) < offset:
                return
            self._held, self._begun = self._held[offset:], True
            self._writer.begin(rate, channels)
            for left in range(round(self._lead * rate), 0, -rate):
                self._writer.write(np.zeros((min(left, rate), channels), np.float32))
        width = 2 * self._writer.channels
        whole = len(self._held) // width * width
        samples: NDArray[Any] = np.frombuffer(self._held[:whole], ">i2").reshape(-1, self._writer.channels)
        self._held = self._held[whole:]
        if len(samples):
            self._writer.write(samples.astype(np.float32) / np.float32(32768.0))
