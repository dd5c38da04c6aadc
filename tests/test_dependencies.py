"""What is imported is declared in pyproject.toml, also inside functions, and what is declared has bounds that hold."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(line) for line in PROJECT["dependencies"]]
DEV = [
    Requirement(line)
    for lines in PROJECT["optional-dependencies"].values()  # dev names nearly all of them
    for line in lines
    if not line.startswith(f"{PROJECT['name']}[")
]
OWN = {"echo_agent", "tests", "benchmarks"}
NOT_DEV = {"bitsandbytes", "torchao", "inspect-ai"}
"""What is no part of dev: the first two since transformers imports them wherever they are installed, the third since it
brings a hundred packages."""
EXTRAS = {
    "conformance": ("echo_agent/conformance/",),
    "serve": ("echo_agent/serve/", "echo_agent/cli/serve.py"),
    "ui": ("echo_agent/pages/studio.py", "echo_agent/cli/studio.py"),
}
"""Extras, and the files that need them; these say so where they are not installed."""


def imported(code: str) -> Iterator[str]:
    """Top-level names of all that a module imports, wherever it does; not what it can do without.

    It can do without what is imported in a `try` that expects the ImportError.
    """
    tree = ast.parse(code)
    spared: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(_catches_import_error(handler) for handler in node.handlers):
            spared.update(inner for line in node.body for inner in ast.walk(line))
    for node in ast.walk(tree):
        if node in spared:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            if isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value).partition(".")[0]


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    return handler.type is not None and "ImportError" in ast.unparse(handler.type)


def undeclared(folders: list[str], declared: list[Requirement]) -> dict[str, str]:
    """Imports of the files in folders that none of the declared packages brings, each with a file that has it."""
    brings = packages_distributions()
    missing: dict[str, str] = {}
    known = {canonicalize_name(one.name) for one in declared}
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
        where = path.relative_to(ROOT).as_posix()
        extras = [extra for extra, files in EXTRAS.items() if where.startswith(files)]
        lines = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
        names = known | {canonicalize_name(Requirement(line).name) for line in lines}
        for name in imported(path.read_text(encoding="utf-8")):
            packages = {canonicalize_name(package) for package in brings.get(name, [name])}
            if name not in OWN and name not in sys.stdlib_module_names and not packages & names:
                missing[name] = str(path.relative_to(ROOT))
    return missing


def test_imports_are_found_wherever_they_stand() -> None:
    code = """
import os.path, one.inner
from two.inner import thing
from . import sister
if TYPE_CHECKING:
    from three import Thing
def late():
    import four
    importlib.import_module("five.inner")
    try:
        import six
    except (ImportError, OSError):
        import seven
    try:
        import eight
    except ValueError:
        pass
"""
    assert sorted(imported(code)) == sorted("os one two three four five seven eight".split())


def test_what_the_package_imports_is_declared() -> None:
    assert undeclared(["echo_agent", "tools", "graphs", "finetune"], NEEDED) == {}


def test_what_tests_and_benchmarks_import_is_declared() -> None:
    assert undeclared(["tests", "benchmarks", "docs", "examples"], NEEDED + DEV) == {}


@pytest.mark.parametrize("requirement", NEEDED + DEV, ids=str)
def test_a_dependency_has_bounds_that_hold(requirement: Requirement) -> None:
    operators = sorted(bound.operator for bound in requirement.specifier)
    assert operators == ["<", ">="], f"{requirement} needs a lower and an upper bound"
    if requirement.name in NOT_DEV:
        pytest.importorskip(requirement.name.replace("-", "_"), reason="it is no part of dev")
    if requirement.marker is None or requirement.marker.evaluate():
        assert requirement.specifier.contains(version(requirement.name))
