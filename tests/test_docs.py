"""Every code block in the README and in docs/ runs as written, or says what it needs and is checked.

The blocks of a page are one session, from top to bottom, in an empty folder that holds a link to ``examples/``: Python
shares its names, and the commands ``ask``, ``models``, ``eval`` and the quick ones of ``finetune data`` run in this
process (other tests install and make).
A block under ``<!-- needs: ... -->`` (a GPU, the hub, a long download) is not run: what its Python imports from here,
and its commands and options, must exist.
"""

from __future__ import annotations

import argparse
import ast
import re
import runpy
import shlex
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

import echo_agent
from echo_agent.asked import AskOptions
from echo_agent.cli import app, main
from echo_agent.families.loading import known_models
from echo_agent.finetune.cli import app as finetune
from echo_agent.shipped import SHIPPED

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(?:<!-- needs: ([^>]+) -->\n)?^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
QUICK = [["data", verb] for verb in ("bank", "scenes", "build", "inspect")]
"""Verbs of finetune that a page may run."""
LONG = {"data.md", "long-recordings.md", "report.md"}
"""Pages whose blocks take more than a few seconds."""
KINDS = {"python", "bash", "text", "json"}


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    page: Path
    line: int
    needs: str | None
    kind: str
    code: str

    @property
    def commands(self) -> list[list[str]]:
        """Its commands, in words."""
        if self.kind != "bash":
            return []
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start(2)) + 1, *found.groups())
        for found in BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]


def of_kind(kind: str) -> list[Any]:
    """The blocks of a kind as parameters of a test."""
    return [pytest.param(block, id=f"{block.page.name}:{block.line}") for block in ALL if block.kind == kind]


def test_blocks_are_found_and_say_what_they_are() -> None:
    assert {block.page.name for block in ALL} >= {"README.md", "tutorial.md", "python.md", "echo-nano.md"}
    assert {block.kind for block in ALL} <= KINDS
    fences = sum(page.read_text(encoding="utf-8").count("\n```") for page in PAGES)
    assert fences == 2 * len(ALL), "a block is not closed, or begins a page"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_it_needs(page: Path) -> None:
    """Checked apart, so that no test ever downloads or trains."""
    for block in blocks(page):
        long = [
            words
            for words in block.commands
            if (words[:2] == ["echo-agent", "finetune"] and words[2:4] not in QUICK)
            or ("--model" in words and words[words.index("--model") + 1] not in SHIPPED)
        ]
        assert block.needs or not long


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.name in LONG else (), id=page.name) for page in PAGES],
)
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECHO_AGENT_HOME", str(tmp_path))
    names: dict[str, Any] = {"__name__": page.stem}
    try:
        for block in blocks(page):
            if block.needs:
                continue
            if block.kind == "python":
                code = "\n" * block.line + block.code  # so that a traceback names the line of the page
                exec(compile(code, str(page), "exec"), names)
            elif block.kind == "bash":
                for program, *arguments in block.commands:
                    if program == "echo-agent" and arguments[0] in (
                        "ask",
                        "report",
                        "models",
                        "eval",
                        "finetune",
                    ):  # 3: the small model may write what is no answer
                        assert main(arguments) in (0, 3), f"{page.name}:{block.line}: {arguments}"
    finally:
        if isinstance(agent := names.get("agent"), echo_agent.EchoAgent):
            agent.close()


@pytest.mark.parametrize("block", of_kind("python"))
def test_names_that_python_imports_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("echo_agent"):
            module = import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)


@pytest.mark.parametrize("block", of_kind("bash"))
def test_commands_and_options_exist(block: Block) -> None:
    for command in block.commands:
        check(command)


def check(command: list[str]) -> None:
    """Check the program, its verb, and its options; raises AssertionError where one does not exist."""
    program, *words = command
    if program == "echo-agent":
        check_ours(words)
    elif program == "make":
        verbs = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words and set(words) <= set(verbs), command
    elif program == "accelerate":
        assert words[:2] == ["launch", "--num_processes"] and words[3:5] == ["-m", "echo_agent.cli"], command
        check_ours(words[5:])
    elif program == "python" and words[0] == "-m":
        assert find_spec(words[1]), command
    elif program == "python":
        assert (ROOT / words[0]).is_file(), command
        check_script(ROOT / words[0], words[1:])
    else:
        known = [["pip", "install"], ["apt-get", "install"], ["langgraph", "dev"], ["inspect", "eval"]]
        assert command[:2] in known, command


def check_ours(words: list[str]) -> None:
    """Check a command of ours against what the command line knows."""
    verb: Any = typer.main.get_command(app)
    if words[0] == "finetune":
        verb, words = typer.main.get_command(finetune), words[1:]
    if words[0] == "data" and "data" in verb.commands:
        verb, words = verb.commands["data"], words[1:]
    verb, words = verb.commands[words[0]], words[1:]
    if hasattr(verb, "commands"):  # `eval FILE` is short for `eval run FILE`
        verb, words = (
            (verb.commands[words[0]], words[1:])
            if words[0] in verb.commands
            else (verb.commands["run"], words)
        )
    options = {name: option for option in verb.params for name in [*option.opts, *option.secondary_opts]}
    wanted = [option for name, option in options.items() if not name.startswith("-")]
    given = 0
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            given += 1
            continue
        assert word in options, f"{verb.name} has no option {word}"
        if not options[word].is_flag:
            assert next(rest, "--") != "--", f"{word} needs a value"
    least = sum(option.required for option in wanted)
    most = float("inf") if any(option.nargs == -1 for option in wanted) else len(wanted)
    assert least <= given <= most, f"{verb.name} takes {len(wanted)} arguments, not {words}"


def check_script(path: Path, words: list[str]) -> None:
    """Let a script's own parser read its arguments, and go no further."""

    class Parsed(Exception):
        pass

    read = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        read(self, words)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize(
    "command",
    [
        "echo-agent ask a.wav",
        "echo-agent ask a.wav what --loud",
        "echo-agent ask a.wav what --seed",
        "echo-agent finetune nano BANK",
        "make coffee",
        "rm -rf build",
        "python benchmarks/none.py",
    ],
)
def test_what_does_not_exist_is_noticed(command: str) -> None:
    with pytest.raises(AssertionError):
        check(shlex.split(command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            file, _, heading = target.partition("#")
            aim = (page.parent / file).resolve() if file else page
            assert aim.exists(), target
            headings = (
                re.findall(r"^#+ (.*)$", aim.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
            )
            assert not heading or heading in {
                re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings
            }


def test_the_reference_names_all_that_is_public() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    missing = {name for name in [*echo_agent.__all__, *AskOptions.model_fields] if f"`{name}" not in text}
    assert not missing


def test_the_limits_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    for model in known_models():
        memory = f"{model.memory('float32' if model.name in SHIPPED else 'bfloat16'):.1f} GB"
        row = next(line for line in text.splitlines() if line.startswith(f"| `{model.name}`"))
        assert memory in row and f"{model.longest_recording:g} s" in row, f"{model.name}: {memory}"
