"""Files of questions: what is read, and that each bad row is named with its line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from echo_agent.errors import DataError
from echo_agent.rows import SHOWN, Row, read_rows

GOOD = {"id": "a", "audio": "clips/a.wav", "question": "What?", "choices": ["x", "y"], "answer": "y"}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(b"RIFF")

    def write(*lines: Any) -> Path:
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / "q.jsonl").write_text(text, encoding="utf-8")
        return tmp_path / "q.jsonl"

    return write


def test_rows(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {
        "duration": 9.5,
        "gold_spans": [[1, 2.5]],
        "family": "order",
        "difficulty": "detail",
        "voice": "unseen",
    }
    path = write(
        GOOD | more, "", {"id": 7, "audio": "clips/a.wav", "question": "What?", "answers": ["x", "y"]}
    )
    monkeypatch.chdir(tmp_path / "clips")  # paths are relative to the file, not to the working directory
    first, second = read_rows(path)
    assert (first.audio, first.line, first.gold_spans) == (
        str(tmp_path / "clips" / "a.wav"),
        1,
        ((1.0, 2.5),),
    )
    assert (second.id, second.line, second.right, second.choices) == ("7", 3, ("x", "y"), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": "clips/none.wav"}, "no such file"),
        ({"audio": "clips"}, "no such file"),
        ({"audio": "a\0b"}, "audio"),
        ({"audio": "x" * 5000}, "audio"),
        ({"id": ""}, "id: "),
        ({"question": "  "}, "the question is empty"),
        ({"choices": ["y"]}, "1 choice given"),
        ({"choices": ["y", "Y "]}, "are the same"),
        ({"choices": "xy"}, "choices: "),
        ({"answer": "z"}, "none of the choices"),
        ({"answer": None}, "has one `answer`"),
        ({"answers": ["y"]}, "has one `answer`"),
        ({"choices": None, "answer": None}, "needs `answers`"),
        ({"choices": None, "answer": None, "answers": [" "]}, "needs `answers`"),
        ({"gold_spans": [[2, 1]]}, "ends before it begins"),
        ({"gold_spans": [[-1, 1]]}, "gold_spans.0.0: "),
        ({"gold_spans": [[1]]}, "gold_spans.0.1: "),
        ({"duration": 0}, "duration: "),
    ],
)
def test_bad_rows_are_named(write: Any, change: dict[str, Any], message: str) -> None:
    path = write(GOOD, GOOD | {"id": "b"} | change)
    with pytest.raises(DataError) as error:
        read_rows(path)
    line = str(error.value)
    assert line.startswith(f"{path}:2: ") and message in line and "\n" not in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON object is expected"),
        ('{"id": "a", "duration": NaN}', "duration"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_bad_lines_are_named(write: Any, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_rows(write("", line))
    assert ":2: " in str(error.value)


def test_same_id_twice(write: Any) -> None:
    with pytest.raises(DataError, match=r":3: the id 'a' is already that of line 1"):
        read_rows(write(GOOD, GOOD | {"id": "b"}, GOOD))


def test_all_bad_rows_at_once_up_to_a_limit(write: Any) -> None:
    with pytest.raises(DataError) as error:
        read_rows(write(*[GOOD | {"id": str(i), "answer": "z"} for i in range(SHOWN + 3)]))
    lines = str(error.value).split("\n")
    assert len(lines) == SHOWN + 1 and lines[-1] == "and 3 more bad rows"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_files_without_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "q.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="q.jsonl"):
        read_rows(tmp_path / "q.jsonl")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="cannot read questions"):
            read_rows(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf-32"])
def test_every_unicode_encoding_is_read(write: Any, encoding: str) -> None:
    path = write(GOOD, GOOD | {"id": "b", "question": "Läutet es?"})
    wanted = read_rows(path)
    path.write_bytes(path.read_text("utf-8").replace("\n", "\r\n").encode(encoding))
    assert read_rows(path) == wanted


def test_a_json_list_is_read_and_its_entries_are_counted(write: Any) -> None:
    rows = [GOOD, GOOD | {"id": "b"}]
    assert [row.id for row in read_rows(write(json.dumps(rows, indent=1)))] == ["a", "b"]
    with pytest.raises(DataError, match=r"q.jsonl:2: the answer 'z' is none of the choices"):
        read_rows(write(json.dumps([GOOD, GOOD | {"id": "b", "answer": "z"}])))
    with pytest.raises(DataError, match="begins like a JSON list and is none: [^\n]*$"):
        read_rows(write(json.dumps(rows)[:-5]))


@pytest.mark.parametrize(
    "head", ["id,audio,question", "id;audio;question", '"id"\t"audio"', "audio\tquestion"]
)
def test_a_table_is_refused_in_one_line(write: Any, head: str) -> None:
    with pytest.raises(DataError, match="is a table: questions are one JSON object per line[^\n]*$"):
        read_rows(write(head, "1,clips/a.wav,What?"))


def test_null_counts_as_not_given(write: Any) -> None:
    blank = dict.fromkeys(("answers", "difficulty", "family", "gold_spans", "duration"))
    (row,) = read_rows(write(GOOD | blank))
    assert (row.gold_spans, row.category, row.difficulty, row.duration) == ((), "", "", None)


def test_paths_are_found_as_other_systems_write_them(write: Any, tmp_path: Path) -> None:
    composed, decomposed = (normalize(form, "clips/café.wav") for form in ("NFC", "NFD"))
    (tmp_path / decomposed).write_bytes(b"RIFF")
    windows = GOOD | {"audio": "clips\\a.wav"}
    first, second = read_rows(write(GOOD | {"audio": composed}, windows | {"id": "b"}))
    assert first.audio == str(tmp_path / decomposed)
    assert second.audio == str(tmp_path / "clips" / "a.wav")


def test_a_loop_of_links_is_no_file(write: Any, tmp_path: Path) -> None:
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    with pytest.raises(DataError, match=r":1: audio: [^\n]*$"):
        read_rows(write(GOOD | {"audio": "loop.wav"}))


@pytest.mark.parametrize("depth", [300, 990, 50_000])
def test_deep_nesting_is_named_with_its_line(write: Any, depth: int) -> None:
    deep = json.dumps(GOOD)[:-1] + ', "more": ' + "[" * depth + "]" * depth + "}"
    with pytest.raises(DataError, match=r":1: not JSON: its brackets are nested[^\n]*$"):
        read_rows(write(deep))


@pytest.mark.parametrize(
    "change", ['"duration": 1' + "0" * 4000, '"duration": 1e999', '"id": 1' + "0" * 5000]
)
def test_absurd_numbers_are_named_with_their_line(write: Any, change: str) -> None:
    with pytest.raises(DataError, match=r"q.jsonl:1: [^\n]{1,300}$"):
        read_rows(write(json.dumps(GOOD)[:-1] + f", {change}}}"))


def test_the_category_has_its_name_in_files(write: Any) -> None:
    (row,) = read_rows(write(GOOD | {"family": "order"}))
    assert row.family == row.category == "order"


def test_the_table_of_fields_in_the_docs_is_that_of_the_code() -> None:
    text = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
    table = text.partition("## Files of questions")[2].partition("\n## ")[0]
    named = {
        name for line in re.findall(r"^\| (`[^|]*) \|", table, re.M) for name in re.findall(r"`(\w+)`", line)
    }
    fields = {
        field.serialization_alias or name for name, field in Row.model_fields.items() if not field.exclude
    }
    assert named == fields
