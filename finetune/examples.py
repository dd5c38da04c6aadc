"""From a dataset folder to what trainers take: samples that are chosen, recordings that are opened, trajectories.

Whatever is wrong with the data and can be known before training is said here, all of it at once: recordings that are
missing, reasoning whose spans lie outside, splits that are empty. Recordings that the model cannot hear are left out
and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.dialects import Dialect
from echo_agent.errors import ContextError, DataError, RecordingError, RecordingTooLongError
from echo_agent.families.base import TAIL, Family
from echo_agent.finetune.batching import Example
from echo_agent.finetune.config import DataConfig
from echo_agent.finetune.data.dataset import read_samples, split_names
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.data.stages import Report
from echo_agent.finetune.trajectories import Listens, to_trajectory
from echo_agent.shipped import NANO
from echo_agent.stores import RecordingStore

SHOWN = 5
"""Most faults that one error lists."""


def nobody(_: str) -> None:
    """A report of a process that is not the main one."""


def check_splits(dataset: Path, part: DataConfig, *, validated: bool) -> None:
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
    dataset: Path, split: str, part: DataConfig, *, seed: int, reasoned: bool, limit: int | None = None
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
    categories = {sample.category for sample in samples}
    if unknown := sorted(set(part.categories) - categories):
        raise DataError(
            f"data.categories: {dataset} has no {', '.join(unknown)} in {split!r}; "
            f"there are {', '.join(sorted(categories))}"
        )
    chosen = [
        sample
        for sample in samples
        if (not part.categories or sample.category in part.categories)
        and (part.longest is None or sample.duration is None or sample.duration <= part.longest)
        and (sample.reasoning.strip() or not reasoned)
    ]
    if not chosen:
        unreasoned = reasoned and not any(sample.reasoning.strip() for sample in samples)
        why = "have reasoning to learn from" if unreasoned else "are left by data.categories and data.longest"
        raise DataError(f"{dataset}: of the {len(samples)} samples of {split!r} none {why}")
    if limit is not None and limit < len(chosen):
        order = np.random.default_rng([seed, 11]).permutation(len(chosen))[:limit]
        chosen = [chosen[int(i)] for i in sorted(order)]
    return chosen


def check_reasoning(samples: Sequence[Sample], family: Family) -> None:
    """Refuse reasoning in sentences for a policy that knows no language: it learns to repeat them, and hears less.

    The sentences of the grammar, and of most models that write, speak of an *I*; terse reasoning never does.

    Raises:
        DataError: Most samples are in sentences, and the family is echo-nano.
    """
    reasoned = [sample.reasoning for sample in samples if sample.reasoning.strip()]
    spoken = sum(bool(re.search(r"\b(I|me)\b", text)) for text in reasoned)
    if family.kind == NANO and 2 * spoken > len(reasoned):
        raise DataError(
            f"{family.name} knows no language and cannot learn from reasoning in sentences ({reasoned[0][:60]!r}): "
            "build the dataset with --reasoning terse, or train a model that knows language"
        )


SHORTER = 0.5
"""Seconds by which a recording may be shorter than its rows say."""


def open_recordings(
    dataset: Path, samples: Sequence[Sample], family: Family, store: RecordingStore, report: Report
) -> tuple[list[Sample], dict[str, AudioRef]]:
    """Open the recordings of samples.

    Returns:
        The samples whose recording the family can hear, and references to whole recordings by ``sample.audio``.

    Raises:
        DataError: Recordings are missing, no audio by their headers or shorter than their rows say (named), or none
            can be heard.
    """
    found: dict[str, AudioRef] = {}
    faults: list[str] = []
    long: set[str] = set()
    stated = {sample.audio: sample.duration or 0.0 for sample in samples}
    for name in stated:
        try:
            recording = Recording.open(dataset / name, family.limits.longest_recording + TAIL)
            if stated[name] - recording.duration > SHORTER:
                raise RecordingError(
                    f"the recording {dataset / name} is {recording.duration:.2f} s long, but its rows say "
                    f"{stated[name]:.2f} s; {'; '.join(recording.notes) or 'build the dataset again'}"
                )
            for note in recording.notes:
                report(f"{name}: {note}")
            found[name] = store.add(recording)
            family.check_length(found[name])
        except RecordingTooLongError:
            long.add(name)
        except RecordingError as error:
            faults.append(str(error))
    if faults:
        raise _listed(f"{dataset}: {len(faults)} of {len(found) + len(faults)} recordings", faults)
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
        raise _listed(f"{len(faults)} of {len(samples)} samples", faults)
    if not examples:
        raise DataError(f"no sample fits the context of {family.name}: {next(iter(reasons))}")
    if reasons:
        report(f"left out: {reasons.total()} samples longer than the context of {family.name}")
    return examples


def _listed(what: str, faults: Sequence[str]) -> DataError:
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return DataError(f"{what} cannot be used:", *(f"  {fault}" for fault in faults[:SHOWN]), *more)
