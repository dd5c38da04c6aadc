"""From a dataset folder to trajectories: what is chosen, what is left out and said so, and what is refused by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_agent.audio.recording import AudioRef
from echo_agent.dialects import Dialect, dialect_named
from echo_agent.errors import DataError
from echo_agent.families.base import Family
from echo_agent.finetune.batching import Example
from echo_agent.finetune.config import DataConfig
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import write_dataset
from echo_agent.finetune.data.records import Record, Sample
from echo_agent.finetune.examples import choose_samples, make_examples, open_recordings
from echo_agent.finetune.trajectories import to_trajectory
from echo_agent.stores import RecordingStore
from tests.tiny import tiny_family

ABOUT = About(name="Bells", description="Questions about bells.", command="make", seed=3)
INLINE = dialect_named("inline")
REASONING = "It rings <seg>0, 1</seg> and stops."
EVERYTHING = DataConfig()


def sample(number: int, audio: str = "", **fields: Any) -> Sample:
    """A sample about a recording of its own, unless another is named."""
    fields = {
        "choices": ("a bell", "a dog"), "answer": "a bell", "duration": 2.0, "reasoning": REASONING,
        "family": "order" if number % 2 else "count", "split": "train",
    } | fields  # fmt: skip
    name = audio or f"r{number}"
    return Sample(id=f"s{number}", audio=f"audio/{name}.flac", record=name, question="What rings?", **fields)


def write(
    folder: Path, samples: Sequence[Sample], seconds: dict[str, float] | None = None, **tests: Any
) -> Path:
    """A dataset folder with a recording of noise for each name; returns it."""
    (folder / "audio").mkdir(parents=True)
    rows = [*samples, *(row for split in tests.values() for row in split)]
    names = dict.fromkeys(Path(row.audio).stem for row in rows)
    for number, name in enumerate(names):
        length = round((seconds or {}).get(name, 2.0) * 16000)
        noise = np.random.default_rng(number).normal(0, 0.1, length).astype(np.float32)
        soundfile.write(folder / "audio" / f"{name}.flac", noise, 16000)
    records = [Record(id=name, audio=f"audio/{name}.flac", duration=2.0) for name in names]
    return write_dataset(folder, {"train": list(samples), **tests}, records, ABOUT)


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve samples in training, half of them of each family, and two without reasoning in validation."""
    bare = [sample(20 + n, split="validation", reasoning="") for n in range(2)]
    return write(tmp_path_factory.mktemp("twelve") / "set", [sample(n) for n in range(12)], validation=bare)


@pytest.fixture(scope="module")
def family() -> Family:
    return tiny_family("qwen2-audio")


def ids(samples: Sequence[Sample]) -> list[str]:
    return [one.id for one in samples]


def chosen(dataset: Path, split: str = "train", **fields: Any) -> list[str]:
    limit, seed = fields.pop("limit", None), fields.pop("seed", 0)
    reasoned = fields.pop("reasoned", True)
    part = DataConfig(**fields)
    return ids(choose_samples(dataset, split, part, seed=seed, reasoned=reasoned, limit=limit))


def assert_listed(error: DataError, faults: Sequence[str], hidden: int = 0) -> None:
    """The first line says how many; each fault has a line of its own."""
    first, *rest = str(error).split("\n")
    assert first.endswith("cannot be used:")
    assert len(rest) == len(faults) + bool(hidden)
    for line, fault in zip(rest, faults, strict=False):
        assert fault in line
    assert not hidden or rest[-1] == f"and {hidden} more"


# --- choosing -------------------------------------------------------------------------------------------------------


def test_all_samples_of_a_split_are_chosen_in_order(twelve: Path) -> None:
    assert chosen(twelve) == [f"s{n}" for n in range(12)]
    assert chosen(twelve, "validation", reasoned=False) == ["s20", "s21"]


def test_categories_and_lengths_are_chosen(tmp_path: Path) -> None:
    rows = [sample(1), sample(2), sample(3, duration=9.0), sample(4, duration=None), sample(5, reasoning=" ")]
    dataset = write(tmp_path / "set", rows)
    assert chosen(dataset) == ["s1", "s2", "s3", "s4"]
    assert chosen(dataset, reasoned=False) == ["s1", "s2", "s3", "s4", "s5"]
    assert chosen(dataset, categories=("order",)) == ["s1", "s3"]
    assert chosen(dataset, longest=2.0) == ["s1", "s2", "s4"]  # what is not known is opened
    assert chosen(dataset, categories=("order",), longest=2.0) == ["s1"]


