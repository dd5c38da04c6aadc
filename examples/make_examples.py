"""Makes the recordings and questions in this folder: the first twelve scenes of a fixed seed, not selected.

    python examples/make_examples.py BANK [OUT]

Only clips that echo-nano was never trained on and whose licence allows it: CC0 sounds, notes rendered from the FluidR3
soundfont (MIT), and digits and words spoken by flite's voice ``rms``. Writes ``NN.flac``, ``questions.jsonl`` and
``CREDITS.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from echo_agent.finetune.data.bank.reader import SoundBank, read_clips
from echo_agent.finetune.data.questions.difficulty import difficulty
from echo_agent.finetune.data.scenes.augment import RATE
from echo_agent.finetune.nano.questions import CATEGORIES, ask
from echo_agent.finetune.nano.scenes import make_scene
from echo_agent.finetune.nano.testset import taught

RECORDINGS = 12
CLOSE = ("digit_sequence", "word", "digit", "count")
OTHERS = tuple(category for category in CATEGORIES if category not in CLOSE)
"""The first question of a recording takes its category from the former in turn, the second from these."""


def main() -> None:
    """Mix, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bank", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    options = parser.parse_args()
    clips = [
        clip
        for clip in read_clips(options.bank, ["test"])
        if clip.licence == "CC0-1.0" or clip.kind == "note" or clip.voice == "rms"
    ]
    bank = taught(SoundBank(clips))
    rng = np.random.default_rng(2026)
    rows, sources = [], set()
    number = 0
    while number < RECORDINGS:
        duration = float(np.round(20 + 70 * rng.beta(1.2, 1.5), 1))
        scene = make_scene(bank, rng, duration, speech=0.35)
        first = ask(scene.events, rng, CLOSE[number % len(CLOSE)], open_share=0.0)
        second = ask(scene.events, rng, OTHERS[number % len(OTHERS)])
        if first is None or second is None:
            continue
        number += 1
        name = f"{number:02d}.flac"
        soundfile.write(options.out / name, scene.samples, RATE)
        sources |= {source for event in scene.events for source in event.sources}
        for letter, question in zip("ab", (first, second), strict=True):
            rows.append(
                {
                    "id": f"{number:02d}{letter}",
                    "audio": name,
                    "duration": duration,
                    "question": question.text,
                    "choices": question.choices,
                    "answer": question.answer,
                    "gold_spans": question.gold_spans,
                    "family": question.category,
                    "difficulty": difficulty(question.category, duration),
                }
            )
    (options.out / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    used = sorted({(c.package, c.licence, c.source) for c in clips if c.source in sources})
    lines = [f"| {source} | {licence} |" for _, licence, source in used]
    text = "# What the recordings are made of\n\nMixed by `make_examples.py` from:\n\n| source | licence |\n|---|---|\n"
    (options.out / "CREDITS.md").write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
