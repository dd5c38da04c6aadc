"""A dataset of questions in plain English: what ``small-sft`` and ``small-rl`` train echo-small on.

The recordings are the scenes of an EchoBench, training and validation; they are asked about in the wordings of
training. The reasoning of a question is that of echo-small's lessons (:mod:`echo_agent.finetune.small.listens`): it
listens again where the first listen would not tell enough to perfect ears. Questions follow from the seed and the
number of the recording::

    python -m echo_agent.finetune.small.plain_dataset BENCH DATASET

BENCH is a folder of ``echo-agent finetune data bench``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from echo_agent.errors import DataError
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import write_dataset
from echo_agent.finetune.data.natural.asking import Asked
from echo_agent.finetune.data.pipeline import gather
from echo_agent.finetune.data.records import Record, Sample, Split
from echo_agent.finetune.data.stages import read_rows
from echo_agent.finetune.small.listens import Listener, Scene, asked_about
from echo_agent.finetune.small.named_sounds import NamedSounds
from echo_agent.finetune.small.packing import Stretch
from echo_agent.shipped import SHIPPED, SMALL
from echo_agent.small.notes import NOTHING, second
from echo_agent.small.processing import ANSWER, AUDIO, load_tokenizer
from echo_agent.terminal import say

SPLITS: tuple[Split, ...] = ("train", "validation")
QUESTIONS = 8
"""Questions about a recording, at most."""


def embedded_listener() -> Listener:
    """Writes as the echo-small that comes with the package."""
    tokenizer = load_tokenizer(SHIPPED[SMALL])
    blank = tokenizer.convert_tokens_to_ids(AUDIO)
    assert isinstance(blank, int)
    return Listener(tokenizer, blank)


def sample(
    listener: Listener, about: NamedSounds, asked: Asked, branch: Sequence[Stretch], ident: str, split: Split
) -> Sample:
    """A question about a recording as a row of a dataset; where no lesson finds its answer, ``branch`` is empty."""
    record, thought = about.record, reasoning(listener, about, branch)
    spellings = tuple(dict.fromkeys((asked.answer, *asked.accepted)))
    return Sample(
        id=ident,
        audio=record.audio,
        duration=record.duration,
        question=asked.question,
        choices=asked.choices,
        answer=asked.answer if asked.choices else None,
        answers=None if asked.choices else spellings,
        gold_spans=tuple((record.events[i].onset, record.events[i].offset) for i in asked.gold),
        category=asked.kind.partition("/")[0],
        difficulty="plain" if len(branch) == 2 else "detail",
        record=record.id,
        corpus=record.corpus,
        group=record.group or record.id,
        split=split,
        use="sft" if thought else "rl",
        reasoning=thought,
        phrasing=asked.kind,
        licence=record.licence,
        composer="grammar",
    )


def reasoning(listener: Listener, about: NamedSounds, branch: Sequence[Stretch]) -> str:
    """What a lesson writes before its answer, or the sounds where that is nothing: a dataset's thoughts are not empty.

    Where the first listen does not tell them all there is none, and SFT leaves the sample out.
    """
    written = listener.text([token for stretch in branch if stretch.written for token in stretch.ids])
    thought = written.partition(ANSWER)[0]
    if thought or not branch or not listener.detail(about.events):
        return thought
    return f"{', '.join(f'{one.name} {second(one.onset)}' for one in about.events) or NOTHING}."


def samples(listener: Listener, records: Sequence[Record], split: Split, seed: int) -> list[Sample]:
    """Up to :data:`QUESTIONS` questions about each recording, each of another kind."""
    found: list[Sample] = []
    for number, record in enumerate(records):
        about = NamedSounds.of(record)
        scene = Scene(record.duration, about.events)
        rng = np.random.default_rng([seed, SPLITS.index(split), number])
        asked = asked_about(listener, rng, QUESTIONS, about.record, scene, about.without)
        found += [
            sample(listener, about, one, branch, f"{record.id}-{one.kind}", split) for one, branch in asked
        ]
    return found


def build(bench: Path, out: Path, seed: int, command: str) -> dict[str, int]:
    """Ask about the recordings of a bench and write the dataset; returns the number of questions of each split.

    Raises:
        DataError: There is no bench, or the disk is full.
    """
    listener = embedded_listener()
    records: list[Record] = []
    splits: dict[str, list[Sample]] = {}
    for split in SPLITS:
        path = bench / f"{split}.parquet"
        if not path.exists():
            raise DataError(f"{bench} has no {path.name}: give a folder of `echo-agent finetune data bench`")
        rows = [Record.model_validate(row) for row in read_rows(path)]
        there = [row.model_copy(update={"audio": str((bench / row.audio).resolve())}) for row in rows]
        gathered = gather(there, out)
        splits[split] = samples(listener, gathered, split, seed)
        records += gathered
    about = About(
        name=out.resolve().name,
        description="Mixed scenes with exact ground truth, asked about in plain English, for echo-small.",
        command=command,
        seed=seed,
    )
    write_dataset(out, splits, records, about)
    return {split: len(rows) for split, rows in splits.items()}


def main() -> None:
    """Ask, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bench", type=Path, help="a folder of `echo-agent finetune data bench`")
    parser.add_argument("dataset", type=Path, help="where the dataset is written")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    command = shlex.join(["python", "-m", "echo_agent.finetune.small.plain_dataset", *sys.argv[1:]])
    try:
        counts = build(args.bench, args.dataset, args.seed, command)
    except DataError as error:
        sys.exit(f"plain_dataset: {error}")
    say(f"{args.dataset}: {', '.join(f'{count} of {split}' for split, count in counts.items())}")


if __name__ == "__main__":
    main()
