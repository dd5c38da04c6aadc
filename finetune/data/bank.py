"""Builds the sound bank: a folder of short labelled clips and one table about them.

Everything a training example is mixed from comes out of the bank: real sounds and backgrounds of Debian
packages, rendered notes, spoken digits and words. The bank is built once, locally, and is never shipped.
Building is deterministic: the same packages and tool versions give the same files and the same table.

Order matters in one place: recordings that decode to the same samples are dropped *before* sources are
split, so that no copy of a training recording can sit in a test split.

    python -m echo_agent.finetune.data.bank --debs DIR --out DIR
"""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from echo_agent.errors import DataError
from echo_agent.finetune.data import instruments, speech
from echo_agent.finetune.data.clips import SAMPLE_RATE, Wave, decode, fingerprint, tidy, windows, write_clip
from echo_agent.finetune.data.labels import BACKGROUND_LABELS, split_group
from echo_agent.finetune.data.packages import CC0, PACKAGES, SoundFile, refuse_reserved, sound_files
from echo_agent.finetune.data.records import Voice
from echo_agent.finetune.data.splits import SPLITS, Candidate, split_class, voice_split

_log = logging.getLogger(__name__)

MANIFEST = "manifest.parquet"
KINDS = ("sound", "digit", "word", "note", "background")


@dataclass(frozen=True)
class Clip:
    """One row of the manifest. Invariant: clips of one source have one label and lie in one split."""

    path: str
    """The wav file (16 kHz, 16 bit, mono), relative to the bank's folder."""
    label: str
    """What is heard: a class, a word, an instrument."""
    kind: str
    """One of `KINDS`."""
    package: str
    """Where it comes from."""
    voice: str
    """Who speaks; empty if nobody does."""
    source: str
    """The original recording; the unit of splitting."""
    licence: str
    """Licence of the original, as its package states it."""
    seconds: float
    """Length of the clip."""
    split: str
    """One of `SPLITS`."""
    pitch: int
    """MIDI pitch of a note, otherwise -1."""
    gender: Voice = ""
    """Whether a woman or a man speaks; where empty, `speech.GENDERS` may know."""


class BankWriter:
    """Writes clips and remembers their rows and what has been heard before."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: list[Clip] = []
        self._heard: set[str] = set()

    def is_new(self, wave: Wave) -> bool:
        """Whether a tidied recording has any sound in it and was not heard before; from now on it was."""
        mark = fingerprint(wave)
        new = bool(len(wave)) and mark not in self._heard
        self._heard.add(mark)
        return new

    def add(self, wave: Wave, row: Clip, rendering: str = "") -> None:
        """Cuts a tidied recording into clips; `row` carries everything but path and length."""
        for number, clip in enumerate(windows(wave)):
            name = hashlib.sha256(f"{row.source}|{rendering}|{number}".encode()).hexdigest()[:16]
            path = f"{row.kind}/{row.label}/{name}.wav"
            write_clip(self.out / path, clip)
            self.rows.append(replace(row, path=path, seconds=round(len(clip) / SAMPLE_RATE, 4)))


def build_bank(debs: Path, out: Path, workers: int = 2) -> list[Clip]:
    """Builds the bank from the folder of unpacked packages and returns the manifest's rows.

    Args:
        debs: Folder with one subfolder per package, as `packages.fetch` leaves it.
        out: Folder to write to; it must not hold another bank.
        workers: Threads that decode. The decoders release the lock, two are enough.
    """
    refuse_reserved(debs)
    if (out / MANIFEST).exists():
        raise DataError(f"{out} already holds a bank: remove it or choose another folder")
    writer = BankWriter(out)
    present = [package for package in PACKAGES if (debs / package.name).is_dir()]
    if not present:
        raise DataError(f"{debs} holds no package that the bank is made of: fetch them first")
    _add_recordings(writer, (file for package in present for file in sound_files(debs, package)), workers)
    if (debs / instruments.FONT).is_file():
        _add_notes(writer, debs)
    for said in speech.utterances(debs):
        split = voice_split(said.voice)
        row = Clip(
            "", said.word, said.kind, said.package, said.voice, said.source, said.licence, 0.0, split, -1
        )
        wave = tidy(said.samples)
        if writer.is_new(wave):
            writer.add(wave, row, str(said.rendering))
        else:
            _log.warning("%s sounds like another voice or says nothing, and is left out", said.source)
    rows = sorted(writer.rows, key=lambda row: (KINDS.index(row.kind), row.label, row.source, row.path))
    write_manifest(rows, out)
    return rows


def write_manifest(rows: Iterable[Clip], out: Path) -> None:
    """Writes the table of a bank, whole or not at all; it comes last, so a folder that has one is a bank."""
    partial = out / f".{MANIFEST}.partial"
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows]), partial)
    partial.rename(out / MANIFEST)


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
        kind = "background" if label in BACKGROUND_LABELS else "sound"
        splits = split_class(
            Candidate(file.source, split_group(file.package, file.path), file.package, file.licence == CC0)
            for file in members
        )
        for file in members:
            split = splits[file.source]
            row = Clip("", label, kind, file.package, "", file.source, file.licence, 0.0, split, -1)
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
        row = Clip(
            "", note.label, "note", "fluid-soundfont-gm", "", note.source, "MIT", 0.0, split, note.pitch
        )
        wave = tidy(samples)
        if writer.is_new(wave):
            writer.add(wave, row, f"{note.velocity}:{note.seconds}")


def summary(rows: Iterable[Clip]) -> str:
    """A table of clips per class and split, with the packages of each class."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    packages: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        counts[row.kind, row.label][row.split] += 1
        packages[row.kind, row.label].add(row.package)
    lines = [f"{'kind':11}{'label':12}" + "".join(f"{split:>15}" for split in SPLITS) + "  packages"]
    for kind, label in sorted(counts, key=lambda key: (KINDS.index(key[0]), key[1])):
        numbers = "".join(f"{counts[kind, label][split]:15d}" for split in SPLITS)
        lines.append(f"{kind:11}{label:12}{numbers}  {', '.join(sorted(packages[kind, label]))}")
    return "\n".join(lines)


def main() -> None:
    """Builds a bank from the command line."""
    parser = argparse.ArgumentParser(description="Build the sound bank from unpacked Debian packages.")
    parser.add_argument("--debs", type=Path, required=True, help="folder with the unpacked packages")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the bank to")
    arguments = parser.parse_args()
    print(summary(build_bank(arguments.debs, arguments.out)))


if __name__ == "__main__":
    main()
