"""The folder of a training run: what it was begun with, what it has come to, and how it goes on.

    recipe.yaml            the recipe, with all defaults
    checkpoints/           of the trainer, to go on from
    log.jsonl, curves.png  what a person watches
    samples/*.txt          runs as text (RL)
    model/                 what EchoAgent.from_pretrained loads, written at the end
    run.json               the record: versions, seed, data, time, how it ended

A folder that was begun is gone on with, and only with the same recipe and data; one that has ended is left alone.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_agent.errors import DataError, ModelError
from echo_agent.finetune.config import RLRecipe, SFTRecipe, read_recipe, write_recipe
from echo_agent.finetune.memory import WAY_OUT
from echo_agent.finetune.policy import save_policy
from echo_agent.finetune.provenance import given_command, versions_of
from echo_agent.finetune.watch import last_row

if TYPE_CHECKING:
    from transformers import Trainer

    from echo_agent.families.base import Family

PACKAGES = (
    "echo-agent",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "langgraph",
    "langchain-core",
    "soundfile",
)
"""Packages whose versions a record holds; soundfile and soxr read the audio."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; see the module."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where the trainer saves."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """What the run ends with."""
        return self.path / "model"

    @property
    def record(self) -> Path:
        """What is known of the run."""
        return self.path / "run.json"

    def begin(self, recipe: SFTRecipe | RLRecipe, dataset: Path) -> str | None:
        """Begin a run, or go on with one; returns the checkpoint to go on from, if there is one.

        Raises:
            DataError: The folder is a file, or holds another run, one that has ended, or what is of no run.
        """
        from accelerate import PartialState

        with PartialState().main_process_first():
            return self._begin(recipe, dataset)

    def _begin(self, recipe: SFTRecipe | RLRecipe, dataset: Path) -> str | None:
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path} is a file: name a folder for the run")
        if self.record.exists():
            raise DataError(
                f"{self.path} holds a run that has ended ({self.model}): name another folder, or remove it"
            )
        mine, data = self.path / "recipe.yaml", self.path / "dataset.txt"
        if mine.exists() and self._last_checkpoint():  # without one, nothing would be lost
            begun = read_recipe(mine)
            if begun != recipe:
                raise DataError(
                    f"{self.path} was begun with another recipe ({_difference(begun, recipe)}): give the same, or name "
                    "another folder"
                )
            if data.exists() and data.read_text().strip() != str(dataset.resolve()):
                raise DataError(
                    f"{self.path} was begun with the data of {data.read_text().strip()}, not {dataset}"
                )
        else:
            if not data.exists() and self.path.exists() and (others := sorted(self.path.iterdir())):
                raise DataError(
                    f"{self.path} is not empty and holds no run ({others[0].name}): name a folder that is new or empty"
                )
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                data.write_text(f"{dataset.resolve()}\n")
                write_recipe(recipe, mine)
            except OSError as error:
                raise DataError(f"{self.path} cannot be written to: {error.strerror}") from error
        return self._last_checkpoint()

    def _last_checkpoint(self) -> str | None:
        """The last checkpoint that is whole: what was killed while it was written lacks its last file."""
        whole = [path.parent for path in self.checkpoints.glob("checkpoint-*/trainer_state.json")]
        return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None

    def train(
        self,
        recipe: SFTRecipe | RLRecipe,
        family: Family,
        trainer: Trainer,
        checkpoint: str | None,
        facts: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Let a trainer run, from a checkpoint if there is one; then write the model and, last, the record.

        A checkpoint of the last step is only loaded: transformers would take one step more. ``facts`` of the record are
        asked for when training has ended.

        Raises:
            ModelError: The device ran out of memory; what was saved stays.
        """
        import torch
        from transformers import PrinterCallback, TrainerState

        trainer.remove_callback(PrinterCallback)  # the journal speaks
        began = time.monotonic()
        if checkpoint and checkpoint.endswith(f"-{recipe.optimiser.steps}"):
            trainer._load_from_checkpoint(checkpoint)
            trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / "trainer_state.json"))
        else:
            try:
                trainer.train(resume_from_checkpoint=checkpoint)
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"{family.device} ran out of memory in step {trainer.state.global_step + 1}: use {WAY_OUT}; what "
                    f"was saved is in {self.checkpoints} ({str(error).splitlines()[0]})"
                ) from error
        sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
        # Gathered by all processes together, before all but one leave.
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
        if not trainer.accelerator.is_main_process:
            return
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        save_policy(family, model, self.model, weights)
        record = {
            "recipe": recipe.model_dump(mode="json"),
            "command": given_command(),
            "versions": versions_of(PACKAGES),
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "ended": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "seconds": round(time.monotonic() - began),
            "resumed": checkpoint is not None,
            "last": last_row(self.path),
            **facts(),
        }
        partial = self.record.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        partial.rename(self.record)


def _difference(one: SFTRecipe | RLRecipe, other: SFTRecipe | RLRecipe) -> str:
    """The first key in which two recipes differ, with both values."""
    mine, yours = _flat(one.model_dump(mode="json")), _flat(other.model_dump(mode="json"))
    key = next(key for key in [*mine, *yours] if mine.get(key) != yours.get(key))
    return f"{key} was {mine.get(key)}, now {yours.get(key)}"


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat
