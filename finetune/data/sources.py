"""Sources: what a build is made of, told by what it is: own clips, a sound bank, or annotated recordings.

Clips and banks give scenes, which are mixed first; all others are recordings with annotations, which are taken as they
are. Either way records come out, with their audio in the folder of the build.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.manifest import has_bank, made_of, read_manifest
from echo_agent.finetune.data.corpora.sourced import Sourced
from echo_agent.finetune.data.pipeline import gather
from echo_agent.finetune.data.records import Record, Split
from echo_agent.finetune.data.scenes.mixer import SceneSettings
from echo_agent.finetune.data.stages import Progress, read_rows
from echo_agent.paths import walk_files

PER_SCENE = 5
"""Questions that a scene of this kind offers at least, for most banks."""
SPARE = 1.3
"""How many more scenes are mixed than are needed for that."""
BANK_SPLITS: tuple[tuple[str, Split, float], ...] = (
    ("train", "train", 0.8), ("val", "validation", 0.1), ("test", "test", 0.1),
)  # fmt: skip
"""Splits of a bank, those of a dataset, and the share of the scenes."""


class Form(StrEnum):
    """What a source is."""

    CLIPS = "clips"
    BANK = "bank"
    JSONL = "jsonl"
    JAMS = "jams"
    AUDIOSET = "audioset"
    DESED = "desed"
    MUSICBENCH = "musicbench"
    AVQA = "avqa"


def form_of(source: Path) -> Form:
    """What a source is, by what lies there.

    Raises:
        DataError: There is nothing, or it could be several things.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if source.is_dir():
        if has_bank(source):
            return Form.BANK
        return Form.JAMS if any(path.suffix.lower() == ".jams" for path in walk_files(source)) else Form.CLIPS
    forms = {".csv": Form.CLIPS, ".jsonl": Form.JSONL, ".jams": Form.JAMS}
    if source.suffix.lower() in forms:
        return forms[source.suffix.lower()]
    raise DataError(f"{source}: say with --form what it is: {', '.join(Form)}")


def records_of(
    source: Path,
    out: Path,
    form: Form,
    *,
    audio: Path | None,
    questions: int,
    settings: SceneSettings,
    seed: int,
    workers: int,
    report: Callable[[str], None],
    progress: Callable[[str], Progress],
) -> list[Record]:
    """The records of a source, their audio in ``out/audio``.

    Args:
        source: File or folder.
        out: Folder of the build.
        form: What the source is.
        audio: Folder of the recordings, for annotations that only name them.
        questions: How many are wanted; as many scenes are mixed from clips.
        settings: How scenes are mixed.
        seed: Of the scenes.
        workers: Processes that mix.
        report: Told what was read and what was skipped.
        progress: Gives, for the name of a stage, the function that is called with its progress.

    Raises:
        DataError: The source is not of that form.
    """
    if form is Form.CLIPS:
        source, form = _bank_of(source, out / "bank", report), Form.BANK
    if form is Form.BANK:
        return _scenes(source, out, questions, settings, seed, workers, report, progress)
    found = _read(source, form, audio)
    report(f"{source}: {found.report()}")
    if not found.records:
        raise DataError(f"{source}: not one of its rows could be used")
    return gather(found.records, out)


def _bank_of(clips: Path, bank: Path, report: Callable[[str], None]) -> Path:
    """The bank of a user's own clips, built unless it is there; raises DataError where it is of other clips."""
    from echo_agent.finetune.data.bank.user_clips import bank_from_folder, given_digest

    if not has_bank(bank):
        _, said = bank_from_folder(clips, bank)
        report(f"{clips}: {said}")
    elif made_of(bank).get("given") != given_digest(clips):
        raise DataError(
            f"{bank} was made of other clips than {clips} holds now; remove {bank.parent}, or name another folder"
        )
    return bank


def _read(source: Path, form: Form, audio: Path | None) -> Sourced:
    """Read annotations."""
    from echo_agent.finetune.data import corpora

    if form is Form.JSONL:
        return corpora.read_jsonl(source)
    if form is Form.JAMS:
        return corpora.read_jams(source, audio)
    if audio is None:
        raise DataError(f"{source} only names its recordings: say with --audio in which folder they are")
    readers = {
        Form.AUDIOSET: corpora.read_audioset,
        Form.DESED: corpora.read_desed,
        Form.MUSICBENCH: corpora.read_musicbench,
        Form.AVQA: corpora.read_avqa,
    }
    return readers[form](source, audio)


def _scenes(
    bank: Path,
    out: Path,
    questions: int,
    settings: SceneSettings,
    seed: int,
    workers: int,
    report: Callable[[str], None],
    progress: Callable[[str], Progress],
) -> list[Record]:
    """Scenes of every split of a bank that has clips."""
    from echo_agent.finetune.data.scenes.render import mix_scenes

    heard = {row.split for row in read_manifest(bank) if row.kind != "background"}
    present = [entry for entry in BANK_SPLITS if entry[0] in heard]
    if not present:
        raise DataError(
            f"{bank}: it has no clips of the splits {', '.join(name for name, _, _ in BANK_SPLITS)}"
        )
    absent = [split for name, split, _ in BANK_SPLITS if name not in heard]
    if absent:
        report(f"{bank}: too few clips for {' and '.join(absent)}; the dataset has no such split")
    total = sum(share for _, _, share in present)
    records: list[Record] = []
    for name, split, share in present:
        count = max(1, math.ceil(questions * share / total / PER_SCENE * SPARE))
        path = mix_scenes(
            bank, out, settings, count=count, seed=seed, splits=[name], split=split, name=f"scenes-{name}",
            workers=workers, progress=progress(f"scenes-{name}"),
        )  # fmt: skip
        records += [Record.model_validate(row) for row in read_rows(path)]
    return records
