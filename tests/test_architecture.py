"""The house has no circle and no import that points up; its drawing is made by the command that the docs name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs" / "draw_architecture.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_import_points_up_and_no_files_are_in_a_circle(script: ModuleType) -> None:
    found = script.graph()
    assert len(found) > 120, "the package was not found"
    assert script.faults(found) == []


def test_an_import_that_points_up_is_named(script: ModuleType) -> None:
    found = {"echo_agent.errors": {"echo_agent.chat"}, "echo_agent.chat": set[str]()}
    assert script.faults(found) == ["echo_agent.errors imports echo_agent.chat, which stands above it"]


def test_a_circle_is_named(script: ModuleType) -> None:
    one, other = "echo_agent.audio.files", "echo_agent.audio.recording"
    (fault,) = script.faults({one: {other}, other: {one}})
    assert fault.startswith("a circle of files: ") and one in fault and other in fault


def test_a_room_without_a_floor_is_named(script: ModuleType) -> None:
    assert script.faults({"echo_agent.attic": set()}) == ["echo_agent.attic stands on no floor"]


def test_imports_inside_functions_and_for_types_count(script: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from echo_agent.chat import ChatLALM\n"
        "def late():\n    import echo_agent.errors\n    from echo_agent import stores\n"
    )
    known = dict.fromkeys(("echo_agent.chat", "echo_agent.errors", "echo_agent.stores"), source)
    assert set(script.imports(source, known)) == set(known)


def test_it_is_drawn(script: ModuleType, tmp_path: Path) -> None:
    assert script.main([str(tmp_path / "house.svg")]) == 0
    text = (tmp_path / "house.svg").read_text()
    assert "</svg>" in text


def test_the_page_names_files_that_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = page[page.index("## A question") :]
    for name in re.findall(r"`([a-z_/]+\.py)`", walks):
        places = (ROOT / name, ROOT / "echo_agent" / name, ROOT / "finetune" / name)
        assert any(place.is_file() for place in places), f"{name} is named, but not there"
