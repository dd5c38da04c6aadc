"""Lessons about scenes that real ears have heard: what stands in each listen is what echo-small's own ears write there.

Text first teaches on listens as perfect ears would write them. Here scenes are mixed from a sound bank and heard by a
whole echo-small, so that the decoder meets what ears get wrong: a sound under another name, a second off, not at all.
When to listen again and what to answer follow from what is in the scene. Lessons are kept in files of some scenes
each; a run that was stopped goes on after the last file::

    python -m echo_agent.finetune.small.heard_lessons echo-small BANK LESSONS --scenes 400

``text_first --heard LESSONS`` learns from them beside its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from echo_agent.audio.recording import Recording
from echo_agent.disk import GO_ON, whole, writing
from echo_agent.errors import DataError
from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.natural.sounds import sounds
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.scenes import events as mixed
from echo_agent.finetune.data.scenes.mixer import SceneSettings, mix
from echo_agent.finetune.data.scenes.render import draw_duration
from echo_agent.finetune.small.listens import Listener, Scene, asked_about
from echo_agent.finetune.small.named_sounds import NamedSounds
from echo_agent.finetune.small.packing import Pack, pack_branches
from echo_agent.locks import locked_folder
from echo_agent.terminal import say

PART = 10
"""Scenes of a file."""
QUESTIONS = 8
"""Questions about a scene, at most."""
SETTINGS = SceneSettings(duration=(10.0, 90.0))


@dataclass(frozen=True, kw_only=True)
class HeardScene(Scene):
    """A scene whose listens are written by a model's ears."""

    family: SmallFamily
    recording: Recording

    def listen(self, listener: Listener, start: float, end: float) -> list[int]:
        """A listen to a span, between its markers."""
        ref = self.recording.ref(start, min(end, self.duration))
        (features,) = self.family.frozen_features([(ref, self.recording.crop(ref, self.family.sample_rate))])
        return listener.between(features["ids"].tolist())


def lesson(family: SmallFamily, made: mixed.Scene, labels: Sequence[str], rng: np.random.Generator) -> Pack:
    """A scene with questions about its sounds, answered at once or after listening again."""
    recording = Recording.from_array(made.samples, family.sample_rate)
    record = Record(
        id="mixed", audio="none", duration=recording.duration, events=made.events, labels=tuple(labels)
    )
    known = NamedSounds.of(record)
    scene = HeardScene(recording.duration, known.events, family=family, recording=recording)
    listener = Listener(family.tokenizer, family.config.blank_token_id)
    asked = asked_about(listener, rng, QUESTIONS, known.record, scene, known.without)
    branches = [branch for _, branch in asked]
    return pack_branches(listener.opened(scene.listen(listener, 0.0, scene.duration)), branches)


def hear(family: SmallFamily, bank: SoundBank, folder: Path, count: int, seed: int) -> list[Path]:
    """Write the lessons of ``count`` scenes; files that are there are not made again.

    Raises:
        DataError: The folder holds lessons that another model heard, or of other scenes.
    """
    _keep_apart(folder, family, bank, seed)
    labels = sorted(label for label in bank.sounds if label in sounds())
    paths: list[Path] = []
    for first in range(0, count, PART):
        path = folder / f"{first:06d}.jsonl"
        paths.append(path)
        last = min(first + PART, count)
        if path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= last - first:
            continue
        packs: list[Pack] = []
        for number in range(first, last):
            rng = np.random.default_rng([seed, number])
            made = mix(bank, rng, draw_duration(rng, SETTINGS), SETTINGS)
            packs.append(lesson(family, made, labels, rng))
        lines = "".join(json.dumps(asdict(pack)) + "\n" for pack in packs)
        with writing(path, GO_ON), whole(path) as aside:
            aside.write_text(lines, encoding="utf-8")
        say(f"heard {last} of {count} scenes", flush=True)
    return paths


def _keep_apart(folder: Path, family: SmallFamily, bank: SoundBank, seed: int) -> None:
    """Note what lessons depend on, or hold it against what is noted."""
    clips = sorted(
        f"{clip.label} {clip.source} {len(clip.samples)}" for clips in bank.sounds.values() for clip in clips
    )
    about = {
        "ears": family.encoder_fingerprint(),
        "bank": hashlib.sha256("\n".join(clips).encode()).hexdigest(),
        "seed": seed,
        "scenes": SETTINGS.model_dump(mode="json"),
        "part": PART,
        "questions": QUESTIONS,
    }
    noted = folder / "settings.json"
    if noted.exists() and json.loads(noted.read_text(encoding="utf-8")) != about:
        raise DataError(f"{folder} holds lessons with other settings (settings.json): give another folder")
    noted.write_text(json.dumps(about, indent=1), encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    """The files of lessons; raises DataError where there are none."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise DataError(f"{folder} holds no lessons of echo_agent.finetune.small.heard_lessons")
    return paths


def digest(folder: Path) -> str:
    """A hash of all lessons of a folder; raises DataError where there are none."""
    found = hashlib.sha256()
    for path in _files(folder):
        found.update(path.read_bytes())
    return found.hexdigest()


def read(folder: Path) -> list[Pack]:
    """The lessons of a folder.

    Raises:
        DataError: There are none, or a file is damaged.
    """
    packs: list[Pack] = []
    for path in _files(folder):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                packs.append(Pack(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{path} is damaged ({error}): remove it and hear its scenes again"
                ) from error
    return packs


def main() -> None:
    """Hear, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help='whose ears hear: "echo-small", or a folder')
    parser.add_argument("bank", type=Path, help="a folder of `echo-agent finetune data bank`")
    parser.add_argument("lessons", type=Path, help="where they are kept")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with locked_folder(args.lessons):
        family = load_family(args.model, "cpu")
        assert isinstance(family, SmallFamily)
        hear(family, SoundBank.load(args.bank, ("train",)), args.lessons, args.scenes, args.seed)


if __name__ == "__main__":
    main()
