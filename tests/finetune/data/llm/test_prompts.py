"""Prompts and records as texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.llm.prompts import load_prompt, record_text
from tests.finetune.data.llm.chats import make_records


def test_ours_are_found_and_filled() -> None:
    prompt = load_prompt("compose", ("questions",))
    text = prompt.fill(questions="7")
    assert "Write 7 questions" in text and '{"questions": [' in text
    assert prompt.version.startswith("compose@") and len(prompt.version) == len("compose@") + 8


def test_a_wording_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "compose.txt").write_text("Ask $questions for {money}, $$5 each.\n")
    prompt = load_prompt("compose", ("questions",), tmp_path)
    assert prompt.fill(questions="$x") == "Ask $x for {money}, $5 each."
    assert prompt.version != load_prompt("compose", ("questions",)).version
    assert load_prompt("retry", ("reason",), tmp_path) == load_prompt("retry", ("reason",))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"Ask $how many.", r"holds \$how; it is filled with \$questions"),
        (b"It costs 5 $.", "begins no placeholder"),
        (b" \n", "is empty"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_bad_prompts(data: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "compose.txt").write_bytes(data)
    with pytest.raises(DataError, match=match):
        load_prompt("compose", ("questions",), tmp_path)


def test_a_record_says_what_is_known_and_what_is_not() -> None:
    (record,) = make_records()
    text = record_text(record.model_copy(update={"labels": ("dog", "cat")}), {"heard": "A dog.", "said": ""})
    assert "5 to 7: bell, 3 times" in text and "every event is marked" in text
    assert "Not heard anywhere: cat" in text and "heard: A dog." in text and "said" not in text
    partial = record_text(record.model_copy(update={"labels": ("dog", "cat"), "complete": False}))
    assert "not marked" in partial and "Not heard" not in partial
