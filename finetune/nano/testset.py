"""Test sets: freely mixed scenes from clips that were never trained on, with rows for ``echo-agent eval``.

Three sets, by what is new in them: *core* (sounds and voices of the test split), *unseen-package* (sounds of a package
that no clip was trained on), *unseen-voice* (a speech synthesiser's voice that was never heard). Unlike training
scenes, these are mixed on one continuous timeline: nothing in them is aligned to the encoder's windows.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echo_agent.disk import write_whole
from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.clips import write_sound
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.questions.difficulty import difficulty
from echo_agent.finetune.nano.questions import CATEGORIES, SOUNDS, ask
from echo_agent.finetune.nano.scenes import make_scene
from echo_agent.locks import locked_folder


@dataclass(frozen=True)
class TestSet:
    """Which clips a set is made of, and how large it is."""

    __test__ = False  # not a test case, whatever its name

    name: str
    sounds: str
    """Split of the sounds and backgrounds."""
    voices: str
    """Split of the digits and words."""
    questions: int
    shortest: float = 20.0
    longest: float = 120.0


SETS = (
    TestSet("core", "test", "test", 1000),
    TestSet("unseen-package", "unseen_package", "test", 200),
    TestSet("unseen-voice", "test", "unseen_voice", 200),
)


def build_testset(bank_folder: Path, out: Path, test: TestSet, *, seed: int = 0, per_scene: int = 6) -> Path:
    """Mix the scenes (16 kHz FLAC) and write the rows of one set; returns the path of ``<name>.jsonl``.

    Categories are balanced: each scene gets the questions that the set has fewest of.

    Raises:
        DataError: The set exists, there is no bank, or its clips do not give enough questions.
    """
    _refuse_set(out, test)
    bank = taught(SoundBank.load(bank_folder, [test.sounds], [test.voices]))
    with locked_folder(out):
        return _built(bank_folder, bank, out, test, seed, per_scene)


def _built(bank_folder: Path, bank: SoundBank, out: Path, test: TestSet, seed: int, per_scene: int) -> Path:
    """Mix in a folder that is kept from others."""
    path = _refuse_set(out, test)
    rng = np.random.default_rng([seed, *test.name.encode()])
    folder = out / test.name
    counts: Counter[str] = Counter()
    rows: list[dict[str, object]] = []
    number = tried = 0
    while len(rows) < test.questions:
        tried += 1
        if tried > 20 * test.questions:
            raise DataError(
                f"{bank_folder}: the clips of split {test.sounds!r} do not offer enough questions"
            )
        duration = float(np.round(rng.uniform(test.shortest, test.longest), 1))
        scene = make_scene(bank, rng, duration, speech=0.35)
        asked: set[str] = set()
        for category in sorted(CATEGORIES, key=lambda f: (counts[f], f))[:per_scene]:
            question = ask(scene.events, rng, category)
            if question is None or question.text in asked or len(rows) >= test.questions:
                continue
            asked.add(question.text)
            counts[category] += 1
            row: dict[str, object] = {
                "id": f"{test.name}-{len(rows):04d}",
                "audio": f"{test.name}/{number:04d}.flac",
                "duration": duration,
                "question": question.text,
                "choices": list(question.choices) if question.choices else None,
                "answer": question.answer if question.choices else None,
                "answers": None if question.choices else [question.answer],
                "gold_spans": [list(span) for span in question.gold_spans],
                "family": category,
                "difficulty": difficulty(category, duration),
            }
            rows.append({key: value for key, value in row.items() if value is not None})
        if asked:
            write_sound(folder / f"{number:04d}.flac", scene.samples, "FLAC")
            number += 1
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


def _refuse_set(out: Path, test: TestSet) -> Path:
    """The path of a set's rows; raises DataError where it is there already."""
    path = out / f"{test.name}.jsonl"
    if path.exists():
        raise DataError(f"{path} is there already: remove it or choose another folder")
    return path


def taught(bank: SoundBank) -> SoundBank:
    """The bank without the sounds that are too rare to be taught."""
    for label in set(bank.sounds) - set(SOUNDS):
        del bank.sounds[label]
    return bank
