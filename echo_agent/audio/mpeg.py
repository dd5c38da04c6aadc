"""Counts the frames of an mp3 file, because its decoder believes the header.

An mp3 has no length of its own. libsndfile takes it from the optional Xing, Info or VBRI entry in the first
frame and guesses where there is none; what lies beyond is dropped in silence (measured: a variable-bitrate
file without that entry loses more than half, two files put one after the other lose the second), and a
truncated file is taken to be whole. Walking over the frame headers costs about a second for ten hours of
sound and decodes nothing.

Layer III only, which is what "mp3" is; for anything else `count_frames` says None.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

__all__ = ["Mp3Frames", "count_frames"]

_KBPS = {
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG-1
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG-2 and 2.5
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Mp3Frames:
    """What the frames of an mp3 file add up to."""

    frames: int
    """Complete audio frames that are there."""
    promised: int | None
    """Audio frames that the file's own header entry promises; None without one."""
    samples_per_frame: int
    """1152 for MPEG-1, 576 for MPEG-2 and 2.5."""
    others: int = 0
    """Frames of another rate or number of channels: a second file that was put behind the first."""
    rubbish: int = 0
    """Bytes between frames that belong to none."""

    @property
    def samples(self) -> int:
        """Samples per channel that the frames hold (encoder delay and padding included)."""
        return self.frames * self.samples_per_frame


@lru_cache(maxsize=512)
def _frame(second: int, third: int) -> tuple[int, int, int, int] | None:
    """Bytes, samples, rate and version of a layer III frame by its 2nd and 3rd header byte, or None."""
    version, layer = (second >> 3) & 3, (second >> 1) & 3
    bitrate, rate = third >> 4, (third >> 2) & 3
    if second < 0xE0 or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return None
    kbps = _KBPS[1 if version == 3 else 2][bitrate]
    hertz = _RATES[version][rate]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbps * 1000 // hertz + ((third >> 1) & 1), samples, hertz, version


def _skip_tags(file: BinaryIO) -> None:
    """Place `file` after the ID3v2 tags at its head."""
    start = 0
    while (head := file.read(10))[:3] == b"ID3" and len(head) == 10:
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | (head[9] & 127)
        start += 10 + size + (10 if head[5] & 0x10 else 0)
        file.seek(start)
    file.seek(start)


def _promise(frame: bytes, version: int) -> tuple[bool, int | None]:
    """Whether a first frame is a header entry instead of sound, and the number of frames that it promises."""
    mono = frame[3] >> 6 == 3
    at = 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))
    if frame[at : at + 4] in (b"Xing", b"Info"):
        return True, int.from_bytes(frame[at + 8 : at + 12], "big") if frame[at + 7] & 1 else None
    if frame[36:40] == b"VBRI":
        return True, int.from_bytes(frame[50:54], "big")
    return False, None


def count_frames(path: str | Path) -> Mp3Frames | None:
    """Count the layer III frames in the file at `path`; None if it holds none.

    Raises:
        OSError: The file cannot be read.
    """
    with open(path, "rb") as file:
        _skip_tags(file)
        data, at = file.read(_BLOCK), 0
        frames, promised, first = 0, None, None
        others = rubbish = passed = mono = 0
        while True:
            if len(data) - at < 8192:
                data, at = data[at:] + file.read(_BLOCK), 0
            if len(data) - at < 4:
                break
            found = _frame(data[at + 1], data[at + 2]) if data[at] == 0xFF else None
            if found and first and found[2:] != first[2:]:
                if _is_followed(data, at, found):
                    others += 1
                    at += found[0]
                    continue
                found = None
            if found and not first and at + found[0] + 2 < len(data) and not _is_followed(data, at, found):
                found = None  # two bytes that look like a frame and are none
            if not found:
                nearest = data.find(b"\xff", at + 1)
                nearest = nearest if nearest >= 0 else len(data)
                passed += nearest - at
                at = nearest
                continue
            if at + found[0] > len(data):
                break  # the last frame is cut short
            is_mono = data[at + 3] >> 6 == 3
            if first is None:
                first, mono = found, is_mono
                passed = 0
                is_entry, promised = _promise(data[at : at + found[0]], found[3])
                frames -= is_entry
            others += is_mono != mono
            rubbish, passed = rubbish + passed, 0
            frames += 1
            at += found[0]
    return Mp3Frames(frames, promised, first[1], others, rubbish) if first else None


def _is_followed(data: bytes, at: int, found: tuple[int, int, int, int]) -> bool:
    """Whether a frame of the same rate and version stands right behind the one at `at`."""
    following = data[at + found[0] : at + found[0] + 3]
    if len(following) < 3 or following[0] != 0xFF:
        return False
    frame = _frame(following[1], following[2])
    return frame is not None and frame[2:] == found[2:]
