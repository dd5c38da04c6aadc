"""What a training stands on before there is a trainer: its folder, the policy, samples with their recordings.

SFT and RL begin alike, and in this order: whatever can be known to be wrong is said before anything takes long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from echo_agent.dialects import Dialect
from echo_agent.families.base import Family
from echo_agent.feature_files import FeatureFiles
from echo_agent.finetune.config import RLRecipe, SFTRecipe
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.examples import Report, check_splits, choose_samples, nobody, open_recordings
from echo_agent.finetune.memory import check_memory
from echo_agent.finetune.policy import load_policy
from echo_agent.finetune.run_folder import RunFolder
from echo_agent.finetune.trainer_settings import join_processes
from echo_agent.recording import AudioRef
from echo_agent.stores import RecordingStore


@dataclass(frozen=True)
class Groundwork:
    """See the module."""

    recipe: SFTRecipe | RLRecipe
    dataset: Path
    folder: RunFolder
    checkpoint: str | None
    """Where to go on from."""
    family: Family
    dialect: Dialect
    processes: int
    """That train together."""
    report: Report
    """Told what happens, by the main process alone."""
    store: RecordingStore = field(default_factory=RecordingStore)

    @classmethod
    def lay(cls, recipe: SFTRecipe | RLRecipe, dataset: Path, out: Path, report: Report) -> Groundwork:
        """Join the other processes, begin the folder or go on with it, load the policy.

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
        folder = RunFolder(out)
        checkpoint = folder.begin(recipe, dataset)
        family, dialect = load_policy(recipe.model, recipe.lora, device)
        check_memory(family, recipe)
        report = report if state.is_main_process else nobody
        return cls(recipe, dataset, folder, checkpoint, family, dialect, state.num_processes, report)

    def samples(self, split: str, *, reasoned: bool) -> tuple[list[Sample], dict[str, AudioRef]]:
        """The samples of a split that the recipe asks for and the policy can hear, and their recordings by name.

        Raises:
            DataError: There are none, or recordings are missing or damaged.
        """
        data = self.recipe.data
        limit = data.limit if split == data.train else None
        chosen = choose_samples(
            self.dataset, split, data, seed=self.recipe.seed, reasoned=reasoned, limit=limit
        )
        return open_recordings(self.dataset, chosen, self.family, self.store, self.report)

    def files(self, folder: Path | None) -> FeatureFiles | None:
        """Where features are kept on disk, in the dataset's folder if none is named; None where the encoder is trained.

        Raises:
            DataError: The folder cannot be made.
        """
        return (
            FeatureFiles(folder or self.dataset / "features", self.family) if self.family.is_frozen else None
        )
