"""EchoBench's recordings asked about in plain English: the wordings and names of the second author, or of training.

Questions are those of echo-small's lessons (``echo_agent.finetune.data.natural``) about the sounds that are known to
be in the recordings of a test set. Both hands ask the same: an idea is drawn by a seed before it is worded, so what the
wordings cost is seen question by question. A question is about *detail* where the note of a first listen, written by
perfect ears, lacks what it asks for, so that a lesson would listen again. Where somebody speaks, or something is heard
that has no name here, nothing is asked about all that is heard. Lists and summaries are left out: what is right there
is not one text.

    python benchmarks/plain_english.py BENCH OUT [--sets core,unseen] [--most 200]
    echo-agent eval OUT/core-test.jsonl --controls on,off,wrong-crop --seed 0 --model echo-small

BENCH is a folder of ``echo-agent finetune data bench``. Writes ``OUT/SET-HAND.jsonl`` and prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.finetune.data.natural.asking import Asked, ask
from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.sounds import NO_SOUND, Hand, sounds
from echo_agent.finetune.data.natural.timelines import heard
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.stages import read_rows
from echo_agent.finetune.small.listens import NOT_OF_SOUNDS_ALONE, Listener, Scene, sound_branch

SEED = 987_654
"""Of what is asked; training never draws from it."""
TOLD = ("list/all", "describe/summary")
"""Kinds whose answer is not one text."""
HANDS: tuple[Hand, ...] = ("test", "train")


@dataclass(frozen=True)
class Known:
    """A recording as it is asked about."""

    record: Record
    """With the sounds alone that have a name here."""
    scene: Scene
    """All that ears would name in it, voices too."""
    kinds: tuple[str, ...]
    """What can be asked."""


def known(record: Record) -> Known:
    """What is known of a recording, in words of people."""
    named = [event for event in record.events if event.label in sounds()]
    scene = Scene(record.duration, tuple(map(heard, named)))
    of_sounds = tuple(event for event in named if event.label not in NO_SOUND)
    alone = len(of_sounds) == len(record.events)
    kinds = [kind for kind in MAKERS if kind not in TOLD and (alone or kind not in NOT_OF_SOUNDS_ALONE)]
    return Known(record.model_copy(update={"events": of_sounds}), scene, tuple(kinds))


def row(listener: Listener, about: Known, audio: Path, asked: Asked, name: str) -> dict[str, Any]:
    """The row of a question as ``echo-agent eval`` reads it."""
    record = about.record
    at_once = len(sound_branch(listener, record, about.scene, asked)) == 2
    gold = [[record.events[i].onset, record.events[i].offset] for i in asked.gold]
    given = {"id": name, "audio": str(audio), "duration": record.duration, "question": asked.question}
    given |= {"family": asked.kind.partition("/")[0], "gold_spans": gold}
    given |= {"difficulty": "plain" if at_once else "detail"}
    if asked.choices:
        return {**given, "choices": asked.choices, "answer": asked.answer}
    return {**given, "answers": asked.accepted}


def questions(
    listener: Listener, records: Sequence[Record], bench: Path, most: int
) -> dict[Hand, list[dict[str, Any]]]:
    """Up to ``most`` questions in each hand, of kinds in turn, one more about each recording in every round."""
    rows: dict[Hand, list[dict[str, Any]]] = {hand: [] for hand in HANDS}
    times = dict.fromkeys(MAKERS, 0)
    every = [known(record) for record in records]
    done: set[str] = set()
    while len(done) < most:
        before = len(done)
        for number, about in enumerate(every):
            for kind in sorted(about.kinds, key=lambda kind: (times[kind], kind)):
                name = f"{about.record.id}-{kind}"
                seed = [SEED, number, list(MAKERS).index(kind)]
                both = {hand: ask(about.record, kind, hand, np.random.default_rng(seed)) for hand in HANDS}
                if name in done or None in both.values():
                    continue
                audio = (bench / about.record.audio).resolve()
                for hand, asked in both.items():
                    assert asked is not None
                    rows[hand].append(row(listener, about, audio, asked, name))
                times[kind] += 1
                done.add(name)
                break
            if len(done) == most:
                break
        if len(done) == before:  # there is no more to ask
            break
    return rows


def main() -> None:
    """Ask, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bench", type=Path, help="a folder of `echo-agent finetune data bench`")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", default="core,unseen")
    parser.add_argument("--most", type=int, default=200, help="questions of each set")
    args = parser.parse_args()
    family = load_family("echo-small", "cpu")
    assert isinstance(family, SmallFamily)
    listener = Listener(family.tokenizer, family.config.blank_token_id)
    args.out.mkdir(parents=True, exist_ok=True)
    said: dict[str, Any] = {"benchmark": "plain_english"}
    for name in args.sets.split(","):
        records = [Record.model_validate(found) for found in read_rows(args.bench / f"{name}.parquet")]
        for hand, rows in questions(listener, records, args.bench, args.most).items():
            lines = "".join(json.dumps(one) + "\n" for one in rows)
            (args.out / f"{name}-{hand}.jsonl").write_text(lines, encoding="utf-8")
            hard = sum(one["difficulty"] == "detail" for one in rows)
            said[f"{name}-{hand}"] = {"questions": len(rows), "detail": hard}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
