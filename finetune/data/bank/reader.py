"""Reads a sound bank: the clips of chosen splits, by label.

Samples are float32 mono at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.manifest import MANIFEST, read_manifest
from echo_agent.finetune.data.bank.speech import GENDERS
from echo_agent.finetune.data.records import Voice


@dataclass(frozen=True)
class Clip:
    """One row of the sound bank, its samples read."""

    label: str
    kind: str
    package: str
    voice: str
    source: str
    licence: str
    samples: np.ndarray = field(repr=False)
    pitch: int = -1
    """MIDI pitch of a note, otherwise -1."""
    gender: Voice = ""
    """Whether a woman or a man speaks; empty where nobody does or it is not known."""

    @property
    def instrument(self) -> str:
        """What a note is played on: its source without the pitch."""
        return self.source.rpartition(":")[0]


class SoundBank:
    """The clips of chosen splits, by label."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        """Group clips; raises DataError where there is none."""
        if not clips:
            raise DataError(
                "the sound bank holds no clip of the chosen splits: build it, or choose other splits"
            )
        self.sounds: dict[str, list[Clip]] = {}
        self.digits: dict[str, dict[str, list[Clip]]] = {}
        self.words: dict[str, dict[str, list[Clip]]] = {}
        self.backgrounds: list[Clip] = []
        for clip in clips:
            if clip.kind in ("sound", "note"):
                self.sounds.setdefault(clip.label, []).append(clip)
            elif clip.kind == "background":
                self.backgrounds.append(clip)
            else:
                voices = self.digits if clip.kind == "digit" else self.words
                voices.setdefault(clip.voice, {}).setdefault(clip.label, []).append(clip)

    @classmethod
    def load(
        cls, folder: Path, splits: Sequence[str], speech_splits: Sequence[str] | None = None
    ) -> SoundBank:
        """The clips of :func:`read_clips`, grouped."""
        return cls(read_clips(folder, splits, speech_splits))


def read_clips(folder: Path, splits: Sequence[str], speech_splits: Sequence[str] | None = None) -> list[Clip]:
    """Read the clips of a bank folder (``manifest.parquet`` and 16 kHz wav files).

    Args:
        folder: What :func:`echo_agent.finetune.data.bank.bank.build_bank` wrote.
        splits: Splits of sounds, notes and backgrounds to take.
        speech_splits: Splits of digits and words; the same where None.

    Raises:
        DataError: There is no bank in the folder, or it is damaged.
    """
    import soundfile

    spoken = frozenset(splits if speech_splits is None else speech_splits)
    clips = []
    for row in read_manifest(folder):
        if row.split not in (spoken if row.kind in ("digit", "word") else splits):
            continue
        try:
            samples, _ = soundfile.read(folder / row.path, dtype="float32")
        except soundfile.LibsndfileError as error:
            raise DataError(
                f"{folder / MANIFEST} names a clip that cannot be read, build the bank again: {error}"
            ) from error
        gender = row.gender or GENDERS.get(row.voice, "")
        clips.append(
            Clip(
                row.label,
                row.kind,
                row.package,
                row.voice,
                row.source,
                row.licence,
                samples,
                row.pitch,
                gender,
            )
        )
    return clips
