"""Puts an echo-small where it ships: its weights in blocks of a few bits, in the package's own folder.

    python -m echo_agent.finetune.small.embed MODEL

MODEL is a folder of ``hearing``, or of a training that went on from it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.small.processing import WHISPER_WORDS
from echo_agent.small.weights import WEIGHTS


def embed(source: Path, folder: Path = WEIGHTS) -> None:
    """Write the model of a folder in blocks."""
    family = load_family(str(source), "cpu")
    assert isinstance(family, SmallFamily)
    family.save_in_blocks(folder)
    for name in ("tokenizer.json", WHISPER_WORDS):  # on one line: nobody reads a quarter of a million
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=WEIGHTS, help="another folder than the package's"
    )
    args = parser.parse_args()
    embed(args.model, args.folder)
