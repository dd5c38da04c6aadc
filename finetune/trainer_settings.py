"""What SFT and RL ask of transformers' ``Trainer`` alike, from a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from echo_agent.errors import MissingExtraError
from echo_agent.finetune.config import RLRecipe, SFTRecipe
from echo_agent.finetune.run_folder import RunFolder

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


def join_processes(recipe: SFTRecipe | RLRecipe) -> PartialState:
    """Join the other processes of the run, if there are any; to be called before anything else asks for them.

    Raises:
        ModelError: The device does not exist.
    """
    from accelerate import PartialState

    from echo_agent.families.loading import resolve_device

    return PartialState(cpu=resolve_device(recipe.model.device).type == "cpu")


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
