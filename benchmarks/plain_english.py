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
from pathlib import Path
from typing import Any

import numpy as np

from echo_agent.finetune.data.natural.asking import Asked, ask
from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.sounds import Hand
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.stages import read_rows
from echo_agent.finetune.small.listens import Listener, Scene, sound_branch
from echo_agent.finetune.small.named_sounds import NamedSounds
from echo_agent.finetune.small.plain_dataset import embedded_listener, sample
from echo_agent.rows import Row

SEED = 987_654
"""Of what is asked; training never draws from it."""
TOLD = ("list/all", "describe/summary")
"""Kinds whose answer is not one text."""
HANDS: tuple[Hand, ...] = ("test", "train")


def kinds_of(about: NamedSounds) -> list[str]:
    """Kinds of questions that can be asked about a recording."""
    return [kind for kind in MAKERS if kind not in TOLD and kind not in about.without]


def row(listener: Listener, about: NamedSounds, audio: Path, asked: Asked, name: str) -> dict[str, Any]:
    """The row of a question as ``echo-agent eval`` reads it."""
    branch = sound_branch(listener, about.record, Scene(about.record.duration, about.events), asked)
    made = sample(listener, about, asked, branch, name, "test").model_copy(update={"audio": str(audio)})
    return made.model_dump(mode="json", include=set(Row.model_fields), exclude_none=True)


def in_both_hands(about: NamedSounds, kind: str, number: int) -> dict[Hand, Asked] | None:
    """The same question of a kind about recording ``number`` in each hand; None where it offers none."""
    seed = [SEED, number, list(MAKERS).index(kind)]
    both = {hand: ask(about.record, kind, hand, np.random.default_rng(seed)) for hand in HANDS}
    found = {hand: asked for hand, asked in both.items() if asked is not None}
    return found if len(found) == len(HANDS) else None


def questions(
    listener: Listener, records: Sequence[Record], bench: Path, most: int
) -> dict[Hand, list[dict[str, Any]]]:
    """Up to ``most`` questions in each hand, of kinds in turn, one more about each recording in every round."""
    rows: dict[Hand, list[dict[str, Any]]] = {hand: [] for hand in HANDS}
    times = dict.fromkeys(MAKERS, 0)
    waiting = {number: (about, kinds_of(about)) for number, about in enumerate(map(NamedSounds.of, records))}
    while waiting and len(rows[HANDS[0]]) < most:
        for number, (about, left) in list(waiting.items()):
            for kind in sorted(left, key=lambda kind: (times[kind], kind)):
                left.remove(kind)
                if both := in_both_hands(about, kind, number):
                    break
            else:  # there is no more to ask about it
                del waiting[number]
                continue
            times[kind] += 1
            audio, name = (bench / about.record.audio).resolve(), f"{about.record.id}-{kind}"
            for hand, asked in both.items():
                rows[hand].append(row(listener, about, audio, asked, name))
            if len(rows[HANDS[0]]) == most:
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
    listener = embedded_listener()
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
