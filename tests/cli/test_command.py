"""Help, the version, and the verbs of ``finetune``."""

from __future__ import annotations

import re
import sys
import types

import pytest
import typer

from tests.cli.commands import Run, refused


def test_help_and_version(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and all(name in out for name in ("ask", "report", "serve", "studio", "models", "eval"))
    assert run()[0] == 2
    assert re.fullmatch(r"echo-agent \d+\.\d+\S*\n", run("--version")[1])
    code, out, _ = run("ask", "--help")
    options = (
        "choices model device quantise device-map max-relistens no-relisten temperature seed json trace plot"
    )
    options += " thread report"
    assert code == 0 and all(f"--{name}" in out for name in options.split())
    refused(run("listen"), "listen")


def test_finetune_is_mounted_lazily(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its verbs get their own arguments, help, exit codes and usage errors; here a stand-in with two."""
    verbs = typer.Typer(rich_markup_mode=None)

    @verbs.command()
    def count(to: int, code: int = 0) -> None:
        """Count."""
        print(*range(to))
        raise typer.Exit(code)

    @verbs.command()
    def stop() -> None:
        """Stop."""

    monkeypatch.setitem(sys.modules, "echo_agent.finetune.cli", types.SimpleNamespace(app=verbs))
    assert run("finetune", "count", "3", "--code", "7") == (7, "0 1 2\n", "")
    assert run("finetune", "stop") == (0, "", "")
    code, out, _ = run("finetune", "--help")
    assert code == 0 and "echo-agent finetune" in out and "count" in out
    refused(run("finetune", "count", "three"), "echo-agent finetune count --help")
    refused(run("finetune", "jump"), "jump")
