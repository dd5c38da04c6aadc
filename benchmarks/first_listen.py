"""The third gate of echo-small: what a first listen loses, by the length of the recording.

A listen has 48 tokens for the sounds in it, whatever its length, so that long ones tell less of each. Here the notes
are read by a program, no decoder is asked: of events that are known to be in EchoBench's recordings, does the note of
the first listen tell what the note of a closer one does (the event, with a second on each side)? Four things are read:
that it is *named*, *when* it begins (within a second), its *length* (within a second), and its *strokes*. What is wrong
in a closer listen the ears have got wrong; the difference is what the budget loses, and listening again can win.

    python benchmarks/first_listen.py BENCH [--scenes 60] [--out benchmarks/results/first-listen.json]

BENCH is a folder of ``echo-agent finetune data bench``; its sets *core* and *long* are read. Per cent right, closer and
first, for recordings of up to so many seconds; events are those whose names the ears were taught. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.finetune.data.natural.sounds import sounds
from echo_agent.finetune.data.records import Event, Record
from echo_agent.finetune.data.stages import read_rows
from echo_agent.finetune.small.named_sounds import NamedSounds
from echo_agent.small.notes import DETAILS, Heard, read, second

SEED = 987_654
AROUND = 1.0
"""Seconds on each side of an event in a closer listen."""
TOLERANCE = 1.0
PER_RECORDING = 3
"""Events of a recording that are listened to closely."""
LENGTHS = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds of the longest recording of each group."""
_EVERYTHING = re.compile(r" \d+s( |$)")


@dataclass(frozen=True)
class Told:
    """An event of a note, and how much is told of it."""

    heard: Heard
    detail: int
    """As for ``notes.told``."""


def told_in(note: str) -> list[Told]:
    """The events of a note."""
    found: list[Told] = []
    for line in note.splitlines():
        for heard in read(line):
            span = "-" in line.split()[0]
            found.append(Told(heard, DETAILS if _EVERYTHING.search(line) else 2 if span else 1))
    return found


def reading(event: Event, note: Sequence[Told]) -> dict[str, bool]:
    """Which of the things that are asked of an event a note tells rightly; strokes only where there are several."""
    name = sounds()[event.label].plain
    named = [told for told in note if told.heard.name == name]
    near = [told for told in named if abs(told.heard.onset - second(event.onset)) <= TOLERANCE]
    one = min(near, key=lambda told: abs(told.heard.onset - event.onset), default=None)
    seconds = second(event.offset) - second(event.onset)
    right = {
        "named": bool(named),
        "when": one is not None,
        "length": one is not None and one.detail > 1 and abs(one.heard.seconds - seconds) <= TOLERANCE,
    }
    if event.hits > 1:
        right["strokes"] = one is not None and one.detail == DETAILS and one.heard.hits == event.hits
    return right


def note_of(family: SmallFamily, ref: AudioRef, samples: np.ndarray) -> list[Told]:
    """What the places for sounds of a listen hold."""
    config = family.config
    (features,) = family.frozen_features([(ref, samples)])
    ids = [i for i in features["ids"].tolist()[: config.sound_tokens] if i != config.blank_token_id]
    return told_in(family.detokenize(ids))


def group(duration: float) -> float:
    """The group of lengths that a recording belongs to."""
    return next((length for length in LENGTHS if duration <= length), LENGTHS[-1])


class Score:
    """How often what is asked was right, by length and by what is asked."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._asked: dict[float, Counter[str]] = defaultdict(Counter)
        self._first: dict[float, Counter[str]] = defaultdict(Counter)
        self._closer: dict[float, Counter[str]] = defaultdict(Counter)

    def add(self, duration: float, first: Mapping[str, bool], closer: Mapping[str, bool]) -> None:
        """Count one event."""
        length = group(duration)
        self._asked[length].update(first.keys())
        self._first[length].update(key for key, right in first.items() if right)
        self._closer[length].update(key for key, right in closer.items() if right)

    def table(self) -> dict[str, dict[str, dict[str, float]]]:
        """Events, and per cent right in a first and a closer listen, by length."""
        return {
            f"{length:g}": {
                key: {
                    "events": count,
                    "closer": round(100 * self._closer[length][key] / count, 1),
                    "first": round(100 * self._first[length][key] / count, 1),
                }
                for key, count in sorted(asked.items())
            }
            for length, asked in sorted(self._asked.items())
        }


def measure(family: SmallFamily, records: Sequence[Record], bench: Path) -> Score:
    """Listen to recordings, once to the whole and once to some events each."""
    taught = {
        name for name, is_taught in zip(family.config.sounds, family.config.taught, strict=True) if is_taught
    }
    score = Score()
    for number, record in enumerate(records):
        recording = Recording.open(bench / record.audio)
        rng = np.random.default_rng([SEED, number])
        known = NamedSounds.of(record).record.events
        events = [event for event in known if sounds()[event.label].plain in taught]
        if not events:
            continue
        whole = recording.ref()
        first = note_of(family, whole, recording.crop(whole, family.sample_rate))
        for i in rng.permutation(len(events))[:PER_RECORDING]:
            event = events[int(i)]
            start, end = max(0.0, event.onset - AROUND), min(recording.duration, event.offset + AROUND)
            ref = recording.ref(start, end)
            closer = note_of(family, ref, recording.crop(ref, family.sample_rate))
            score.add(record.duration, reading(event, first), reading(event, closer))
    return score


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bench", type=Path, help="a folder of `echo-agent finetune data bench`")
    parser.add_argument("--scenes", type=int, default=60, help="of each set, at most")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    family = load_family("echo-small", "cpu")
    assert isinstance(family, SmallFamily)
    records = [
        Record.model_validate(row)
        for name in ("core", "long")
        for row in read_rows(args.bench / f"{name}.parquet")[: args.scenes]
    ]
    result: dict[str, Any] = {"benchmark": "first_listen", "recordings": len(records)}
    result["lengths"] = measure(family, records, args.bench).table()
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
