"""Builds the sound bank: a folder of short labelled clips and one table about them.

Everything a training example is mixed from comes out of the bank: real sounds and backgrounds of Debian
packages, rendered notes, spoken digits and words. The bank is built once, locally, and is never shipped.
Building is deterministic: the same packages and tool versions give the same files and the same table.

Order matters in one place: recordings that decode to the same samples are dropped *before* sources are
split, so that no copy of a training recording can sit in a test split.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank import instruments, speech
from echo_agent.finetune.data.bank.clips import (
    SAMPLE_RATE,
    Wave,
    decode,
    fingerprint,
    tidy,
    windows,
    write_clip,
)
from echo_agent.finetune.data.bank.labels import BACKGROUND_LABELS, split_group
from echo_agent.finetune.data.bank.manifest import KINDS, ClipRow, Kind, has_bank, write_manifest
from echo_agent.finetune.data.bank.packages import (
    CC0,
    PACKAGES,
    Package,
    SoundFile,
    refuse_reserved,
    sound_files,
)
from echo_agent.finetune.data.bank.splits import Candidate, split_class, voice_split
from echo_agent.locks import locked_folder

_log = logging.getLogger(__name__)


class BankWriter:
    """Writes clips and remembers their rows and what has been heard before."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: list[ClipRow] = []
        self._heard: set[str] = set()
        self._samples = hashlib.sha256()

    def is_new(self, wave: Wave) -> bool:
        """Whether a tidied recording has any sound in it and was not heard before; from now on it was."""
        mark = fingerprint(wave)
        new = bool(len(wave)) and mark not in self._heard
        self._heard.add(mark)
        return new

    def add(self, wave: Wave, row: ClipRow, rendering: str = "") -> None:
        """Cuts a tidied recording into clips; `row` carries everything but path and length."""
        for number, clip in enumerate(windows(wave)):
            name = hashlib.sha256(f"{row.source}|{rendering}|{number}".encode()).hexdigest()[:16]
            path = f"{row.kind}/{row.label}/{name}.wav"
            write_clip(self.out / path, clip)
            self.rows.append(replace(row, path=path, seconds=round(len(clip) / SAMPLE_RATE, 4)))
            self._samples.update(f"{path} {fingerprint(clip)}\n".encode())

    @property
    def digest(self) -> str:
        """A hash of the samples of all clips, in the order in which they were added."""
        return self._samples.hexdigest()


def build_bank(debs: Path, out: Path, workers: int = 2) -> list[ClipRow]:
    """Builds the bank from the folder of unpacked packages and returns the manifest's rows.

    Args:
        debs: Folder with one subfolder per package, as `packages.fetch` leaves it.
        out: Folder to write to; it must not hold another bank.
        workers: Threads that decode. The decoders release the lock, two are enough.

    Raises:
        DataError: There are no packages, `out` holds a bank, or the disk is full.
    """
    refuse_reserved(debs)
    refuse_bank(out)
    present = [package for package in PACKAGES if (debs / package.name).is_dir()]
    if not present:
        raise DataError(f"{debs} holds no package that the bank is made of: fetch them first")
    with locked_folder(out):
        refuse_bank(out)  # which another process may have built meanwhile
        return _built(debs, out, present, workers)


def _built(debs: Path, out: Path, present: list[Package], workers: int) -> list[ClipRow]:
    """Builds the bank in a folder that is kept from others."""
    writer = BankWriter(out)
    _add_recordings(writer, (file for package in present for file in sound_files(debs, package)), workers)
    if (debs / instruments.FONT).is_file():
        _add_notes(writer, debs)
    for said in speech.utterances(debs):
        split = voice_split(said.voice)
        row = ClipRow(
            "", said.word, said.kind, said.package, said.voice, said.source, said.licence, 0.0, split, -1
        )
        wave = tidy(said.samples)
        if writer.is_new(wave):
            writer.add(wave, row, str(said.rendering))
        else:
            _log.warning("%s sounds like another voice or says nothing, and is left out", said.source)
    rows = sorted(writer.rows, key=lambda row: (KINDS.index(row.kind), row.label, row.source, row.path))
    write_manifest(rows, out, {"clips": writer.digest})
    return rows


def refuse_bank(out: Path) -> None:
    """Raises DataError where a folder holds a bank already."""
    if has_bank(out):
        raise DataError(f"{out} already holds a bank: remove it or choose another folder")


def _add_recordings(writer: BankWriter, files: Iterable[SoundFile], workers: int) -> None:
    """Adds real recordings: decode all, drop copies and unreadable files, then split each class by source."""
    kept: dict[str, list[SoundFile]] = defaultdict(list)
    waves: dict[str, Wave] = {}
    for file, wave in _decoded(files, workers):
        if wave is None:
            _log.warning("%s cannot be decoded and is left out", file.source)
        elif writer.is_new(wave):
            waves[file.source] = wave
            kept[file.label].append(replace(file, data=b""))
        else:
            _log.info("%s is silent or a copy", file.source)
    for label, members in sorted(kept.items()):
        kind: Kind = "background" if label in BACKGROUND_LABELS else "sound"
        splits = split_class(
            Candidate(file.source, split_group(file.package, file.path), file.package, file.licence == CC0)
            for file in members
        )
        for file in members:
            split = splits[file.source]
            row = ClipRow("", label, kind, file.package, "", file.source, file.licence, 0.0, split, -1)
            writer.add(waves.pop(file.source), row)


def _decoded(files: Iterable[SoundFile], workers: int) -> Iterator[tuple[SoundFile, Wave | None]]:
    """Decodes and tidies in the order of the files, a batch at a time so that few encoded files are held."""
    stream = iter(files)
    with ThreadPoolExecutor(workers) as pool:
        while batch := list(islice(stream, 64)):
            yield from zip(batch, pool.map(_tidied, batch), strict=True)


def _tidied(file: SoundFile) -> Wave | None:
    """None for the few packaged files that no decoder accepts."""
    try:
        return tidy(decode(file.data, file.source))
    except DataError:
        return None


def _add_notes(writer: BankWriter, debs: Path) -> None:
    """Adds rendered notes; pitches of programs are held out like recordings."""
    by_label: dict[str, dict[str, None]] = defaultdict(dict)
    for note in instruments.notes():
        by_label[note.label][note.source] = None
    splits = {
        source: split
        for sources in by_label.values()
        for source, split in split_class(
            Candidate(source, source, "fluid-soundfont-gm") for source in sources
        ).items()
    }
    for note, samples in instruments.render(debs):
        split = splits[note.source]
        row = ClipRow(
            "", note.label, "note", "fluid-soundfont-gm", "", note.source, "MIT", 0.0, split, note.pitch
        )
        wave = tidy(samples)
        if writer.is_new(wave):
            writer.add(wave, row, f"{note.velocity}:{note.seconds}")
