"""What a trainer adds up between two lines of its log, kept in its checkpoints, so that a resumed run logs the same.

transformers keeps the sum of the losses in memory alone, and TRL whatever else it takes means of, and the count of
tokens. A run that is resumed began to count at nothing: its first line was the mean of fewer steps, ``num_tokens`` that
of one process, and ``train_loss`` the mean of the steps since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from echo_agent.finetune.callbacks import SUMMARY
from echo_agent.finetune.run.checkpoints import STATE

SUMS = "sums.json"
"""File of a checkpoint."""
MEAN = "train_loss"
"""The mean loss of all steps, which is logged at the end."""


class KeptSums(Trainer):
    """To be inherited with a trainer of TRL, before it: its sums are saved, and go on in a run that is resumed."""

    _metrics: dict[str, dict[str, list[float]]]
    _total_train_tokens: int
    _before = 0.0
    """Sum of the losses of steps that earlier processes took and logged."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As the trainer's own."""
        super().__init__(*arguments, **named)
        self.add_callback(_Begin(self))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        loss: Any = self.accelerator.reduce(self._tr_loss, "mean")
        if not self.is_world_process_zero():
            return
        sums = {
            "loss": loss.item(),
            "losses": self._before + self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "tokens": self._total_train_tokens,
            "metrics": dict(self._metrics["train"]),
        }
        path = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}" / SUMS
        path.write_text(json.dumps(sums) + "\n", encoding="utf-8")

    def go_on(self, sums: Mapping[str, Any]) -> None:
        """Take up what a checkpoint holds."""
        self._tr_loss += torch.tensor(sums["loss"], device=self._tr_loss.device)
        self._before = sums["losses"]
        self._globalstep_last_logged = sums["last_logged"]
        self._total_train_tokens = sums["tokens"]
        self._metrics["train"].update(sums["metrics"])

    def end_again(self, checkpoint: Path) -> None:
        """Come to the end that a process did not live to see after its last checkpoint: nothing is left but to log it.

        transformers would take one step more.
        """
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / STATE))
        self._tr_loss, self._total_loss_scalar = torch.tensor(0.0, device=self.args.device), 0.0
        self._initial_global_step = self._globalstep_last_logged = self.state.global_step
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        self._before += self._tr_loss.item()
        model: Any = self.model
        model.train()  # TRL asks the model what its sums are of
        self.log({SUMMARY: 0.0, "total_flos": self.state.total_flos, MEAN: 0.0})
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; the mean loss is that of all steps, whatever process took them."""
        if MEAN in logs:
            here = self.state.global_step - self._initial_global_step
            logs[MEAN] = (self._before + logs[MEAN] * here) / max(1, self.state.global_step)
        super().log(logs, start_time)


class _Begin(TrainerCallback):
    """Called when the trainer has set its sums to nothing."""

    def __init__(self, trainer: KeptSums) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        path = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / SUMS
        if state.global_step and path.exists():  # else it is a checkpoint of an older version
            self._trainer.go_on(json.loads(path.read_text(encoding="utf-8")))
