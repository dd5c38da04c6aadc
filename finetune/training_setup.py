"""What SFT and RL set up alike before there is a trainer: processes, run folder, policy, samples, and settings.

Whatever can be known to be wrong is said before anything takes long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_agent.audio.recording import AudioRef
from echo_agent.dialects import Dialect
from echo_agent.engine.feature_files import FeatureFiles
from echo_agent.errors import DataError, MissingExtraError
from echo_agent.families.base import Family
from echo_agent.finetune.config import RLRecipe, SFTRecipe
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.examples import (
    Report,
    check_reasoning,
    check_splits,
    choose_samples,
    nobody,
    open_recordings,
)
from echo_agent.finetune.memory import check_memory
from echo_agent.finetune.policy import load_policy
from echo_agent.finetune.run.checkpoints import step_of
from echo_agent.finetune.run.run_dir import RunDir
from echo_agent.stores import RecordingStore

if TYPE_CHECKING:
    import torch
    from accelerate import PartialState

ROLLOUTS = timedelta(hours=6)
"""How long processes wait for each other: the rollouts of one may take much longer than those of the others."""
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


@dataclass(frozen=True)
class TrainingSetup:
    """See the module."""

    recipe: SFTRecipe | RLRecipe
    dataset: Path
    folder: RunDir
    checkpoint: str | None
    """What to resume from."""
    family: Family
    dialect: Dialect
    processes: int
    """That train together."""
    report: Report
    """Told what happens, by the main process alone."""
    store: RecordingStore = field(default_factory=RecordingStore)

    @classmethod
    def prepare(cls, recipe: SFTRecipe | RLRecipe, dataset: Path, out: Path, report: Report) -> TrainingSetup:
        """Join the other processes, begin the run or resume it, load the policy.

        Raises:
            DataError: The recipe does not fit the data, the processes or the model, or the folder is unusable.
            ModelError: The model cannot be loaded, or there is no room for its training.
        """
        check_splits(
            dataset,
            recipe.data,
            validated=isinstance(recipe, SFTRecipe) and bool(recipe.watch.validate_every),
        )
        state, device = join_processes(recipe)
        report = report if state.is_main_process else nobody
        folder = RunDir(out, report)
        checkpoint = folder.begin(recipe, dataset)
        report(_start(checkpoint, recipe.optimiser.steps))
        try:
            family, dialect = load_policy(recipe.model, recipe.lora, device)
            check_memory(family, recipe)
        except BaseException:
            folder.leave()
            raise
        return cls(recipe, dataset, folder, checkpoint, family, dialect, state.num_processes, report)

    def samples(self, split: str, *, reasoned: bool) -> tuple[list[Sample], dict[str, AudioRef]]:
        """The samples of a split that the recipe asks for and the policy can hear, and their recordings by name.

        Raises:
            DataError: There are none, recordings are missing or damaged, or the policy cannot learn from the reasoning.
        """
        data = self.recipe.data
        limit = data.limit if split == data.train else None
        chosen = choose_samples(
            self.dataset, split, data, seed=self.recipe.seed, reasoned=reasoned, limit=limit
        )
        if reasoned:
            check_reasoning(chosen, self.family)
        return open_recordings(self.dataset, chosen, self.family, self.store, self.report)

    def files(self, folder: Path | None) -> FeatureFiles | None:
        """Where features are kept on disk, in the dataset's folder if none is named; None where the encoder is trained.

        Raises:
            DataError: The folder cannot be made.
        """
        return (
            FeatureFiles(folder or self.dataset / "features", self.family) if self.family.is_frozen else None
        )


def _start(checkpoint: str | None, steps: int) -> str:
    """Where training begins, in words."""
    done = step_of(Path(checkpoint)) if checkpoint else 0
    if done >= steps:
        return f"all {steps} steps are done: the model is written from {Path(checkpoint or '').name}"
    return f"resuming at step {done + 1} of {steps}" if done else f"starting at step 1 of {steps}"


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


def leave_processes() -> None:
    """Part from the other processes of the run, where there are any; each is to call it once all of its work is done.

    A process that ends without may be aborted in its last moment, although everything is written
    (pytorch/pytorch#190489). One whose work has failed must not call it: it would wait for the others.
    """
    from accelerate import PartialState

    PartialState().destroy_process_group()


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


def trainer_settings(recipe: SFTRecipe | RLRecipe, folder: RunDir, device: torch.device) -> dict[str, Any]:
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
        "learning_rate": optimiser.learning_rate,
        "warmup_steps": optimiser.warmup,
        "lr_scheduler_type": {"cosine": "cosine", "constant": "constant_with_warmup"}[optimiser.schedule],
        "weight_decay": optimiser.weight_decay,
        "max_grad_norm": optimiser.clip,
        "activation_checkpointing": optimiser.gradient_checkpointing,
        "bf16": optimiser.precision == "bfloat16",
        "use_cpu": device.type == "cpu",
        "logging_steps": recipe.log_every,
        "logging_first_step": True,
        "save_steps": recipe.save_every,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": False,
    }
