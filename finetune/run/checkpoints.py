"""Checkpoints that can be trusted: each has a manifest, written when all of it is on the disk, and is checked by it.

A process may be killed while it saves, a disk may be full, a power cut may leave files of no bytes. So a checkpoint
counts only once ``manifest.json`` names its files with their sizes and SHA-256; older checkpoints are removed after
that, never before. A run is resumed from the last checkpoint that is whole, and what is wrong with later ones is said.

Checkpoints of older versions have no manifest: of these the trainer's own files are looked at. Where an earlier one has
a manifest, one without is not of an older version, but was never whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from echo_agent.finetune.policy import CARD, follow_umask, name_base

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
"""What the trainer writes last."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
OPTIMISER = ("optimizer.pt", "optimizer.bin", "latest")
"""The optimiser's state; ``latest`` is DeepSpeed's, which keeps it in a folder, as FSDP does (``optimizer_*``)."""


_RANDOM = re.compile(r"rng_state(_\d+)?\.pth")
"""Names of the files of random states: one for each process where several trained together."""


@dataclass(frozen=True)
class Found:
    """What a run can be resumed from."""

    whole: Path | None
    """The last checkpoint that is whole."""
    faults: tuple[str, ...]
    """What is wrong with later ones, a line each."""
    lost: bool
    """Whether one of those had once been whole, and is not just the rest of a save that was broken off."""

    @property
    def step(self) -> int:
        """Steps that are done."""
        return step_of(self.whole) if self.whole else 0


def step_of(checkpoint: Path) -> int:
    """The optimiser step that a checkpoint was taken after."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, whole or not, latest first."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def last_whole(folder: Path) -> Found:
    """Look for the last checkpoint that is whole. What is not is left where it is."""
    faults: list[str] = []
    lost = False
    found = checkpoints_in(folder)
    sealed = [step_of(path) for path in found if (path / MANIFEST).exists()]
    for checkpoint in found:
        fault = fault_of(checkpoint)
        if not (checkpoint / MANIFEST).exists() and sealed and step_of(checkpoint) > sealed[-1]:
            fault = f"{MANIFEST} is missing: saving was broken off"
        if not fault:
            return Found(checkpoint, tuple(faults), lost)
        lost = lost or (checkpoint / MANIFEST).exists() or (checkpoint / STATE).exists()
        faults.append(f"{checkpoint.name} is damaged ({fault})")
    return Found(None, tuple(faults), lost)


def fault_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, in words; empty where nothing is."""
    try:
        if (checkpoint / MANIFEST).exists():
            return _differs(checkpoint)
        return _looks_damaged(checkpoint)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def processes_of(checkpoint: Path) -> int:
    """How many processes trained together when a checkpoint was taken."""
    return sum(bool(_RANDOM.fullmatch(path.name)) for path in checkpoint.iterdir())


def seal(checkpoint: Path) -> None:
    """Write the manifest of a checkpoint once all its files are on the disk.

    Raises:
        OSError: The disk is full or broken.
    """
    files = {str(path.relative_to(checkpoint)): _described(path) for path in _files(checkpoint)}
    partial = checkpoint / f"{MANIFEST}.partial"
    partial.write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")
    _to_disk(partial)
    partial.replace(checkpoint / MANIFEST)
    if os.name == "posix":
        _to_disk(checkpoint)


class CheckpointKeeper(TrainerCallback):
    """Seals each checkpoint that a trainer has saved, then removes those that are too many.

    Args:
        family_name: Name of the model that adapters belong to, as in the recipe.
        keep: How many checkpoints stay.
    """

    def __init__(self, family_name: str, keep: int) -> None:
        self._family_name, self._keep = family_name, keep

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Seal what was saved, once every process has written its part."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        checkpoint = folder / f"checkpoint-{state.global_step}"
        for card in (folder / CARD, checkpoint / CARD):
            card.unlink(missing_ok=True)
        name_base(checkpoint, self._family_name)
        follow_umask(checkpoint)
        seal(checkpoint)
        earlier = [path for path in checkpoints_in(folder) if step_of(path) < state.global_step]
        for path in earlier[self._keep - 1 :]:
            shutil.rmtree(path)


def _files(checkpoint: Path) -> Iterator[Path]:
    """All files but the manifest, in a fixed order."""
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and not path.name.startswith(MANIFEST):
            yield path


def _described(path: Path) -> dict[str, Any]:
    _to_disk(path)
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Have the system write what it holds back of a file or a folder."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _differs(checkpoint: Path) -> str:
    """The first file that is not as the manifest says."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        wanted = {str(name): (int(of["bytes"]), str(of["sha256"])) for name, of in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    for name, (size, digest) in wanted.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes of {size}"
        if _digest(path) != digest:
            return f"{name} is not what was written"
    return ""


def _looks_damaged(checkpoint: Path) -> str:
    """What can be seen without a manifest: files that are missing, empty or cut."""
    if not (checkpoint / STATE).exists():
        return f"{STATE} is missing: saving was broken off"
    names = {path.name for path in _files(checkpoint)} | {path.name for path in checkpoint.iterdir()}
    if not names.intersection(WEIGHTS):
        return "its weights are missing"
    if not names.intersection(OPTIMISER) and not any(name.startswith("optimizer_") for name in names):
        return f"{OPTIMISER[0]} is missing"
    if OPTIMISER[0] in names and "scheduler.pt" not in names:
        return "scheduler.pt is missing"
    if not processes_of(checkpoint):
        return "rng_state.pth is missing"
    for path in _files(checkpoint):
        if not path.stat().st_size or not _readable(path):
            return f"{path.name} is {'cut or changed' if path.stat().st_size else 'empty'}"
    return ""


def _readable(path: Path) -> bool:
    """Whether a file holds together; kinds that nothing is known of do."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):
                pass
        elif path.suffix in (".pt", ".pth"):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
    except (ValueError, SafetensorError, zipfile.BadZipFile):
        return False
    return True
