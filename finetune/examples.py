"""From a dataset folder to what trainers take: samples that are chosen, recordings that are opened, trajectories.

Whatever is wrong with the data and can be known before training is said here, all of it at once: recordings that are
missing, reasoning whose spans lie outside, splits that are empty. Recordings that the model cannot hear are left out
and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from echo_agent.dialects import Dialect
from echo_agent.errors import ContextError, DataError, RecordingError, RecordingTooLongError
from echo_agent.families.base import Family
from echo_agent.finetune.collate import Example
from echo_agent.finetune.config import DataPart
from echo_agent.finetune.data.dataset import read_samples, split_names
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.data.trajectories import Listens, to_trajectory
from echo_agent.recording import AudioRef, Recording
from echo_agent.stores import RecordingStore

SHOWN = 5
"""Most faults that one error lists."""

Report = Callable[[str], None]
"""Is told, in one line, what was done."""


def nobody(_: str) -> None:
    """A report of a process that is not the main one."""


def check_splits(dataset: Path, part: DataPart, *, validated: bool) -> None:
    """Refuse a recipe whose splits are not there.

    Raises:
        DataError: There is no dataset or no such split; with the keys to change.
    """
    names = split_names(dataset)
    there = f"there are {', '.join(names)}"
    if part.train not in names:
        raise DataError(f"{dataset} has no split {part.train!r} (data.train); {there}")
    if validated and part.validation not in names:
        raise DataError(
            f"{dataset} has no split {part.validation!r} (data.validation); {there}: name one of them, or set "
            "watch.validate_every=0 to train without"
        )


def choose_samples(
    dataset: Path, split: str, part: DataPart, *, seed: int, reasoned: bool, limit: int | None = None
) -> list[Sample]:
    """The samples of a split that a recipe asks for.

    Args:
        dataset: The dataset folder.
        split: Its split.
        part: What of it is used.
        seed: Of the draw, where fewer are taken than there are.
        reasoned: Only those with reasoning (for SFT).
        limit: Most samples; of training splits that is ``part.limit``.

    Raises:
        DataError: There is no dataset or no such split, or nothing is left of it.
    """
    samples = read_samples(dataset, split)
    families = {sample.family for sample in samples}
    if unknown := sorted(set(part.families) - families):
        raise DataError(
            f"data.families: {dataset} has no {', '.join(unknown)} in {split!r}; "
            f"there are {', '.join(sorted(families))}"
        )
    chosen = [
        sample
        for sample in samples
        if (not part.families or sample.family in part.families)
        and (part.longest is None or sample.duration is None or sample.duration <= part.longest)
        and (sample.reasoning.strip() or not reasoned)
    ]
    if not chosen:
        unreasoned = reasoned and not any(sample.reasoning.strip() for sample in samples)
        why = "have reasoning to learn from" if unreasoned else "are left by data.families and data.longest"
        raise DataError(f"{dataset}: of the {len(samples)} samples of {split!r} none {why}")
    if limit is not None and limit < len(chosen):
        order = np.random.default_rng([seed, 11]).permutation(len(chosen))[:limit]
        chosen = [chosen[int(i)] for i in sorted(order)]
    return chosen


def open_recordings(
    dataset: Path, samples: Sequence[Sample], family: Family, store: RecordingStore, report: Report
) -> tuple[list[Sample], dict[str, AudioRef]]:
    """Open the recordings of samples.

    Returns:
        The samples whose recording the family can hear, and references to whole recordings by ``sample.audio``.

    Raises:
        DataError: Recordings are missing or no audio by their headers (named), or none can be heard.
    """
    found: dict[str, AudioRef] = {}
    faults: list[str] = []
    long: set[str] = set()
    for name in dict.fromkeys(sample.audio for sample in samples):
        try:
            found[name] = store.add(Recording.open(dataset / name))
            family.check_length(found[name])
        except RecordingTooLongError:
            long.add(name)
        except RecordingError as error:
            faults.append(str(error))
    if faults:
        raise DataError(_listed(f"{dataset}: {len(faults)} of {len(found) + len(faults)} recordings", faults))
    heard = [sample for sample in samples if sample.audio not in long]
    if not heard:
        raise DataError(f"{dataset}: {family.name} can hear none of its recordings: they are too long")
    if long:
        report(f"left out: {len(samples) - len(heard)} samples on {len(long)} recordings that are too long")
    return heard, found


def make_examples(
    samples: Sequence[Sample],
    recordings: dict[str, AudioRef],
    family: Family,
    dialect: Dialect,
    listens: Listens,
    report: Report,
) -> list[Example]:
    """Trajectories of samples; those longer than the context are left out and counted.

    Raises:
        DataError: The reasoning of some cannot be learned from (named), or all are too long.
    """
    examples: list[Example] = []
    faults: list[str] = []
    reasons: Counter[str] = Counter()
    for sample in samples:
        try:
            trajectory = to_trajectory(sample, family, dialect, recordings[sample.audio], listens)
        except ContextError as error:
            reasons[str(error)] += 1
        except DataError as error:
            faults.append(str(error))
        else:
            examples.append(Example.of(trajectory))
    if faults:
        raise DataError(_listed(f"{len(faults)} of {len(samples)} samples", faults))
    if not examples:
        raise DataError(f"no sample fits the context of {family.name}: {next(iter(reasons))}")
    if reasons:
        report(f"left out: {reasons.total()} samples longer than the context of {family.name}")
    return examples


def _listed(what: str, faults: Sequence[str]) -> str:
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n".join([f"{what} cannot be used:", *(f"  {fault}" for fault in faults[:SHOWN]), *more])
