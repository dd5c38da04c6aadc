"""Supervised fine-tuning: the policy learns to write the reasoning of samples, the crops' audio in place.

TRL's ``SFTTrainer`` on trajectories that are the very ids, origins and audio of a run of the graph
(:mod:`echo_agent.finetune.trajectories`). The loss is the mean cross-entropy of what the policy writes; audio reaches
the forward pass by :mod:`echo_agent.finetune.audio_inputs`. Features of a frozen encoder are computed once and kept on
disk, for later runs too.

Unlike the first stage of Echo (arXiv 2602.11909) audio follows a call in training as it does in use; ``listens: text``
gives the paper's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from echo_agent.engine.frozen_features import FrozenFeatures
from echo_agent.finetune.audio_inputs import AudioHook, AudioLoader
from echo_agent.finetune.batching import Collator, Example, by_length, sampler_order
from echo_agent.finetune.callbacks import Journal
from echo_agent.finetune.config import SFTRecipe
from echo_agent.finetune.evaluation import compared, evaluated
from echo_agent.finetune.examples import Report, make_examples
from echo_agent.finetune.policy import adapter_config
from echo_agent.finetune.run.sums import KeptSums
from echo_agent.finetune.run.training import train
from echo_agent.finetune.training_setup import TrainingSetup, trainer_settings

if TYPE_CHECKING:
    from datasets import Dataset

FEATURE_BYTES = 1 << 30
"""Most memory that features take; all of them are on disk."""


class ListeningSFTTrainer(KeptSums, SFTTrainer):
    """SFT whose sums go on in a run that is resumed."""


def train_sft(
    recipe: SFTRecipe, dataset: Path, out: Path, *, features: Path | None = None, report: Report = print
) -> Path:
    """Run a recipe; returns the folder of the model.

    Args:
        recipe: What to do.
        dataset: Folder of samples with reasoning (``echo-agent finetune data``).
        out: Folder of the run; one that was begun is resumed.
        features: Where features of the frozen encoder are kept; ``<dataset>/features`` by default.
        report: Told what happens, a line at a time.

    Raises:
        DataError: The data, the recipe or the folder is unusable.
        ModelError: The model cannot be loaded, or memory runs out.
        KeyboardInterrupt: It was stopped, after a checkpoint.
    """
    setup = TrainingSetup.prepare(recipe, dataset, out, report)
    try:
        return _train(recipe, setup, features)
    finally:
        setup.folder.leave()


def _train(recipe: SFTRecipe, setup: TrainingSetup, features: Path | None) -> Path:
    """What :func:`train_sft` does in a folder that was begun."""
    family, store, folder, report = setup.family, setup.store, setup.folder, setup.report
    splits: dict[str, list[Example]] = {}
    watch = recipe.data.validation if recipe.watch.validate_every else ""
    for split in filter(None, (recipe.data.train, watch)):
        samples, recordings = setup.samples(split, reasoned=True)
        splits[split] = make_examples(samples, recordings, family, setup.dialect, recipe.listens, report)
        report(f"{split}: {len(splits[split])} trajectories on {len(recordings)} recordings")
    before = evaluated(setup, "before", features)
    heard = FrozenFeatures(family, store, FEATURE_BYTES, setup.files(features), crops_on_disk=True)
    examples = [example for split in splits.values() for example in split]
    trained, watched = splits[recipe.data.train], splits.get(watch, [])
    order = _order(recipe, trained, setup.processes)
    hearing = AudioHook(family)
    settings: dict[str, Any] = trainer_settings(recipe, folder, family.device) | {
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
    }
    if watched:
        settings |= {"eval_strategy": "steps", "eval_steps": recipe.watch.validate_every}
    trainer = ListeningSFTTrainer(
        model=family.model,
        args=SFTConfig(**settings),
        data_collator=Collator(examples, AudioLoader(family, store, heard.get), family.pad_id),
        train_dataset=_rows(order),
        eval_dataset=_rows(range(len(trained), len(examples))) if watched else None,
        processing_class=family.tokenizer,
        peft_config=adapter_config(family, recipe.lora) if recipe.lora else None,
        callbacks=[Journal(folder.path, recipe.optimiser.steps, report)],
    )
    facts = {"trajectories": len(trained), "sequences": len(order)}

    def ended() -> dict[str, Any]:
        return facts | compared(before, evaluated(setup, "after", features), report)

    try:
        train(setup, trainer, ended)
    finally:
        hearing.remove()
    return folder.model


def _order(recipe: SFTRecipe, examples: Sequence[Example], processes: int) -> list[int]:
    """Places of the examples of all steps."""
    step = recipe.optimiser.batch * recipe.optimiser.accumulation * processes
    places = sampler_order(len(examples), recipe.optimiser.steps * step, recipe.seed)
    if not recipe.group_by_length:
        return places
    return by_length(places, [len(example.ids) for example in examples], step, recipe.seed)


def _rows(places: Sequence[int]) -> Dataset:
    """What the trainer goes through: places of examples."""
    from datasets import Dataset

    return Dataset.from_dict({"example": list(places)})
