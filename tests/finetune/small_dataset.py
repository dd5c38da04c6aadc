"""A dataset in small for tests of training: a few recordings of ten seconds, questions with and without reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import soundfile

from echo_agent.families.base import Family
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import write_dataset
from echo_agent.finetune.data.records import Event, Record, Sample
from tests.tiny import sounds

SECONDS = 10.0
REASONINGS = (
    "It starts early <seg>2, 4</seg> and there is a dog.",
    "A dog barks near the end.",
    "First <seg>1, 3</seg>, then <seg>7, 9</seg>: a dog.",
    "Let me hear it <seg>5, 8</seg> a dog",
)


def write_small_dataset(
    folder: Path, recordings: int = 3, questions: int = 8, reasonings: Sequence[str] = REASONINGS
) -> Path:
    """``questions`` samples to train on and four to validate, all with reasoning, on ``recordings`` recordings."""
    records: list[Record] = []
    splits: dict[str, list[Sample]] = {"train": [], "validation": []}
    (folder / "audio").mkdir(parents=True)
    for number in range(recordings + 1):
        split = "train" if number < recordings else "validation"
        name = f"audio/{number}.flac"
        soundfile.write(folder / name, sounds(SECONDS, seed=number), 16000)
        events = (Event("dog", "sound", 2.5, 3.5),)
        records.append(Record(id=f"r{number}", audio=name, duration=SECONDS, events=events, split=split))
    for number in range(questions + 4):
        split = "train" if number < questions else "validation"
        record = records[number % recordings if split == "train" else -1]
        splits[split].append(
            Sample(
                id=f"s{number}",
                audio=record.audio,
                duration=SECONDS,
                question=f"What barks, number {number}?",
                choices=("a dog", "a cat"),
                answer="a dog" if number % 3 else "a cat",
                gold_spans=((2.5, 3.5),),
                category="what",
                record=record.id,
                split=split,
                use="sft",
                reasoning=reasonings[number % len(reasonings)],
            )
        )
    about = About(name="small", description="For tests.", command="tests", seed=0)
    return write_dataset(folder, splits, records, about)


def saved(family: Family, folder: Path) -> str:
    """The family written to a folder, whose name a recipe can hold."""
    family.save(folder)
    return str(folder)
