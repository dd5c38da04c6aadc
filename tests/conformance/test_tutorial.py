"""The tutorial's family, as the page writes it, passes the conformance tests; and it stays an afternoon's work."""

from __future__ import annotations

from typing import Any

from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "new-family.md"
CODE = [block.code for block in blocks(PAGE) if block.kind == "python"]

_names: dict[str, Any] = {"__name__": "hum"}
exec(
    compile("\n".join(CODE[:-1]), str(PAGE), "exec"), _names
)  # the last block asks with it; test_docs runs that
TestHum: Any = _names["TestHum"]


def test_it_takes_less_than_150_lines() -> None:
    assert sum(code.count("\n") for code in CODE) < 150
