"""Results of conformance tests as a table: a row for each family, a column for each claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from echo_agent.conformance.claims import CLAIM, Made

COLUMNS = (
    "cached = uncached",
    "batched = single",
    "token accounting",
    "short and long crops",
    "eight crops",
    "window edges",
    "gradients",
    "bfloat16",
    "save and load",
    "SFT step",
    "RL step",
    "engine = one full pass",
    "engine = trainer",
)
"""Claims, in the order of the table."""
PASSED, FAILED, MISSING = "yes", "**no**", ""


class Tally:
    """A plugin of pytest that counts what passed and failed, by family and claim."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.found: dict[str, dict[str, list[bool]]] = {}
        self._places: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Note which test stands for what."""
        for item in items:
            test: Any = item
            text = getattr(getattr(test, "function", None), CLAIM, None)
            owner = getattr(test, "cls", None)
            if text is not None and owner is not None and issubclass(owner, Made):
                self._places[item.nodeid] = (
                    getattr(owner, "kind", owner.__name__.removeprefix("Test")),
                    text,
                )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count the test, or the making of what it needs where that fails; what is skipped says nothing."""
        if report.nodeid in self._places and (report.failed or (report.when == "call" and report.passed)):
            family, text = self._places[report.nodeid]
            self.found.setdefault(family, {}).setdefault(text, []).append(report.passed)

    @property
    def markdown(self) -> str:
        """The table."""
        claims = [*COLUMNS, *sorted({text for row in self.found.values() for text in row} - {*COLUMNS})]
        lines = ["| family | " + " | ".join(claims) + " |", "|---" * (len(claims) + 1) + "|"]
        for family, row in self.found.items():
            cells = [_cell(row.get(text)) for text in claims]
            lines.append(f"| {family} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def _cell(results: list[bool] | None) -> str:
    """One cell; empty where no test was run."""
    if results is None:
        return MISSING
    return PASSED if all(results) else FAILED
