"""Trains the head of echo-small's ears: which sounds are heard in each half second of mixed scenes.

Scenes are mixed from a sound bank and heard once by both frozen networks; what these say is kept on disk, so that the
head, which is small, is trained in minutes. A run that was stopped goes on after the last part that it heard::

    python -m echo_agent.finetune.small.hearing MODEL BANK RUN --scenes 1500

MODEL is a folder of ``assemble``; ``RUN/model`` is that model with a head that was taught the sounds of the bank.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from echo_agent.disk import GO_ON, whole, writing
from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.natural.sounds import sounds
from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.scenes.events import Scene
from echo_agent.finetune.data.scenes.mixer import SceneSettings, mix
from echo_agent.locks import locked_folder
from echo_agent.small.ears import STEP_SECONDS, SoundHead
from echo_agent.small.yamnet import CLASSES, WIDTH
from echo_agent.terminal import say

SECONDS = 30.0
"""Length of a scene: one window of Whisper's."""
PART = 20
"""Scenes of a file."""
SETTINGS = SceneSettings(
    duration=(SECONDS, SECONDS), density=0.25, fewest=2, level_db=(-34.0, -10.0), background_db=(-70.0, -44.0)
)
"""Loud and soft ones, a few at a time."""
COVERED = 0.3
"""Share of a step that an event must fill to be heard in it."""
FALSE_ALARMS = 1e-4
"""Share of steps in which a name that the head was not taught may be heard where it is not."""
LEAST_LOGIT = -1.0
"""A name that YAMNet finds less likely than this is not heard, however rare it is."""
BATCH, EPOCHS, RATE = 16, 20, 2e-3


@dataclass(frozen=True)
class Part:
    """Some scenes as the frozen networks hear them."""

    features: Tensor
    """``[scenes, steps, width]``, float16."""
    targets: Tensor
    """1 where a sound is heard ``[scenes, steps, sounds]``, bytes."""


def targets(events: Sequence[Event], steps: int, names: Sequence[str]) -> Tensor:
    """1 where a sound is heard ``[steps, sounds]``; sounds that have no name here are left out."""
    places = {name: place for place, name in enumerate(names)}
    heard = torch.zeros(steps, len(names), dtype=torch.uint8)
    for event in events:
        place = places.get(sounds()[event.label].plain) if event.label in sounds() else None
        if place is None:
            continue
        for step in range(int(event.onset / STEP_SECONDS), min(steps, int(event.offset / STEP_SECONDS) + 1)):
            inside = min(event.offset, (step + 1) * STEP_SECONDS) - max(event.onset, step * STEP_SECONDS)
            if inside >= COVERED * min(STEP_SECONDS, event.offset - event.onset):
                heard[step, place] = 1
    return heard


def scene(bank: SoundBank, seed: int, number: int) -> Scene:
    """A scene: a function of the bank, the seed and its number."""
    return mix(bank, np.random.default_rng([seed, number]), SECONDS, SETTINGS)


@torch.no_grad()
def hear(family: SmallFamily, made: Scene) -> tuple[Tensor, Tensor]:
    """Features and targets of a scene."""
    features, _, _ = family.model.model.hear(torch.from_numpy(made.samples).to(family.device))
    return features.half().cpu(), targets(made.events, len(features), family.config.sounds)


def hear_parts(family: SmallFamily, bank: SoundBank, folder: Path, count: int, seed: int) -> list[Path]:
    """Hear ``count`` scenes; files that are there are not made again."""
    paths: list[Path] = []
    for first in range(0, count, PART):
        path = folder / f"{first:06d}.safetensors"
        paths.append(path)
        if path.exists():
            continue
        heard = [hear(family, scene(bank, seed, first + n)) for n in range(PART)]
        tensors = {
            "features": torch.stack([features for features, _ in heard]),
            "targets": torch.stack([target for _, target in heard]),
        }
        with writing(path, GO_ON), whole(path) as partial:
            save_file(tensors, partial)
        say(f"heard {first + PART} of {count} scenes", flush=True)
    return paths


def read_part(path: Path) -> Part:
    """A file of :func:`hear_parts`."""
    tensors = load_file(path)
    return Part(tensors["features"], tensors["targets"])


