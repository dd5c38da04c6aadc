"""Supervised fine-tuning: the policy learns to write the reasoning of samples, the crops' audio in place.

TRL's ``SFTTrainer`` on trajectories that are the very ids, origins and audio of a run of the graph
(:mod:`echo_agent.finetune.data.trajectories`). The loss is the mean cross-entropy of what the policy writes; audio
reaches the forward pass by :mod:`echo_agent.finetune.hearing`. Features of a frozen encoder are computed once and kept
on disk, for later runs too.

Unlike the first stage of Echo (arXiv 2602.11909) audio follows a call in training as it does in use; ``listens: text``
gives the paper's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from echo_agent.finetune.collate import Collator, Example
from echo_agent.finetune.config import SFTRecipe
from echo_agent.finetune.examples import Report, make_examples
from echo_agent.finetune.groundwork import Groundwork
from echo_agent.finetune.hearing import Hearing, Listener
from echo_agent.finetune.order import by_length, passes
from echo_agent.finetune.policy import adapter_config
from echo_agent.finetune.trainer_settings import trainer_settings
from echo_agent.finetune.watch import Journal
from echo_agent.frozen_features import FrozenFeatures

if TYPE_CHECKING:
    from datasets import Dataset

FEATURE_BYTES = 1 << 30
"""Most memory that features take; all of them are on disk."""


def train_sft(
    recipe: SFTRecipe, dataset: Path, out: Path, *, features: Path | None = None, report: Report = print
) -> Path:
    """Run a recipe; returns the folder of the model.

    Args:
        recipe: What to do.
        dataset: Folder of samples with reasoning (``echo-agent finetune data``).
        out: Folder of the run; one that was begun is gone on with.
        features: Where features of the frozen encoder are kept; ``<dataset>/features`` by default.
        report: Told what happens, a line at a time.

    Raises:
        DataError: The data, the recipe or the folder is unusable.
        ModelError: The model cannot be loaded.
    """
    from trl import SFTConfig, SFTTrainer

    ground = Groundwork.lay(recipe, dataset, out, report)
    family, store, folder, report = ground.family, ground.store, ground.folder, ground.report
    splits: dict[str, list[Example]] = {}
    watch = recipe.data.validation if recipe.watch.validate_every else ""
    for split in filter(None, (recipe.data.train, watch)):
        samples, recordings = ground.samples(split, reasoned=True)
        splits[split] = make_examples(samples, recordings, family, ground.dialect, recipe.listens, report)
        report(f"{split}: {len(splits[split])} trajectories on {len(recordings)} recordings")
    heard = FrozenFeatures(family, store, FEATURE_BYTES, ground.files(features), crops_on_disk=True)
    examples = [example for split in splits.values() for example in split]
    trained, watched = splits[recipe.data.train], splits.get(watch, [])
    hearing = Hearing(family)
    journal = Journal(out, recipe.optimiser.steps, report)
    settings = trainer_settings(recipe, folder, family.device) | {
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
    }
    if watched:
        settings |= {"eval_strategy": "steps", "eval_steps": recipe.watch.validate_every}
    trainer = SFTTrainer(
        model=family.model,
        args=SFTConfig(**settings),
        data_collator=Collator(examples, Listener(family, store, heard.get), family.pad_id),
        train_dataset=_rows(_order(recipe, trained, ground.processes)),
        eval_dataset=_rows(range(len(trained), len(examples))) if watched else None,
        processing_class=family.tokenizer,
        peft_config=adapter_config(family, recipe.lora) if recipe.lora else None,
        callbacks=[journal],
    )
    facts = {"trajectories": len(trained), "sequences": len(trainer.train_dataset)}
    try:
        folder.train(recipe, family, trainer, ground.checkpoint, lambda: facts)
    finally:
        hearing.remove()
    return folder.model


def _order(recipe: SFTRecipe, examples: Sequence[Example], processes: int) -> list[int]:
    """Places of the examples of all steps."""
    step = recipe.optimiser.batch * recipe.optimiser.accumulation * processes
    places = passes(len(examples), recipe.optimiser.steps * step, recipe.seed)
    if not recipe.group_by_length:
        return places
    return by_length(places, [len(example.ids) for example in examples], step, recipe.seed)


def _rows(places: Sequence[int]) -> Dataset:
    """What the trainer goes through: places of examples."""
    from datasets import Dataset

    return Dataset.from_dict({"example": list(places)})
