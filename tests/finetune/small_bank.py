"""A sound bank in small: noises that have the form of the real one's clips, in memory or in a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import soundfile

from echo_agent.finetune.data.bank import manifest
from echo_agent.finetune.data.bank.reader import Clip, SoundBank
from echo_agent.finetune.data.scenes.augment import RATE
from echo_agent.finetune.data.vocabulary import DIGITS, WORDS

SOUNDS = ("bell", "bird", "car", "drum", "thunder", "typing", "water", "wolf")
"""Two of them may be struck several times, one is always laid several in a row."""
NOTES = ("guitar", "piano")
SEED = {"train": 1, "val": 2, "test": 3, "unseen_package": 4, "unseen_voice": 5}


def noise(seconds: float, seed: int) -> np.ndarray:
    """Noise of a steady level, peak 0.9."""
    samples = np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))
    return (0.9 * samples / np.abs(samples).max()).astype(np.float32)


def make_clips(split: str = "train") -> list[Clip]:
    """Clips of one split; no two are alike, and no two splits share one."""
    described = [
        *(("sound", label, "", 0.5 if label in ("bell", "drum", "typing") else 1.2, n)
          for label in SOUNDS for n in range(2)),
        *(("note", label, "", 0.6, n) for label in NOTES for n in range(3)),
        ("background", "wind", "", 3.0, 0),
        *(("digit", digit, f"{split}-voice", 0.3, 0) for digit in DIGITS),
        *(("word", word, f"{split}-voice", 0.35, 0) for word in WORDS),
    ]  # fmt: skip
    clips = []
    for number, (kind, label, voice, seconds, n) in enumerate(described):
        source = f"{split}:{kind}:{label}:{n}"
        samples = noise(seconds, 1000 * SEED[split] + number)
        clips.append(Clip(label, kind, "tests", voice, source, "CC0-1.0", samples))
    return clips


def make_bank(split: str = "train") -> SoundBank:
    """The clips of a split, grouped."""
    return SoundBank(make_clips(split))


def write_bank(folder: Path, kinds: dict[str, tuple[str, ...]], listed: tuple[str, ...] = ()) -> Path:
    """Write a bank.

    Args:
        folder: Where to.
        kinds: For every split, the kinds of clips that it is given.
        listed: Splits that stand in the manifest although their files are not there, so that reading one fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split in (*kinds, *listed):
        for number, clip in enumerate(make_clips(split)):
            if clip.kind not in kinds.get(split, manifest.KINDS):
                continue
            path = f"{clip.kind}/{clip.label}/{split}-{number}.wav"
            if split not in listed:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(folder / path, clip.samples, RATE, subtype="PCM_16")
            seconds = len(clip.samples) / RATE
            about = (clip.label, clip.kind, clip.package, clip.voice, clip.source, clip.licence)
            rows.append(asdict(manifest.ClipRow(path, *about, seconds, split, -1)))
    parquet.write_table(pa.Table.from_pylist(rows), folder / manifest.MANIFEST)
    return folder
