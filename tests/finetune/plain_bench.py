"""A bench of two sets of mixed scenes, in small, and the dataset of questions in plain English about them."""

from __future__ import annotations

from pathlib import Path

from echo_agent.finetune.data.scenes.mixer import SceneSettings
from echo_agent.finetune.data.scenes.render import mix_scenes
from echo_agent.finetune.small.plain_dataset import build
from tests.finetune.small_bank import write_bank

SCENES = {"train": 4, "validation": 2}
SETTINGS = SceneSettings(duration=(12.0, 30.0))


def write_bench(folder: Path) -> Path:
    """Four scenes to train on and two to validate, by the same names as in EchoBench."""
    bank = write_bank(folder / "bank", {"train": ("sound",), "val": ("sound",)})
    for seed, (name, count) in enumerate(SCENES.items()):
        parts = ["val" if name == "validation" else name]
        mix_scenes(bank, folder, SETTINGS, count=count, seed=seed, splits=parts, split=name, name=name)
    return folder


def write_plain_dataset(folder: Path) -> Path:
    """Questions about these scenes."""
    build(write_bench(folder / "bench"), folder / "dataset", 0, "a command")
    return folder / "dataset"
