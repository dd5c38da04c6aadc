"""The table of families and claims: as the docs show it, and as the command prints it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from echo_agent.conformance.claims import CLAIM, Made, claim
from echo_agent.conformance.engine_tests import EngineTests
from echo_agent.conformance.family_tests import FamilyTests
from echo_agent.conformance.table import COLUMNS, MISSING, PASSED, Tally
from tests.conformance.test_servers import Served
from tests.conformance.test_tutorial import CODE
from tests.test_docs import ROOT
from tests.tiny import ALL_KINDS

OF_ENGINES = {
    getattr(getattr(EngineTests, name), CLAIM) for name in dir(EngineTests) if name.startswith("test_")
}


def test_every_test_stands_for_a_column() -> None:
    tests = [getattr(FamilyTests, name) for name in dir(FamilyTests) if name.startswith("test_")]
    assert {getattr(test, CLAIM) for test in tests} == set(COLUMNS)


def test_the_docs_show_the_table_of_all_families() -> None:
    """What passes there passes in the tests beside this one, or they fail."""
    lines = (ROOT / "docs" / "families.md").read_text(encoding="utf-8").splitlines()
    begin = lines.index("| family | " + " | ".join(COLUMNS) + " |")
    rows = {}
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        family, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[family] = cells
    served = {each.kind for each in Served.__subclasses__()}
    assert rows.keys() == {*ALL_KINDS, "hum", *served}
    for family, cells in rows.items():
        claims = OF_ENGINES if family in served else set(COLUMNS)
        assert cells == [PASSED if claim in claims else MISSING for claim in COLUMNS]


@pytest.mark.slow
def test_the_command_prints_what_passed_and_what_did_not(tmp_path: Path) -> None:
    code = "\n".join(CODE[:-1]).replace("return frames // FRAMES", "return frames // FRAMES + BROKEN")
    for broken, cell in ((0, PASSED), (1, "**no**")):
        (tmp_path / "test_hum.py").write_text(f"BROKEN = {broken}\n{code}")
        done = subprocess.run(
            [sys.executable, "-m", "echo_agent.conformance", "test_hum.py", "-k", "eight_crops"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == broken
        row = next(line for line in done.stdout.splitlines() if line.startswith("| hum |"))
        assert row.split("|")[2 + COLUMNS.index("eight crops")].strip() == cell


class Hearing(Made):
    kind = "made"

    @claim("eight crops")
    def test_heard(self) -> None: ...

    @claim("RL step")
    def test_trained(self) -> None: ...


def reports(name: str, **outcomes: Literal["passed", "failed", "skipped"]) -> Iterator[pytest.TestReport]:
    """What pytest says of the parts of a test."""
    parts: Any = outcomes.items()
    for when, outcome in parts:
        yield pytest.TestReport(name, (name, 0, name), {}, outcome, None, when)


def test_what_is_skipped_is_no_failure() -> None:
    """Some families have not what a test is about: a stream, for one."""
    tally = Tally()
    tests = {
        "a": Hearing.test_heard,
        "b": Hearing.test_heard,
        "c": Hearing.test_heard,
        "d": Hearing.test_trained,
    }
    items: Any = [SimpleNamespace(nodeid=name, cls=Hearing, function=test) for name, test in tests.items()]
    tally.pytest_collection_modifyitems(items)
    for report in (
        *reports("a", setup="passed", call="passed", teardown="passed"),
        *reports("b", setup="passed", call="skipped", teardown="passed"),
        *reports("c", setup="skipped", teardown="passed"),
    ):
        tally.pytest_runtest_logreport(report)
    assert tally.found == {"made": {"eight crops": [True]}}
    for report in reports("d", setup="passed", call="failed", teardown="passed"):
        tally.pytest_runtest_logreport(report)
    assert tally.found["made"]["RL step"] == [False]
