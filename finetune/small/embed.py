"""Puts an echo-small where it ships: its weights in blocks of four and eight bits, in the package's own folder.

    python -m echo_agent.finetune.small.embed MODEL

MODEL is a folder of ``hearing``, or of a training that went on from it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.small.weights import WEIGHTS


def embed(source: Path, folder: Path = WEIGHTS) -> None:
    """Write the model of a folder in blocks."""
    family = load_family(str(source), "cpu")
    assert isinstance(family, SmallFamily)
    family.save_in_blocks(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=WEIGHTS, help="another folder than the package's"
    )
    args = parser.parse_args()
    embed(args.model, args.folder)
