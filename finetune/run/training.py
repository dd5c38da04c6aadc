"""A training from its first step, or the one that it was stopped at, to the model and the record in its folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_agent.finetune.config import RLRecipe
from echo_agent.finetune.policy import save_policy
from echo_agent.finetune.run.checkpoints import CheckpointKeeper, step_of
from echo_agent.finetune.run.stopping import StopRequest, how_to_resume, said_plainly

if TYPE_CHECKING:
    from echo_agent.finetune.run.sums import KeptSums
    from echo_agent.finetune.training_setup import TrainingSetup


def train(setup: TrainingSetup, trainer: KeptSums, facts: Callable[[], Mapping[str, Any]]) -> None:
    """Take all steps, from a checkpoint if there is one; then write the model and, last, the record.

    Args:
        setup: What was prepared; its folder is left at the end.
        trainer: Of TRL.
        facts: What the record says besides, asked for when training has ended.

    Raises:
        ModelError: The device ran out of memory; what was saved stays.
        DataError: The folder cannot be written to; what was saved stays.
        KeyboardInterrupt: It was stopped; what was saved stays.
    """
    recipe, folder, report = setup.recipe, setup.folder, setup.report
    stop = StopRequest(recipe.rollout.updates if isinstance(recipe, RLRecipe) else 1, report)
    plain = partial(said_plainly, folder.checkpoints, lambda: trainer.state.global_step, report)
    began, steps = time.monotonic(), recipe.optimiser.steps
    try:
        with plain():
            _take_steps(setup, trainer, stop)
        if stop.made and trainer.state.global_step < steps:
            done = f"stopped after step {trainer.state.global_step} of {steps}"
            report(f"{done}; {how_to_resume(folder.checkpoints)}")
            raise KeyboardInterrupt
        sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
        # Gathered by all processes together, before all but one leave.
        weights: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
        if not trainer.accelerator.is_main_process:
            return
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        with plain():
            save_policy(setup.family, model, folder.model, weights)
            folder.write_record(recipe, began, setup.checkpoint, facts())
    finally:
        folder.leave()


def _take_steps(setup: TrainingSetup, trainer: KeptSums, stop: StopRequest) -> None:
    """All steps, or as many as there are until it is stopped."""
    from transformers import PrinterCallback

    recipe, checkpoint = setup.recipe, setup.checkpoint
    trainer.remove_callback(PrinterCallback)  # the journal speaks
    trainer.add_callback(CheckpointKeeper(setup.family.name, recipe.watch.keep))
    trainer.add_callback(stop)
    if checkpoint and step_of(Path(checkpoint)) == recipe.optimiser.steps:
        trainer.end_again(Path(checkpoint))
        return
    with stop.heard():
        trainer.train(resume_from_checkpoint=checkpoint)
