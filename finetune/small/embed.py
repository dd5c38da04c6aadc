"""Puts an echo-small where it ships: its weights in blocks of a few bits, in the package's own folder.

    python -m echo_agent.finetune.small.embed MODEL [FOLDER]

MODEL is a folder of ``hearing``, or of a training that went on from it. How many bits each part has stands in
:data:`echo_agent.small.weights.BITS`. Prints the size of each file, and what a wheel makes of it.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.small.processing import WHISPER_WORDS
from echo_agent.small.weights import WEIGHTS
from echo_agent.terminal import say


def embed(source: Path, folder: Path = WEIGHTS) -> None:
    """Write the model of a folder in blocks."""
    family = load_family(str(source), "cpu")
    assert isinstance(family, SmallFamily)
    family.save_in_blocks(folder)
    compact(folder / "tokenizer.json")
    compact(folder / WHISPER_WORDS, reads=False)


def compact(path: Path, *, reads: bool = True) -> None:
    """Write a tokenizer's file on one line: nobody reads a quarter of a million of them.

    One that only tells what tokens say (``reads`` is False) needs no rules for how to make them.
    """
    known = json.loads(path.read_text("utf-8"))
    if not reads:
        known["model"]["merges"] = []
    path.write_text(json.dumps(known, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


def print_sizes(folder: Path) -> None:
    """A line for each file: its bytes, and those of it in a zip."""
    total = zipped = 0
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        packed = len(zlib.compress(data, 9))
        total, zipped = total + len(data), zipped + packed
        say(f"{path.name:24} {len(data) / 1e6:8.2f} MB {packed / 1e6:8.2f} MB in a wheel")
    say(f"{'all':24} {total / 1e6:8.2f} MB {zipped / 1e6:8.2f} MB in a wheel")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=WEIGHTS, help="another folder than the package's"
    )
    args = parser.parse_args()
    embed(args.model, args.folder)
    print_sizes(args.folder)