def divided(paths: Sequence[Path]) -> tuple[Sequence[Path], Sequence[Path]]:
    """Parts that a head is taught on, and the last tenth, on which its thresholds are found."""
    last = max(1, len(paths) // 10)
    return paths[:-last], paths[-last:]


def without_yamnet(features: Tensor) -> Tensor:
    """Features of which YAMNet's are nothing: what Whisper's layer alone is worth."""
    kept = features.clone()
    kept[..., : WIDTH + CLASSES] = 0
    return kept


def train_head(head: SoundHead, paths: Sequence[Path], *, yamnet: bool = True, seed: int = 0) -> list[float]:
    """Train a head in place on parts; the mean loss of each epoch.

    Features are dropped for a whole scene at random, so that the head relies on no single one.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    parts = [read_part(path) for path in paths]
    features = torch.cat([part.features for part in parts])
    heard = torch.cat([part.targets for part in parts])
    steps = EPOCHS * max(1, len(features) // BATCH)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=max(2, steps), pct_start=0.1)
    losses: list[float] = []
    head.train().requires_grad_(True)  # a family's own is frozen
    for _ in range(EPOCHS):
        total = 0.0
        batches = torch.randperm(len(features), generator=generator)[: len(features) // BATCH * BATCH].split(
            BATCH
        )
        for rows in batches:
            x = features[rows].float()
            x = x if yamnet else without_yamnet(x)
            x = x * (torch.rand(len(rows), 1, x.shape[2], generator=generator) > 0.2)
            target = heard[rows].float()
            loss = nn.functional.binary_cross_entropy_with_logits(head(x), target, weight=1.0 + 3.0 * target)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        losses.append(total / max(1, len(batches)))
    head.eval().requires_grad_(False)
    return losses


@torch.no_grad()
def false_alarms(family: SmallFamily, paths: Sequence[Path]) -> list[float]:
    """YAMNet's logit that each name passes in one of ten thousand steps of scenes in which no such sound is.

    Scenes hold sounds of the bank alone, so what YAMNet says of all other names in them is a false alarm.
    """
    ears: Any = family.model.model.ears
    named = torch.cat([ears.named(scene.float()) for path in paths for scene in read_part(path).features])
    return [max(LEAST_LOGIT, value) for value in torch.quantile(named, 1 - FALSE_ALARMS, dim=0).tolist()]


@torch.no_grad()
def best_thresholds(head: SoundHead, paths: Sequence[Path], *, yamnet: bool = True) -> list[float]:
    """The head's logit for each sound at which the F1 of its steps is highest; 0 for sounds that are nowhere."""
    parts = [read_part(path) for path in paths]
    inputs = (part.features if yamnet else without_yamnet(part.features) for part in parts)
    logits = torch.cat([head(features.float()).flatten(0, 1) for features in inputs])
    heard = torch.cat([part.targets.flatten(0, 1) for part in parts]).bool()
    there = heard.sum(0)
    tried = torch.linspace(-3.0, 3.0, 49)
    f1 = torch.stack(
        [2 * ((logits > t) & heard).sum(0) / ((logits > t).sum(0) + there).clamp(min=1) for t in tried]
    )
    return torch.where(there > 0, tried[f1.argmax(0)], 0.0).tolist()


def teach(family: SmallFamily, bank: SoundBank, paths: Sequence[Path], held_out: Sequence[Path]) -> None:
    """Note which sounds the bank has: these the head names from now on, and YAMNet the others.

    Thresholds are those of false alarms in ``paths``, and for the head those that are best in ``held_out``.
    """
    heard = {sounds()[label].plain for label in (*bank.sounds, "voice") if label in sounds()}
    family.config.taught = [name in heard for name in family.config.sounds]
    head = family.model.model.ears.head
    given, learned = false_alarms(family, paths), best_thresholds(head, held_out)
    family.config.thresholds = [
        own if taught else other
        for taught, own, other in zip(family.config.taught, learned, given, strict=True)
    ]


def main() -> None:
    """Hear, train, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="a folder of assemble")
    parser.add_argument("bank", type=Path, help="a folder of `echo-agent finetune data bank`")
    parser.add_argument("run", type=Path, help="where the run is kept")
    parser.add_argument("--scenes", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with locked_folder(args.run):
        family = load_family(str(args.model))
        assert isinstance(family, SmallFamily)
        bank = SoundBank.load(args.bank, ("train",))
        paths = hear_parts(family, bank, args.run / "scenes", args.scenes, args.seed)
        taught, held_out = divided(paths)
        losses = train_head(family.model.model.ears.head, taught, seed=args.seed)
        say(f"loss {losses[0]:.4f} to {losses[-1]:.4f}")
        teach(family, bank, paths, held_out)
        family.save(args.run / "model")


if __name__ == "__main__":
    main()
