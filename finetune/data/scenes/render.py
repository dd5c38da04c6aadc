"""Scene files: the stage that mixes scenes from a sound bank and writes them as FLAC with a record each.

The audio and the events of scene ``n`` are a function of the bank, the settings, the seed and ``n`` alone: not of how
many scenes there are, how many workers mix them, or how often the stage was killed. A worker reads the bank once and
holds one scene at a time, so memory does not grow with the number of scenes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from echo_agent.disk import GO_ON
from echo_agent.finetune.data.bank.clips import to_int16, write_sound
from echo_agent.finetune.data.bank.manifest import bank_digest
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.records import Record, Split
from echo_agent.finetune.data.scenes.mixer import SceneSettings, mix
from echo_agent.finetune.data.stages import Progress, Rows, run_stage
from echo_agent.locks import locked_folder

PART = 20
"""Scenes of a part, the piece of work that a kill can lose."""


def mix_scenes(
    bank_folder: Path,
    out: Path,
    settings: SceneSettings,
    *,
    count: int,
    seed: int,
    splits: Sequence[str],
    speech_splits: Sequence[str] | None = None,
    split: Split | None = None,
    name: str = "scenes",
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Mix scenes into ``out/audio/<name>-<n>.flac`` (16 kHz, 16 bit); returns the path of ``out/<name>.parquet``.

    Args:
        bank_folder: Folder of the sound bank.
        out: Folder of the build.
        settings: How scenes are mixed.
        count: How many.
        seed: Of every random choice.
        splits: Splits of the bank that sounds, notes and backgrounds are taken from.
        speech_splits: Splits that digits and words are taken from; the same where None.
        split: The split that the records are in.
        name: Of the stage; scenes of several stages are in one folder under different names.
        workers: Processes that mix.
        progress: Told how many parts are done.

    Raises:
        DataError: There is no bank, it has no clips of the splits, the stage was begun with other settings, or the
            disk is full; what is done is kept.
    """
    spoken = tuple(splits if speech_splits is None else speech_splits)
    work = _Part(
        bank_folder, bank_digest(bank_folder), out, settings, seed, tuple(splits), spoken, split, name
    )
    about = {
        "bank": work.digest,
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "splits": list(splits),
        "speech_splits": list(spoken),
        "split": split,
    }
    parts = [f"{first:06d}-{min(first + PART, count):06d}" for first in range(0, count, PART)]
    with locked_folder(out):
        return run_stage(out, name, parts, work, settings=about, workers=workers, progress=progress)


def draw_duration(rng: np.random.Generator, settings: SceneSettings) -> float:
    """Seconds of a scene, log-uniform between the bounds, to a tenth."""
    shortest, longest = settings.duration
    return round(math.exp(rng.uniform(math.log(shortest), math.log(longest))), 1)


@dataclass(frozen=True)
class _Part:
    """Mixes the scenes of one part, in whatever process it is called."""

    bank_folder: Path
    digest: str
    out: Path
    settings: SceneSettings
    seed: int
    splits: tuple[str, ...]
    speech_splits: tuple[str, ...]
    split: Split | None
    name: str

    def __call__(self, part: str) -> Rows:
        bank = _loaded(self.bank_folder, self.digest, self.splits, self.speech_splits)
        speaks = bool(bank.digits or bank.words)
        labels: tuple[str, ...] = tuple(sorted({*bank.sounds, "voice"} if speaks else bank.sounds))
        first, last = map(int, part.split("-"))
        return [self._record(bank, labels, n).model_dump(mode="json") for n in range(first, last)]

    def _record(self, bank: SoundBank, labels: tuple[str, ...], n: int) -> Record:
        rng = np.random.default_rng([self.seed, n])
        duration = draw_duration(rng, self.settings)
        scene = mix(bank, rng, duration, self.settings)
        audio = f"audio/{self.name}-{n:06d}.flac"
        write_sound(self.out / audio, to_int16(scene.samples), "FLAC", GO_ON)
        return Record(
            id=f"{self.name}-{n:06d}",
            audio=audio,
            duration=duration,
            events=scene.events,
            labels=labels,
            corpus="scenes",
            group=f"scenes:{'+'.join(self.splits)}:{'+'.join(self.speech_splits)}",
            split=self.split,
            licence="; ".join(scene.licences),
        )


@lru_cache(maxsize=1)
def _loaded(folder: Path, digest: str, splits: tuple[str, ...], speech_splits: tuple[str, ...]) -> SoundBank:
    """The bank, read once per process and again when it has changed."""
    return SoundBank.load(folder, splits, speech_splits)
