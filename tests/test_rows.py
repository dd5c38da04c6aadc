"""Files of questions: what is read, and that each bad row is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from echo_agent.errors import DataError
from echo_agent.rows import SHOWN, read_rows

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
