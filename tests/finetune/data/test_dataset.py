"""Dataset folders: what is written is read back equal, by us and by ``datasets``, whole or not at all."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import soundfile
import yaml

from echo_agent.errors import DataError
from echo_agent.finetune.data import dataset
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import read_samples, write_dataset
from echo_agent.finetune.data.records import SAMPLE_COLUMNS, Event, Record, Sample
from echo_agent.rows import read_rows

pytestmark = pytest.mark.usefixtures("uncharted")

ABOUT = About(
    name="Bells", description="Questions about bells.", command="echo-agent finetune data build", seed=3
)


def record(name: str) -> Record:
    events = (Event("bell", "sound", 1.0, 2.0, sources=("pack:bell.wav",)), Event("dog", "sound", 2.5, 3.0))
    return Record(id=name, audio=f"audio/{name}.flac", duration=4.0, events=events, licence="CC0-1.0")


def sample(name: str, about: str, split: Any = "train", **fields: Any) -> Sample:
    fields = {
        "choices": ("a bell", "a dog"),
        "answer": "a bell",
        "category": "order",
        "duration": 4.0,
    } | fields
    return Sample(
        id=name,
        audio=f"audio/{about}.flac",
        question="What “rings”?\nÄ 🔔",
        record=about,
        split=split,
        **fields,
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with six recordings of noise, about 90 kB each."""
    (tmp_path / "set" / "audio").mkdir(parents=True)
    for i in range(6):
        noise = np.random.default_rng(i).normal(0, 0.1, 4 * 16000).astype(np.float32)
        soundfile.write(tmp_path / "set" / "audio" / f"r{i}.flac", noise, 16000)
    return tmp_path / "set"


@pytest.fixture
def splits() -> dict[str, list[Sample]]:
    reasoning = "It rings <seg>1, 2</seg> and then barks."
    return {
        "train": [
            sample("t1", "r0", gold_spans=((1.0, 2.0), (2.5, 0.1 + 2.9)), use="sft", reasoning=reasoning),
            sample("t2", "r0", choices=None, answer=None, answers=("a bell", "bell"), use="rl"),
            sample("t3", "r1", choices=None, answer="a bell", answers=(), duration=None, licence="MIT; GPL"),
        ],
        "validation": [sample("v1", "r2", "validation", difficulty="detail")],
        "core": [sample("c1", "r3", "test"), sample("c2", "r4", "test", gold_spans=((0.0, 0.5),))],
        "long": [sample("l1", "r5", "test")],
        "unseen": [],
    }


