"""What SFT and RL ask of transformers' ``Trainer`` alike, from a recipe."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from echo_agent.errors import DataError, MissingExtraError
from echo_agent.finetune.config import RLRecipe, SFTRecipe
from echo_agent.finetune.run_folder import RunFolder

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

ROLLOUTS = timedelta(hours=6)
"""How long processes wait for each other: the rollouts of one may take much longer than those of the others."""
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


def join_processes(recipe: SFTRecipe | RLRecipe) -> tuple[PartialState, str]:
    """Join the other processes of the run, if there are any; to be called before anything else asks for them.

    Returns:
        What is known of the processes, and the name of this one's device.

    Raises:
        ModelError: The device does not exist.
        DataError: Several GPUs are visible to one process, a recipe names one of several, or one of RL is for another
            number of processes.
    """
    state, device = _joined(recipe)
    if isinstance(recipe, RLRecipe) and recipe.processes != state.num_processes:
        raise DataError(
            f"the recipe is for {recipe.processes} processes (rollout.questions x rollout.group over optimiser.batch x "
            f"optimiser.accumulation x rollout.updates), but there are {state.num_processes}: change one of these, or "
            f"start with `accelerate launch --num_processes {recipe.processes}`"
        )
    return state, device


def _joined(recipe: SFTRecipe | RLRecipe) -> tuple[PartialState, str]:
    import torch
    from accelerate import PartialState

    from echo_agent.families.loading import resolve_device

    device = resolve_device(recipe.model.device)
    if device.type != "cuda":
        return PartialState(cpu=device.type == "cpu"), device.type
    if device.index is not None:
        raise DataError(
            f"model.device: {device} names one GPU of several; set CUDA_VISIBLE_DEVICES={device.index}, and "
            "model.device: cuda"
        )
    state = PartialState(timeout=ROLLOUTS)
    if state.num_processes == 1 and torch.cuda.device_count() > 1:
        raise DataError(
            f"{torch.cuda.device_count()} GPUs are visible to one process: start with `accelerate launch "
            "--num_processes N -m echo_agent.cli finetune ...`, or show it one with CUDA_VISIBLE_DEVICES=0"
        )
    return state, str(state.device)


def trainer_settings(recipe: SFTRecipe | RLRecipe, folder: RunFolder, device: torch.device) -> dict[str, Any]:
    """Arguments of ``TrainingArguments``.

    Raises:
        MissingExtraError: The curves are to be sent where no package is installed.
    """
    from importlib.util import find_spec

    for name in recipe.watch.report_to:
        if find_spec(PACKAGES[name]) is None:
            raise MissingExtraError(f"watch.report_to: {name} needs: pip install {PACKAGES[name]}")
    optimiser, watch = recipe.optimiser, recipe.watch
    return {
        "output_dir": str(folder.checkpoints),
        "run_name": folder.path.name,
        "report_to": list(watch.report_to) or "none",
        "max_steps": optimiser.steps,
        "per_device_train_batch_size": optimiser.batch,
        "per_device_eval_batch_size": optimiser.batch,
        "gradient_accumulation_steps": optimiser.accumulation,
        "learning_rate": optimiser.rate,
        "warmup_steps": optimiser.warmup,
        "lr_scheduler_type": {"cosine": "cosine", "constant": "constant_with_warmup"}[optimiser.schedule],
        "weight_decay": optimiser.weight_decay,
        "max_grad_norm": optimiser.clip,
        "activation_checkpointing": optimiser.gradient_checkpointing,
        "bf16": optimiser.precision == "bfloat16",
        "use_cpu": device.type == "cpu",
        "logging_steps": watch.log_every,
        "logging_first_step": True,
        "save_steps": watch.save_every,
        "save_total_limit": watch.keep,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": False,
    }
