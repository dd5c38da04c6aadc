"""Readers, on folders in the exact layout: what can be asked, what is said of the rest, and what is handed in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from echo_agent.benchmarks.benchmark import NAMES, load_benchmark
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.layout import Layout
from echo_agent.errors import DataError, QuestionError
from echo_agent.rows import Question
from tests.benchmarks.folders import FOLDERS, mmar, mmau, write_json, write_jsonl
from tests.benchmarks.test_rules import outcome


def read(name: str, folder: Path, split: str | None = None) -> Layout:
    return load_benchmark(name).layout(folder, split)


def test_every_benchmark_has_a_folder_to_be_tested_on() -> None:
    assert set(FOLDERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_read(name: str, tmp_path: Path) -> None:
    rows = FOLDERS[name](tmp_path)
    layout = read(name, tmp_path)
    assert layout.rows == len(rows)
    assert all(Path(item.audio).is_absolute() and Path(item.audio).is_file() for item in layout.items)
    assert [item.line for item in layout.items] == list(range(1, 1 + len(layout.items)))
    faults = {"mmau-pro": ["it is about 2 recordings; one is heard at a time"]}
    assert [fault.reason for fault in layout.faults] == faults.get(name, [])
    for item in layout.items:
        if isinstance(item, Item):
            assert item.scored and "source" not in item.model_dump(mode="json")
            assert item.kind != "choice" or (item.is_right(item.answer) and not item.is_right("a cow"))


def test_what_is_asked(tmp_path: Path) -> None:
    def first(name: str) -> Question:
        folder = tmp_path / name
        FOLDERS[name](folder)
        return read(name, folder).items[0]

    item = first("voice-giraffe")
    assert isinstance(item, Item)
    assert (item.id, item.question, item.choices) == (
        "000000_video0",
        "What is it?",
        ("a cat", "a dog", "a car", "a bell"),
    )
    assert (item.answer, item.letter, item.groups["modality"]) == ("a dog", "B", "英文")
    item = first("lat-bench")
    assert item.question == "When does the dog bark? Answer as [MM:SS-MM:SS]." and item.gold_spans == (
        (2.0, 6.0),
    )
    assert item.is_right("[00:02-00:05]") and item.is_right("from 2 to 5 s")
    assert not item.is_right("[00:07-00:09]") and not item.is_right("[00:02-00:03] or [00:02-00:06]")
    item = first("air-bench-foundation")
    assert Path(item.audio).name == "1.flac" and item.choices == ("a cat", "a dog", "a car", "a bell")
    item = first("mmau")
    assert item.groups == {
        "category": "Reasoning",
        "sub_category": "Acoustic Source Inference",
        "modality": "sound",
        "difficulty": "easy",
        "duration": "",
    }


def test_bad_rows_are_named_one_by_one(tmp_path: Path) -> None:
    rows = mmar(tmp_path, 9)
    (tmp_path / "audio" / "1.wav").unlink()
    rows[2] = {key: value for key, value in rows[2].items() if key != "choices"}
    rows[3]["id"] = rows[0]["id"]
    rows[4]["answer"] = "a cow"
    rows[5]["answer"] = ""
    rows[6]["choices"] = ["a cat", "a cat"]
    rows[7]["question"] = None
    path = tmp_path / "MMAR-meta.jsonl"
    write_jsonl(path, rows)
    with path.open("a") as file:
        file.write("{\n[]\n")
    layout = read("mmar", tmp_path)
    said = {fault.line: fault.reason for fault in layout.faults}
    assert set(said) == {2, 3, 4, 5, 7, 8, 10, 11} and layout.rows == 11
    assert said[2] == f"audio: no such file: {tmp_path / 'audio' / '1.wav'}"
    assert said[3].startswith("it has no 'choices'; its keys are id, audio_path, question, answer")
    assert said[4] == "the id 'clip0' is already that of row 1"
    assert said[5] == "the answer 'a cow' is none of the choices ['a cat', 'a dog']"
    assert "give at least two" in said[7] and said[8] == "'question' is None, and should be a text"
    assert said[10].startswith("not JSON") and said[11] == "a JSON object is expected"
    assert str(layout.faults[0]) == f"{path}:2: {said[2]}"
    assert [item.id for item in layout.unscored] == ["clip5"], (
        "a row without an answer is asked, and not scored"
    )


def test_choices_that_are_there_twice_are_asked_once(tmp_path: Path) -> None:
    """As in 27 rows of MMAU's test-mini and four of MMAR; letters stay those of the benchmark's own list."""
    rows = mmar(tmp_path, 2)
    rows[0]["choices"] = ["", "a cat", "A cat.", "a dog"]
    rows[0]["answer"] = "a dog"
    write_jsonl(tmp_path / "MMAR-meta.jsonl", rows)
    layout = read("mmar", tmp_path)
    first, second = layout.items
    assert isinstance(first, Item) and isinstance(second, Item)
    assert (first.choices, first.letter, second.letter) == (("a cat", "a dog"), "D", "B")
    assert [(fault.line, fault.reason[:7]) for fault in layout.mended] == [(1, "choices")]


def test_a_changed_schema_is_one_error(tmp_path: Path) -> None:
    rows = mmau(tmp_path, 12)
    write_json(
        tmp_path / "mmau-test-mini.json",
        [{"uuid": row["id"], **{k: row[k] for k in ("question",)}} for row in rows],
    )
    with pytest.raises(DataError) as error:
        read("mmau", tmp_path)
    lines = str(error.value).splitlines()
    assert "not one of its 12 rows can be asked as a row of MMAU" in lines[0]
    assert len(lines) == 12 and "it has no 'audio_id'" in lines[1] and lines[-1] == "and 2 more bad rows"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[1, 2", "none"), (b"[]", "no rows in it"), (b"", "no rows in it"), (b"\xff\xfe\xff", "not UTF-16")],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mmau-test-mini.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read("mmau", tmp_path)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot read a benchmark from .*test.parquet"):
        read("mmau-pro", tmp_path)


def test_a_folder_that_is_another(tmp_path: Path) -> None:
    for name in NAMES:
        with pytest.raises(DataError, match="is not laid out as "):
            read(name, tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        read("mmar", tmp_path / "none")
    with pytest.raises(QuestionError, match="mmau has no such split; there are test-mini, test"):
        read("mmau", tmp_path, "core")


def test_the_test_split_withholds_its_answers(tmp_path: Path) -> None:
    rows = mmau(tmp_path, 3, "test")
    write_json(
        tmp_path / "mmau-test.json", [{key: row[key] for key in row if key != "answer"} for row in rows]
    )
    layout = read("mmau", tmp_path, "test")
    assert len(layout.unscored) == len(layout.items) == 3


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().splitlines()]


def submission(name: str, folder: Path, *said: tuple[str, str | None]) -> tuple[list[dict[str, Any]], bytes]:
    """The rows of a benchmark, and what is handed in where the first were answered so; the rest was not run."""
    rows = FOLDERS[name](folder)
    benchmark, items = load_benchmark(name), read(name, folder).items
    made = {
        item.id: outcome(item, *one) for item, one in zip(items, said, strict=False) if isinstance(item, Item)
    }
    return rows, benchmark.submit(benchmark.predictions(items, made))


@pytest.mark.parametrize(("name", "key"), [("mmau", "model_output"), ("mmar", "answer_prediction")])
def test_what_is_handed_in_holds_the_rows_as_they_are(name: str, key: str, tmp_path: Path) -> None:
    rows, data = submission(name, tmp_path, ("A dog.", "a dog"), ("who knows", None))
    found = json.loads(data) if name == "mmau" else lines(data)
    assert found == [rows[0] | {key: "a dog"}, rows[1] | {key: "who knows"}, rows[2]]


@pytest.mark.parametrize("name", ["mmsu", "air-bench-foundation"])
def test_what_is_handed_in_as_letters(name: str, tmp_path: Path) -> None:
    rows, data = submission(name, tmp_path, ("a dog", "a dog"), ("who knows", None))
    first, second, *_ = lines(data)
    assert (first["response"], second["response"]) == ("B", "who knows")
    assert all(first[key] == value for key, value in rows[0].items())


def test_what_is_handed_in_elsewhere(tmp_path: Path) -> None:
    _, data = submission("voice-giraffe", tmp_path / "v", ("a dog", "a dog"))
    first, second = lines(data)
    assert (first["pred"], first["gold"], first["youtube_id"], first["error"]) == ("B", "B", "video0", None)
    assert (second["pred"], second["error"]) == (None, "not run")
    _, data = submission("lat-bench", tmp_path / "l", ("[00:02-00:05]", "[00:02-00:05]"))
    assert [(row["response"], row["labels"]) for row in lines(data)] == [
        ("[00:02-00:05]", "[00:02-00:06]"),
        ("", "[00:03-00:06]"),
    ]
    _, data = submission("mmau-pro", tmp_path / "p", ("a dog", "a dog"), ("it barks", "it barks"))
    table = pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    assert [row["model_output"] for row in table] == ["a dog", "it barks", None]
    _, data = submission("air-bench-chat", tmp_path / "c", ("it barks", "it barks"))
    (row,) = lines(data)
    assert row["response"] == "it barks" and row["meta_info"] == "A dog barks twice."
    FOLDERS["echobench"](tmp_path / "e")
    ours = load_benchmark("echobench")
    assert lines(ours.submit(ours.predictions(read("echobench", tmp_path / "e").items, {}))) == [
        {"id": "1", "prediction": None}
    ]