RECORDS = [record(f"r{i}") for i in range(6)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``datasets`` without network, its cache in the test's folder."""
    import datasets

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_MODULES_CACHE", tmp_path / "modules")
    datasets.disable_progress_bars()
    return datasets


@pytest.fixture
def small_files() -> Iterator[None]:
    """A disk that takes files of at most 20 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("embed", [False, True])
def test_nothing_of_a_sample_is_lost(out: Path, splits: dict[str, list[Sample]], embed: bool) -> None:
    assert write_dataset(out, splits, RECORDS, ABOUT, embed=embed) == out
    for name in ("train", "validation", "core", "long"):
        assert read_samples(out, name) == splits[name]
        assert read_samples(out / "data" / f"{name}.parquet") == splits[name]
    assert read_samples(out) == [s for name in ("train", "validation", "core", "long") for s in splits[name]]
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "audio", "card", "core.jsonl", "data", "long.jsonl",
    ]  # fmt: skip


@pytest.mark.parametrize("embed", [False, True])
def test_datasets_opens_it_with_the_right_features(
    out: Path, splits: dict[str, list[Sample]], hub: Any, embed: bool
) -> None:
    opened = hub.load_dataset(str(write_dataset(out, splits, RECORDS, ABOUT, embed=embed)))
    assert {name: len(rows) for name, rows in opened.items()} == {
        "train": 3,
        "validation": 1,
        "core": 2,
        "long": 1,
    }
    features = opened["train"].features
    assert set(features) == set(SAMPLE_COLUMNS) - {"line"}
    texts = hub.List(hub.Value("string"))
    assert features["choices"] == texts and features["answers"] == texts
    assert features["gold_spans"] == hub.List(hub.List(hub.Value("float64")))
    assert features["duration"] == hub.Value("float64") and features["question"] == hub.Value("string")
    first = opened["train"][0]
    if embed:
        assert isinstance(features["audio"], hub.Audio)
        assert first["audio"] == {"bytes": (out / "audio" / "r0.flac").read_bytes(), "path": "audio/r0.flac"}
        first["audio"] = first["audio"]["path"]
    assert Sample.model_validate(first) == splits["train"][0]


def test_every_field_of_a_sample_has_a_column() -> None:
    """A field that is added to samples is added here too."""
    assert set(dataset._schema(embed=False).names) == set(SAMPLE_COLUMNS) - {"line"}


def test_tests_are_rows_for_eval(out: Path, splits: dict[str, list[Sample]]) -> None:
    write_dataset(out, splits, RECORDS, ABOUT)
    rows = read_rows(out / "core.jsonl")
    assert [(row.id, row.audio, row.answer, row.gold_spans) for row in rows] == [
        (s.id, str((out / s.audio).resolve()), s.answer, s.gold_spans) for s in splits["core"]
    ]
    assert not (out / "train.jsonl").exists()


@pytest.mark.parametrize("embed", [False, True])
def test_large_splits_are_cut_into_files(
    out: Path, splits: dict[str, list[Sample]], hub: Any, monkeypatch: pytest.MonkeyPatch, embed: bool
) -> None:
    many = [sample(f"m{i}", f"r{i // 20}") for i in range(60)]
    monkeypatch.setattr(dataset, "SHARD", 150_000 if embed else 10_000)
    monkeypatch.setattr(dataset, "GROUP", 100_000 if embed else 4_000)
    write_dataset(out, {"train": many}, RECORDS, ABOUT, embed=embed)
    files = sorted(path.name for path in (out / "data").iterdir())
    assert len(files) >= 2 and files[0] == f"train-00000-of-{len(files):05d}.parquet"
    assert read_samples(out) == many
    assert len(hub.load_dataset(str(out), split="train")) == 60
    (out / "data" / files[1]).unlink()
    with pytest.raises(DataError, match=f"'train' has {len(files) - 1} of its {len(files)} files"):
        read_samples(out)


def test_a_recording_is_embedded_once_however_often_it_is_asked_about(out: Path) -> None:
    write_dataset(out, {"train": [sample(f"m{i}", "r0") for i in range(50)]}, RECORDS, ABOUT, embed=True)
    once = (out / "audio" / "r0.flac").stat().st_size
    assert once < (out / "data" / "train.parquet").stat().st_size < 1.5 * once


def test_writing_again_leaves_nothing_of_before(out: Path, splits: dict[str, list[Sample]]) -> None:
    write_dataset(out, splits, RECORDS, ABOUT)
    (out / "questions.jsonl").write_text("mine\n")
    write_dataset(out, {"train": splits["train"][:1]}, RECORDS, ABOUT)
    assert read_samples(out) == splits["train"][:1]
    names = ["README.md", "audio", "card", "data", "questions.jsonl"]
    assert sorted(path.name for path in out.iterdir()) == names


def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    out: Path, splits: dict[str, list[Sample]], small_files: None
) -> None:
    with pytest.raises(DataError, match="cannot write the dataset .*File too large") as error:
        write_dataset(out, splits, RECORDS, ABOUT, embed=True)
    assert "\n" not in str(error.value)
    assert [path.name for path in out.iterdir()] == ["audio"]
    with pytest.raises(DataError, match="holds no whole dataset"):
        read_samples(out)


class Killed(BaseException):
    """What a kill looks like from inside."""


def test_a_kill_at_any_step_leaves_a_whole_dataset_or_none(
    out: Path, splits: dict[str, list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file was written or moved last: what can be read is all of the old or all of the new."""
    old, new = {"train": splits["train"]}, {"train": [sample("n1", "r5")]}
    rename, seen = Path.rename, set()
    for step in range(1, 20):
        write_dataset(out, old, RECORDS, ABOUT)
        left = [step]

        def killed(self: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if not left[0]:
                raise Killed
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", killed)
        try:
            write_dataset(out, new, RECORDS, ABOUT)
            whole = True
        except Killed:
            whole = False
        monkeypatch.setattr(Path, "rename", rename)
        try:
            seen.add(tuple(s.id for s in read_samples(out)))
        except DataError as error:
            assert "no whole dataset" in str(error)
            seen.add(())
        if whole:
            break
    assert seen == {(), ("n1",)} and whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": []}, "no samples"),
        ({"core": [sample("x", "r0")]}, "'x' of split 'train' is among those of 'core'"),
        ({"train": [sample("x", "r0"), sample("x", "r1")]}, "the id 'x' is given twice"),
        ({"train": [sample("x", "r9")]}, "the audio of 'x' is missing"),
        ({"train": [sample("x", "../r0")]}, "inside of the folder"),
        (
            {"train": [sample("x", "r0")], "core": [sample("y", "r0", "test")]},
            "asked about in 'train' and in 'core'",
        ),
        ({"un-seen": [sample("x", "r0", "test")]}, "no name for a split"),
    ],
)
def test_what_is_no_dataset_is_refused_before_anything_is_written(
    out: Path, change: dict[str, list[Sample]], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        write_dataset(out, change, RECORDS, ABOUT)
    assert [path.name for path in out.iterdir()] == ["audio"]


def test_many_faults_are_counted(out: Path) -> None:
    with pytest.raises(DataError, match="and 3 more"):
        write_dataset(out, {"train": [sample(f"x{i}", f"q{i}") for i in range(8)]}, RECORDS, ABOUT)


def test_damaged_files_are_named(out: Path, splits: dict[str, list[Sample]]) -> None:
    write_dataset(out, splits, RECORDS, ABOUT)
    with pytest.raises(DataError, match="has no split 'test'; there are train, validation, core, long"):
        read_samples(out, "test")
    path = out / "data" / "train.parquet"
    table = parquet.read_table(path)
    wrong = table.set_column(table.schema.get_field_index("answer"), "answer", arrow.array([None, "x", ""]))
    parquet.write_table(wrong, path)
    with pytest.raises(DataError, match=r"train\.parquet, row 1: "):
        read_samples(out, "train")
    parquet.write_table(table.drop(["audio"]), path)
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(out, "train")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train\.parquet cannot be read"):
        read_samples(out)


def test_the_header_is_yaml_that_names_every_file(out: Path, splits: dict[str, list[Sample]]) -> None:
    nasty = ABOUT.model_copy(update={"name": 'Bells: "loud" # and\n--- clear', "licence": "cc0-1.0"})
    write_dataset(out, splits, RECORDS, nasty)
    header = yaml.safe_load((out / "README.md").read_text().split("\n---\n")[0].removeprefix("---\n"))
    assert header["pretty_name"] == 'Bells: "loud" # and --- clear' and header["license"] == "cc0-1.0"
    (config,) = header["configs"]
    named = [path for entry in config["data_files"] for path in entry["path"]]
    assert sorted(named) == sorted(f"data/{path.name}" for path in (out / "data").iterdir())


@pytest.mark.parametrize("embed", [False, True])
def test_datasets_never_shows_another_dataset_or_an_older_build(
    tmp_path: Path, hub: Any, embed: bool
) -> None:
    """In one cache: folders of the same last name, rows that change, and times of files that do not."""
    for question, place in (("one", "here"), ("one", "there"), ("two", "here")):
        folder = tmp_path / place / "set"
        if not folder.exists():
            (folder / "audio").mkdir(parents=True)
            soundfile.write(folder / "audio" / "r0.flac", np.zeros(16000, np.float32), 16000)
        row = sample(f"{question} {place}", "r0")
        write_dataset(folder, {"train": [row]}, RECORDS, ABOUT, embed=embed)
        os.utime(folder / "data" / "train.parquet", (10**9, 10**9))
        assert hub.load_dataset(str(folder), split="train")[0]["id"] == row.id


def test_the_same_rows_have_the_same_digest(out: Path, splits: dict[str, list[Sample]]) -> None:
    cards = []
    for rows in (splits, splits, {"train": splits["train"]}):
        write_dataset(out, rows, RECORDS, ABOUT)
        cards.append((out / "README.md").read_text())
    assert cards[0] == cards[1] and "rows sha256 " in cards[0]
    assert cards[0].partition("rows sha256 ")[2][:64] != cards[2].partition("rows sha256 ")[2][:64]


WRONG: dict[str, arrow.Array] = {
    "id": arrow.array([[1], [2], [3]]),
    "audio": arrow.array([1, 2, 3]),
    "audio ": arrow.array([None, None, None], arrow.string()),
    "audio  ": arrow.array([{"file": "x"}] * 3),
    "audio   ": arrow.array([{"path": 1}] * 3),
    "duration": arrow.array(["long", "longer", "longest"]),
    "choices": arrow.array([1, 2, 3]),
    "gold_spans": arrow.array(["1, 2"] * 3),
    "gold_spans ": arrow.array([[["a", "b"]]] * 3),
    "question": arrow.array([b"\xff", b"\xfe", b""]),
    "use": arrow.array([True, False, True]),
}


def plain_table(rows: list[Sample]) -> arrow.Table:
    """Rows as they stand in a file of a dataset."""
    return arrow.Table.from_pylist([row.model_dump(mode="json") for row in rows], dataset._schema(False))


def replaced(table: arrow.Table, name: str, column: Any) -> arrow.Table:
    """The table with another column in the place of one."""
    return table.set_column(table.schema.get_field_index(name), name, column)


@pytest.mark.parametrize("name", WRONG)
def test_a_column_of_the_wrong_type_is_one_sentence(
    tmp_path: Path, splits: dict[str, list[Sample]], name: str
) -> None:
    path = tmp_path / "train.parquet"
    parquet.write_table(replaced(plain_table(splits["train"]), name.strip(), WRONG[name]), path)
    with pytest.raises(DataError, match=r"^[^\n]*train\.parquet(, row 1: | cannot be read)[^\n]*$"):
        read_samples(path)


def test_large_strings_are_texts_too(tmp_path: Path, splits: dict[str, list[Sample]]) -> None:
    table = plain_table(splits["train"])
    for name in ("audio", "id"):
        table = replaced(table, name, table[name].cast(arrow.large_string()))
    parquet.write_table(table, tmp_path / "train.parquet")
    assert read_samples(tmp_path / "train.parquet") == splits["train"]