def test_a_draw_is_a_function_of_the_seed(twelve: Path) -> None:
    drawn = [chosen(twelve, limit=5, seed=seed) for seed in range(6)]
    assert drawn == [chosen(twelve, limit=5, seed=seed) for seed in range(6)]
    assert len({tuple(one) for one in drawn}) > 3
    order = [f"s{n}" for n in range(12)]
    for one in drawn:
        assert len(set(one)) == 5 and one == sorted(one, key=order.index)
    assert {name for one in drawn for name in one} > set(drawn[0])


def test_a_draw_is_among_what_was_chosen(twelve: Path) -> None:
    assert set(chosen(twelve, categories=("count",), limit=3)) < {f"s{n}" for n in range(0, 12, 2)}
    for limit in (12, 13, None):
        assert len(chosen(twelve, limit=limit)) == 12
    assert set(chosen(twelve, limit=3, seed=1)) < set(
        chosen(twelve, limit=7, seed=1)
    )  # a smaller draw is part of it


def test_unknown_categories_are_named_with_the_known_ones(twelve: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.categories: .* has no loud, often in 'train'; there are count, order$"
    ):
        chosen(twelve, categories=("order", "often", "loud"))


def test_an_unknown_split_is_named_with_the_known_ones(twelve: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no split 'core'; there are train, validation"):
        chosen(twelve, "core")
    with pytest.raises(DataError, match=f"{tmp_path} holds no whole dataset"):
        chosen(tmp_path)


def test_splits_of_which_nothing_is_left_are_named(twelve: Path) -> None:
    with pytest.raises(DataError, match="of the 2 samples of 'validation' none have reasoning to learn from"):
        chosen(twelve, "validation")
    for reasoned in (True, False):
        with pytest.raises(
            DataError, match=r"of the 12 .* none are left by data\.categories and data\.longest"
        ):
            chosen(twelve, longest=1.0, reasoned=reasoned)


# --- recordings -----------------------------------------------------------------------------------------------------


def opened(dataset: Path, family: Family) -> tuple[list[Sample], dict[str, AudioRef], list[str]]:
    said: list[str] = []
    samples = choose_samples(dataset, "train", EVERYTHING, seed=0, reasoned=True)
    return *open_recordings(dataset, samples, family, RecordingStore(), said.append), said


def test_recordings_are_opened_once_and_by_their_names(tmp_path: Path, family: Family) -> None:
    dataset = write(tmp_path / "set", [sample(1, "a"), sample(2, "b"), sample(3, "a")])
    samples, recordings, said = opened(dataset, family)
    assert ids(samples) == ["s1", "s2", "s3"] and said == []
    assert list(recordings) == ["audio/a.flac", "audio/b.flac"]
    assert all(ref.is_whole and ref.duration == 2.0 for ref in recordings.values())
    assert recordings["audio/a.flac"].sha256 != recordings["audio/b.flac"].sha256


@pytest.mark.parametrize("missing", [1, 5, 7])
def test_missing_recordings_are_named_up_to_five(tmp_path: Path, family: Family, missing: int) -> None:
    dataset = write(tmp_path / "set", [sample(n) for n in range(9)])
    for n in range(missing):
        (dataset / "audio" / f"r{n}.flac").unlink()
    with pytest.raises(DataError, match=f"{missing} of 9 recordings cannot be used") as error:
        opened(dataset, family)
    assert_listed(error.value, [f"audio/r{n}.flac" for n in range(min(missing, 5))], max(0, missing - 5))


def test_damaged_recordings_are_named_beside_missing_ones(tmp_path: Path, family: Family) -> None:
    dataset = write(tmp_path / "set", [sample(n) for n in range(4)])
    (dataset / "audio" / "r1.flac").write_bytes(b"no sound at all")
    (dataset / "audio" / "r3.flac").unlink()
    with pytest.raises(DataError, match="2 of 4 recordings") as error:
        opened(dataset, family)
    assert_listed(error.value, ["audio/r1.flac", "audio/r3.flac"])


def test_a_recording_that_is_cut_off_is_named(tmp_path: Path, family: Family) -> None:
    dataset = write(tmp_path / "set", [sample(n) for n in range(3)])
    path = dataset / "audio" / "r1.flac"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        DataError, match=r"(?s)1 of 3 recordings .*s long, but its rows say 2.00 s; it is cut off: "
    ):
        opened(dataset, family)


