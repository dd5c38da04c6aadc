"""The second gate of echo-small: how many events its ears find, by name and within a second of where they begin.

Scenes are mixed from clips that no head was trained on: sources of known packages (``test``) and a package that was
never used (``unseen_package``). Found is an event of the right name whose onset is within a second of the true one;
precision, recall and F1 are over all events of a split, and by class. The same is measured with a head that was trained
on Whisper's layer alone.

    python benchmarks/ears.py RUN BANK --out benchmarks/results/ears.json

RUN is a folder of ``echo_agent.finetune.small.hearing``. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from echo_agent.families.loading import load_family
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.natural.sounds import sounds
from echo_agent.finetune.data.records import Event
from echo_agent.finetune.small.hearing import (
    best_thresholds,
    divided,
    scene,
    train_head,
    without_yamnet,
)
from echo_agent.small.ears import SoundHead
from echo_agent.small.events import events
from echo_agent.small.notes import Heard

TOLERANCE = 1.0
"""Seconds between a true onset and one that is found."""
SEED = 987_654
SPEECH = {"test": "test", "unseen_package": "unseen_voice"}
"""Splits of the bank's voices that go with those of its sounds."""


def matched(true: Sequence[Event], found: Sequence[Heard]) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """How often each name was right, true and found; every event is matched at most once."""
    right, left = Counter[str](), list(found)
    names = [sounds()[event.label].plain for event in true]
    for event, name in zip(true, names, strict=True):
        near = [one for one in left if one.name == name and abs(one.onset - event.onset) <= TOLERANCE]
        if near:
            left.remove(min(near, key=lambda one: abs(one.onset - event.onset)))
            right[name] += 1
    return right, Counter(names), Counter(one.name for one in found)


def f1(right: int, true: int, found: int) -> float:
    """Per cent: the harmonic mean of precision and recall."""
    return round(200 * right / max(1, true + found), 1)


def measure(
    model: Any, bank: SoundBank, count: int, head: Any = None, thresholds: Any = 0.0
) -> dict[str, Any]:
    """F1 of a split, and by class; ``head`` stands in for the model's own and hears Whisper's layer alone."""
    right, true, found = Counter[str](), Counter[str](), Counter[str]()
    config = model.config
    for n in range(count):
        made = scene(bank, SEED, n)
        with torch.inference_mode():
            features, scores, _ = model.model.hear(torch.from_numpy(made.samples))
            if head is not None:
                learned = (head(without_yamnet(features)[None])[0] - thresholds).sigmoid()
                scores = learned * torch.tensor(config.taught)
        heard = events(scores.numpy(), made.samples, config.sounds, config.struck)
        known = [event for event in made.events if event.label in sounds()]
        for total, part in zip((right, true, found), matched(known, heard), strict=True):
            total.update(part)
    by_class = {name: f1(right[name], true[name], found[name]) for name in sorted(true)}
    return {
        "events": true.total(),
        "precision": round(100 * right.total() / max(1, found.total()), 1),
        "recall": round(100 * right.total() / max(1, true.total()), 1),
        "f1": f1(right.total(), true.total(), found.total()),
        "classes": by_class,
    }


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--scenes", type=int, default=60, help="of each split")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model: Any = load_family(str(args.run / "model"), "cpu").model
    alone = SoundHead(model.config)
    taught, held_out = divided(sorted((args.run / "scenes").glob("*.safetensors")))
    train_head(alone, taught, yamnet=False)
    thresholds = torch.tensor(best_thresholds(alone, held_out, yamnet=False))
    result: dict[str, Any] = {"scenes": args.scenes}
    for split, voices in SPEECH.items():
        bank = SoundBank.load(args.bank, (split,), (voices,))
        result[split] = measure(model, bank, args.scenes)
        result[f"{split}, without YAMNet"] = measure(model, bank, args.scenes, alone, thresholds)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    figures = {name: part["f1"] for name, part in result.items() if isinstance(part, dict)}
    print(json.dumps({"scenes": args.scenes, **figures}))


if __name__ == "__main__":
    main()
