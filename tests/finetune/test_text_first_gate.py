"""The gate of text: what it asks, and what it counts as right."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from echo_agent.finetune.data.natural.asking import Asked
from echo_agent.finetune.data.natural.kinds import MAKERS


@pytest.fixture(scope="module")
def gate() -> Iterator[ModuleType]:
    """The script, imported as a module."""
    path = Path(__file__).parents[2] / "benchmarks/text_first.py"
    spec = importlib.util.spec_from_file_location("text_first_gate", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["text_first_gate"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["text_first_gate"]


TIME = Asked("when/start", "When?", None, "12 s", ("12 s", "0:12", "13 s"), "")
DOG = Asked(
    "order/first", "Which?", ("A. the dog", "B. the bell"), "A. the dog", ("A. the dog", "the dog"), ""
)


@pytest.mark.parametrize(("asked", "reply", "counts"), [
    (TIME, "dog 12-14.<answer>12 s</answer><|im_end|>", True),
    (TIME, "dog 12-14.<answer>0:12.</answer>", True),
    (TIME, "dog 12-14.<answer>15 s</answer>", False),
    (TIME, "12 s", False),
    (DOG, "<answer>the dog</answer>", True),
    (DOG, "<answer>B. the dog</answer>", False),
    (DOG, "<answer>the bell</answer>", False),
    (DOG, "<answer></answer>", False),
])  # fmt: skip
def test_what_is_right(gate: ModuleType, asked: Asked, reply: str, counts: bool) -> None:
    assert gate.right(asked, reply) is counts


def test_every_kind_is_asked_as_often_as_any_other(gate: ModuleType) -> None:
    asked = gate.items(2, "test")
    assert [item.asked.kind for item in asked] == [kind for kind in MAKERS for _ in range(2)]


def test_talks_by_another_author_are_answered_by_their_own_answers(gate: ModuleType) -> None:
    asked = gate.talk_items()
    assert len(asked) == 388
    for item in asked:
        assert gate.right(item.asked, f"<answer>{item.asked.answer}</answer>")
        assert item.timeline.startswith("0-")


def test_percent(gate: ModuleType) -> None:
    assert gate.percent([True, False, False]) == 33.3 and gate.percent([]) is None