def test_recordings_that_are_too_long_are_left_out_and_counted(tmp_path: Path, family: Family) -> None:
    """Qwen2-Audio hears 30 s; echo-nano hears them all."""
    rows = [sample(1, "long"), sample(2), sample(3, "long"), sample(4, "longer"), sample(5, "fits")]
    dataset = write(tmp_path / "set", rows, {"long": 31.0, "longer": 40.0, "fits": 30.0})
    samples, _, said = opened(dataset, family)
    assert ids(samples) == ["s2", "s5"]
    assert said == ["left out: 3 samples on 2 recordings that are too long"]
    samples, recordings, said = opened(dataset, tiny_family("echo-nano"))
    assert len(samples) == 5 and said == [] and recordings["audio/longer.flac"].duration == 40.0


def test_a_dataset_of_which_nothing_can_be_heard_is_refused(tmp_path: Path, family: Family) -> None:
    dataset = write(tmp_path / "set", [sample(1)], {"r1": 31.0})
    with pytest.raises(
        DataError, match="tiny-qwen2-audio can hear none of its recordings: they are too long"
    ):
        opened(dataset, family)


# --- trajectories ---------------------------------------------------------------------------------------------------


def made(
    dataset: Path,
    family: Family,
    samples: Sequence[Sample] | None = None,
    dialect: Dialect = INLINE,
    **how: Any,
) -> tuple[list[Example], list[str]]:
    said: list[str] = []
    found, recordings, _ = opened(dataset, family)
    listens = how.get("listens", "heard")
    examples = make_examples(samples or found, recordings, family, dialect, listens, said.append)
    return examples, said


@pytest.mark.parametrize("listens", ["heard", "text", "never"])
def test_examples_are_the_trajectories_of_samples_in_order(
    tmp_path: Path, family: Family, listens: Any
) -> None:
    dataset = write(tmp_path / "set", [sample(1), sample(2, "r1", reasoning="A dog barks, and that is all.")])
    samples, recordings, _ = opened(dataset, family)
    examples, said = made(dataset, family, listens=listens)
    expected = [to_trajectory(one, family, INLINE, recordings[one.audio], listens) for one in samples]
    assert examples == [Example(one.ids, one.mask, one.audio) for one in expected] and said == []
    assert len(examples[0].audio) == (2 if listens == "heard" else 1)


def test_spans_that_lie_outside_are_named_up_to_five(tmp_path: Path, family: Family) -> None:
    dataset = write(tmp_path / "set", [sample(n) for n in range(8)])
    samples, _, _ = opened(dataset, family)
    wrong = [
        one.model_copy(update={"reasoning": "It rings <seg>20, 30</seg> late."}) if one.id != "s3" else one
        for one in samples
    ]
    with pytest.raises(DataError, match="^7 of 8 samples cannot be used") as error:
        made(dataset, family, wrong)
    assert_listed(error.value, [f"'s{n}'" for n in (0, 1, 2, 4, 5)], 2)
    assert len(re.findall("outside of 0-2", str(error.value))) == 5
    with pytest.raises(DataError, match="^1 of 8 samples cannot be used") as error:
        made(dataset, family, [*samples[:7], wrong[7]])
    assert_listed(error.value, ["'s7'"])


def test_samples_that_do_not_fit_the_context_are_left_out_and_counted(tmp_path: Path, family: Family) -> None:
    endless = "a dog " * 5000
    dataset = write(tmp_path / "set", [sample(1), sample(2, reasoning=endless), sample(3, reasoning=endless)])
    examples, said = made(dataset, family)
    assert len(examples) == 1
    assert said == ["left out: 2 samples longer than the context of tiny-qwen2-audio"]
    samples, _, _ = opened(dataset, family)
    with pytest.raises(DataError, match="no sample fits the context of tiny-qwen2-audio: .*'s2' takes"):
        made(dataset, family, samples[1:])
