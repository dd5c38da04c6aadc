"""The dataset folder: opened by `datasets`, read back without loss, whole or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import soundfile

from echo_agent import rows as evaluation
from echo_agent.errors import DataError
from echo_agent.finetune.data import dataset
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import read_samples, write_dataset
from echo_agent.finetune.data.grammar.composer import GrammarSettings, compose
from echo_agent.finetune.data.records import Record, Sample, Split
from tests.finetune.data.symbolic import record

ABOUT = About(name="Small", description="Made up.", command="echo-agent finetune data build", seed=3)
Made = dict[str, list[Sample]]


def composed(first: int, split: Split, count: int = 3) -> tuple[list[Record], list[Sample]]:
    records = [record(n) for n in range(first, first + count)]
    settings = GrammarSettings(seed=first, open_share=0.5, fewest=8)
    return records, list(compose(records, settings, lambda _: split))


@pytest.fixture
def made(tmp_path: Path) -> tuple[Made, list[Record]]:
    samples: Made = {}
    records: list[Record] = []
    for first, (name, split) in enumerate(
        {"train": "train", "validation": "validation", "core": "test"}.items()
    ):
        some, samples[name] = composed(10 * first, split)  # pyright: ignore[reportArgumentType]
        records += some
    (tmp_path / "audio").mkdir()
    for one in records:
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 1600)
        soundfile.write(tmp_path / one.audio, noise, 16000)
    return samples, records


def write(out: Path, made: tuple[Made, list[Record]], **options: Any) -> Path:
    return write_dataset(out, made[0], made[1], ABOUT, **options)


@pytest.mark.parametrize("embed", [False, True])
def test_what_is_written_is_read_back(tmp_path: Path, made: tuple[Made, list[Record]], embed: bool) -> None:
    out = write(tmp_path, made, embed=embed)
    assert read_samples(out) == [sample for rows in made[0].values() for sample in rows]
    for name, rows in made[0].items():
        assert read_samples(out, name) == rows
        assert read_samples(out / "data" / f"{name}.parquet") == rows
    with pytest.raises(DataError, match="no split 'long'; there are train, validation, core"):
        read_samples(out, "long")


@pytest.mark.parametrize("embed", [False, True])
def test_datasets_opens_it_without_a_network(
    tmp_path: Path, made: tuple[Made, list[Record]], embed: bool
) -> None:
    """In a process of its own: `datasets` reads its settings when it is imported."""
    out = write(tmp_path, made, embed=embed)
    code = f"""if True:
        import json
        from datasets import load_dataset
        loaded = load_dataset({str(out)!r})
        row = loaded["train"][0]
        heard = row["audio"]
        row["audio"] = heard if isinstance(heard, str) else [heard["path"], len(heard["bytes"])]
        print(json.dumps([{{k: len(v) for k, v in loaded.items()}}, row]))
    """
    home = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts, row = json.loads(done.stdout.splitlines()[-1])
    assert counts == {name: len(rows) for name, rows in made[0].items()}
    first = made[0]["train"][0]
    size = (out / first.audio).stat().st_size
    assert row["audio"] == ([first.audio, size] if embed else first.audio)
    assert row["question"] == first.question and row["reasoning"] == first.reasoning
    assert row["gold_spans"] == [list(span) for span in first.gold_spans]


def test_tests_are_rows_for_evaluation(tmp_path: Path, made: tuple[Made, list[Record]]) -> None:
    out = write(tmp_path, made)
    rows = evaluation.read_rows(out / "core.jsonl")
    assert [(r.id, r.question, r.right, r.gold_spans) for r in rows] == [
        (s.id, s.question, s.right, s.gold_spans) for s in made[0]["core"]
    ]
    assert not (out / "train.jsonl").exists()


def test_large_splits_are_cut(
    tmp_path: Path, made: tuple[Made, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "SHARD", 5000)
    out = write(tmp_path, made)
    files = sorted(path.name for path in (out / "data").glob("train-*.parquet"))
    assert len(files) > 1 and files[0] == f"train-00000-of-{len(files):05d}.parquet"
    assert read_samples(out, "train") == made[0]["train"]
    (out / "data" / files[1]).unlink()
    with pytest.raises(DataError, match="build it anew"):
        read_samples(out)


def test_a_dataset_takes_the_place_of_another(tmp_path: Path, made: tuple[Made, list[Record]]) -> None:
    write(tmp_path, made)
    write_dataset(tmp_path, {"train": made[0]["train"]}, made[1], ABOUT)
    assert read_samples(tmp_path) == made[0]["train"]
    assert not (tmp_path / "core.jsonl").exists()


def test_a_write_that_breaks_off_leaves_what_was_there(
    tmp_path: Path, made: tuple[Made, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path, {"train": made[0]["train"]}, made[1], ABOUT)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "ParquetWriter", full)
        with pytest.raises(DataError, match="No space left on device; make room"):
            write(tmp_path, made)
    assert read_samples(tmp_path) == made[0]["train"]
    assert not (tmp_path / ".dataset").exists()


def test_a_folder_without_a_card_is_no_dataset(tmp_path: Path, made: tuple[Made, list[Record]]) -> None:
    """The card is moved last: a process that was killed before it leaves none."""
    (write(tmp_path, made) / "README.md").unlink()
    with pytest.raises(DataError, match="holds no whole dataset"):
        read_samples(tmp_path)


def test_what_would_be_no_dataset_is_refused(tmp_path: Path, made: tuple[Made, list[Record]]) -> None:
    samples, records = made
    first = samples["train"][0]
    stray = samples["core"][0].model_copy(update={"audio": first.audio})
    bad: list[tuple[Made, str]] = [
        ({}, "no samples"),
        ({"a/b": samples["train"]}, "no name for a split"),
        ({"train": samples["core"]}, "is among those of 'train'"),
        ({"train": [first, first]}, "is given twice"),
        ({"train": [first], "core": [stray]}, "is asked about in"),
        ({"train": [first.model_copy(update={"audio": "audio/none.flac"})]}, "is missing"),
        ({"train": [first.model_copy(update={"audio": "../x.flac"})]}, "inside of the folder"),
    ]  # fmt: skip
    for splits, reason in bad:
        with pytest.raises(DataError, match=reason):
            write_dataset(tmp_path, splits, records, ABOUT)
    assert not (tmp_path / "data").exists()


def test_damage_is_named(tmp_path: Path, made: tuple[Made, list[Record]]) -> None:
    out = write(tmp_path, made)
    (out / "data" / "core.parquet").write_text("nothing")
    with pytest.raises(DataError, match=r"core\.parquet cannot be read"):
        read_samples(out, "core")


def test_the_card_is_drawn_from_the_data(tmp_path: Path, made: tuple[Made, list[Record]]) -> None:
    out = write(tmp_path, made)
    card = (out / "README.md").read_text()
    rows = made[0]["train"]
    opened = sum(sample.choices is None for sample in rows)
    assert f"| train | {len(rows)} | 3 |" in card
    assert f"| {len(rows) - opened} | {opened} |" in card
    assert "echo-agent finetune data build" in card and "seed" in card.lower()
    for family in {sample.family for sample in rows}:
        assert f"| {family} |" in card and f"**{family}**" in card
    pictures = sorted(path.name for path in (out / "card").iterdir())
    assert pictures and all(f"card/{name}" in card for name in pictures)
    assert all((out / "card" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_the_card_is_the_same_each_time(tmp_path: Path, made: tuple[Made, list[Record]]) -> None:
    first = (write(tmp_path, made) / "README.md").read_text()
    assert (write(tmp_path, made) / "README.md").read_text() == first
