"""The folder of a training run: what it was begun with, what it has come to, and how it is resumed.

    recipe.yaml            the recipe, with all defaults
    dataset.txt            where the data lies, and a hash of it
    policy.txt             a hash of the weights that it began with
    checkpoints/           of the trainer, to resume from
    validation/            what the policy answered before and after
    log.jsonl, curves.png  what a person watches
    samples/*.txt          runs as text (RL)
    model/                 what EchoAgent.from_pretrained loads, written at the end
    run.json               the record: versions, seed, data, time, how it ended

A folder that was begun is resumed, and only with the same recipe, data, model and number of processes; one that has
ended is left alone. One process at a time works in it, or the processes of one run.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from echo_agent.disk import LOCK, write_whole
from echo_agent.errors import DataError, EchoAgentError
from echo_agent.finetune.callbacks import last_row
from echo_agent.finetune.config import RLRecipe, SFTRecipe, read_recipe, write_recipe
from echo_agent.finetune.data.dataset import dataset_digest
from echo_agent.finetune.examples import Report, nobody
from echo_agent.finetune.policy import policy_digest
from echo_agent.finetune.run.checkpoints import last_whole, processes_of
from echo_agent.locks import lock_folder, unlock_folder
from echo_agent.provenance import given_command, versions_of

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
RECIPE, DATASET, POLICY = "recipe.yaml", "dataset.txt", "policy.txt"
"""What a run was begun with."""


@dataclass(frozen=True)
class RunDir:
    """A run's folder; see the module."""

    path: Path
    report: Report = nobody
    """Told what happens, a line at a time."""

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
        """Begin a run or resume one, and keep other processes out; returns the checkpoint to resume from, if any.

        Raises:
            DataError: The folder is a file, is in use, cannot be written to, or holds another run, one that has ended,
                one that no whole checkpoint is left of, or what is of no run.
            ModelError: The policy is adapters that come to no model.
        """
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        state = PartialState()
        told: list[str | None] = [None, None]
        if state.is_main_process:
            try:
                told[0] = self._begin(recipe, dataset)
            except EchoAgentError as error:
                if state.num_processes == 1:
                    raise
                told[1] = str(error)
        if state.num_processes > 1:
            broadcast_object_list(told)
        if told[1] is not None:
            raise DataError(told[1])
        return told[0]

    def leave(self) -> None:
        """Let other processes into the folder."""
        unlock_folder(self.path)

    def _begin(self, recipe: SFTRecipe | RLRecipe, dataset: Path) -> str | None:
        if self.path.exists() and not self.path.is_dir():
            raise DataError(f"{self.path} is a file: name a folder for the run")
        self._refuse_ended()
        mine, data, policy = (self.path / name for name in (RECIPE, DATASET, POLICY))
        if not data.exists() and self.path.exists() and (others := self._foreign()):
            raise DataError(
                f"{self.path} is not empty and holds no run ({others[0]}): name a folder that is new or empty"
            )
        lock_folder(self.path)
        try:
            self._refuse_ended()  # another process may have done it all since
            found = last_whole(self.checkpoints)
            for fault in found.faults:
                self.report(f"{self.path}: {fault}")
            if found.whole:
                self._refuse_other(found.whole, recipe, dataset)
            elif found.lost:
                raise DataError(
                    f"{self.path}: no checkpoint is whole ({'; '.join(found.faults)}): name another folder, or remove "
                    f"{self.checkpoints} to start at step 1"
                )
            if not found.whole:
                write_whole(data, f"{dataset.resolve()}\n{dataset_digest(dataset)}\n".encode())
                write_whole(policy, f"{policy_digest(recipe.model.name)}\n".encode())
            write_recipe(recipe, mine)
        except OSError as error:
            self.leave()
            raise DataError(f"{self.path} cannot be written to: {error.strerror}") from error
        except EchoAgentError:
            self.leave()
            raise
        return str(found.whole) if found.whole else None

    def _refuse_other(self, checkpoint: Path, recipe: SFTRecipe | RLRecipe, dataset: Path) -> None:
        """Refuse to resume another run than was begun: what is watched of it may be changed, nothing else.

        Raises:
            DataError: Recipe, data, first weights or number of processes are others, or nobody knows any more what
                they were.
            ModelError: The policy is adapters that come to no model.
        """
        mine, data, policy = (self.path / name for name in (RECIPE, DATASET, POLICY))
        if not mine.exists():
            raise DataError(
                f"{self.path} holds a checkpoint, but no {mine.name}: with which recipe it was begun is not known; "
                "name another folder"
            )
        begun = read_recipe(mine).model_copy(update={"watch": recipe.watch})
        if begun != recipe:
            raise DataError(
                f"{self.path} was begun with another recipe ({_difference(begun, recipe)}): give the same, or name "
                "another folder"
            )
        where, _, held = data.read_text(encoding="utf-8").strip().partition("\n")
        if where != str(dataset.resolve()):
            raise DataError(f"{self.path} was begun with the data of {where}, not {dataset}")
        if held and held != dataset_digest(dataset):
            raise DataError(
                f"{dataset} holds other samples than when {self.path} was begun: put them back, or name another folder"
            )
        name = recipe.model.name
        if policy.exists() and policy.read_text(encoding="utf-8").strip() != policy_digest(name):
            raise DataError(
                f"{name} has other weights than when {self.path} was begun: put them back, or name another folder"
            )
        from accelerate import PartialState

        begun_by, now = processes_of(checkpoint), PartialState().num_processes
        if begun_by != now:
            raise DataError(
                f"{self.path} was begun by {begun_by} processes, and there are {now}: its steps would be of other "
                f"examples; start with `accelerate launch --num_processes {begun_by}`, or name another folder"
            )

    def _foreign(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if path.name != LOCK)

    def _refuse_ended(self) -> None:
        if self.record.exists():
            raise DataError(
                f"{self.path} holds a run that has ended ({self.model}): name another folder, or remove it"
            )

    def write_record(
        self, recipe: SFTRecipe | RLRecipe, began: float, checkpoint: str | None, facts: Mapping[str, Any]
    ) -> None:
        """Write what is known of a run that has ended; ``began`` is the reading of ``time.monotonic`` at its start."""
        record = {
            "recipe": recipe.model_dump(mode="json"),
            "command": given_command(),
            "versions": versions_of(PACKAGES),
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "ended": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "seconds": round(time.monotonic() - began),
            "resumed": checkpoint is not None,
            "last": last_row(self.path),
            **facts,
        }
        aside = self.record.with_suffix(".partial")
        aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        aside.replace(self.record)


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
