"""The wheel holds what the tree holds, installs one top-level package, and works outside the repository."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
from packaging.requirements import Requirement

from tests.test_docs import Block, blocks

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {"echo_agent": "echo_agent", "tools": "echo_agent/tools"} | {
    name: f"echo_agent/{name}" for name in ("graphs", "finetune")
}
"""Folder in the tree -> folder in the wheel."""
SUFFIXES = {".py", ".safetensors", ".json", ".yaml", ".txt", ".html", ".css", ".js"}


def tree() -> Iterator[tuple[Path, str]]:
    """Files of the four folders that belong in the wheel, each with its path in the wheel."""
    for folder, target in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and (path.suffix in SUFFIXES or path.name == "py.typed"):
                if "__pycache__" not in path.parts:
                    yield path, f"{target}/{path.relative_to(ROOT / folder).as_posix()}"


def run(*command: str | Path, cwd: Path, given: str = "", **environment: str) -> str:
    """Run a command to its end and return what it wrote; its output is the message where it fails."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | environment
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, input=given, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree, so that no stale build folder gets into it and none is left behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", cwd=source)
    (path,) = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.mark.slow
def test_wheel_holds_the_tree(names: set[str]) -> None:
    expected = {target for _, target in tree()}
    assert "echo_agent/tools/__init__.py" in expected, "the tree was not found"
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_every_folder_with_modules_is_a_listed_package() -> None:
    listed = set(PYPROJECT["tool"]["setuptools"]["packages"])
    found = {str(Path(target).parent).replace("/", ".") for path, target in tree() if path.suffix == ".py"}
    assert listed == found


@pytest.mark.slow
def test_wheel_installs_one_package(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"echo_agent"}


@pytest.mark.slow
def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        licences = [n for n in archive.namelist() if "/licenses/" in n]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert sorted(Path(n).name for n in licences) == ["LICENSE", "NOTICE"]
    required = {
        Requirement(line).name for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line
    }
    named = {"transformers", "torch", "langgraph", "pydub", "torchaudio", "peft", "trl", "pydantic", "typer"}
    assert named <= required


def test_bare_folder_names_are_banned(tmp_path: Path) -> None:
    """Lint refuses `import tools`: the folder is importable from the repository's root only, and by accident."""
    code = "import tools\nfrom graphs import listening\nimport finetune.data\nimport echo_agent.tools\n"
    (tmp_path / "module.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--config", ROOT / "pyproject.toml", "--select", "TID251"]
        + ["--output-format", "concise", "--no-cache", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("TID251") == 3, done.stdout + done.stderr


# --- in a clone ---------------------------------------------------------------------------------------------------

SITE = Path(pydantic.__file__).parents[1]
"""Where the packages are that ours needs."""


def clone(folder: Path) -> Path:
    """What a clone of the repository holds, as far as its pages need it."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder)
    for name in (*FOLDERS, "docs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
def test_the_folders_of_a_checkout_are_found_beside_the_package(tmp_path: Path) -> None:
    """Started at its root, Python finds `echo_agent/` there, in front of whatever is installed."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    (tmp_path / "tools" / "elsewhere.py").touch()
    code = "import echo_agent.tools.elsewhere, echo_agent.finetune.config as c, graphs; print(c.__file__)"
    code += "; import importlib.util as u; print(u.find_spec('echo_agent.examples'))"
    printed = run(sys.executable, "-S", "-c", code, cwd=tmp_path, PYTHONPATH=str(SITE)).splitlines()
    assert printed == [str(tmp_path / "finetune" / "config.py"), "None"]


@pytest.mark.slow
def test_the_pages_run_in_a_clone_after_the_documented_install(tmp_path: Path) -> None:
    """The README's install, then the Python of README and tutorial from the root of the clone."""
    root, env = clone(tmp_path / "clone"), tmp_path / "env"
    run(sys.executable, "-m", "venv", "--without-pip", env, cwd=tmp_path)
    python = env / "bin" / "python"
    (site,) = env.glob("lib/python3*/site-packages")
    (site / "needed.pth").write_text(f"{SITE}\n", encoding="utf-8")
    pages: list[list[Block]] = [blocks(root / "README.md"), blocks(root / "docs" / "tutorial.md")]
    (install,) = (
        c for block in pages[0] for c in block.commands if c[:2] == ["pip", "install"] and not block.needs
    )
    quick = ["--quiet", "--no-deps", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *quick, *install[2:], cwd=root)
    for page in pages:
        code = "\n".join(block.code for block in page if block.kind == "python" and not block.needs)
        assert "import" in code
        run(python, "-W", "ignore", "-", cwd=root, given=code, ECHO_AGENT_HOME=str(tmp_path))


@pytest.mark.slow
def test_installed_wheel_works_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    code = "import echo_agent.tools, echo_agent.graphs, echo_agent.finetune as f; print(f.__file__)"
    printed = run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(printed.strip()).is_relative_to(site)
    assert sorted(p.name for p in site.iterdir() if not p.name.endswith(".dist-info")) == [
        "bin",
        "echo_agent",
    ]
    printed = run(sys.executable, site / "bin" / "echo-agent", "--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert "ask" in printed
