"""Text from outside: read in every Unicode encoding."""

import codecs
from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.text import parse_json, read_text

LINE = '{"question": "Läutet da eine Glocke?"}\r\n'


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
def test_a_text_is_read_in_whichever_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINE.encode(encoding))
    assert read_text(path, "questions") == LINE


def test_big_endian_marks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(codecs.BOM_UTF16_BE + LINE.encode("utf-16-be"))
    assert read_text(path, "questions") == LINE


def test_an_empty_text_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert read_text(tmp_path / "empty", "questions") == ""


@pytest.mark.parametrize("data", [b"caf\xe9", b"RIFF\x24\x08\x00\x00WAVEfmt \xff\xfe", b"\xff\xfea"])
def test_what_is_no_unicode_text_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cannot read questions from .*rows\.csv: it is not UTF-.* text"):
        read_text(path, "questions")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read questions from .*nowhere: No such file"):
        read_text(tmp_path / "nowhere", "questions")


@pytest.mark.parametrize("depth", [101, 990, 20_000, 1_000_000])
@pytest.mark.parametrize("brackets", ["[]", '{"a":}'])
def test_deep_nesting_is_refused_in_one_line(depth: int, brackets: str) -> None:
    text = brackets[:-1] * depth + "1" + brackets[-1] * depth
    with pytest.raises(ValueError, match="^its brackets are nested [^\n]*deep$"):
        parse_json(text)


def test_absurd_numbers_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="^[^\n]+$"):
        parse_json("[" + "9" * 5000 + "]")


def test_wide_json_is_read() -> None:
    assert parse_json("[" + "[]," * 1000 + "{}]") == [[]] * 1000 + [{}]
    assert parse_json("[" * 100 + "]" * 100)
