"""``echo-agent finetune``: help for every verb, and one clear line for every bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from echo_agent.cli import DEBUG, main
from echo_agent.errors import DataError
from echo_agent.finetune.cli import MOST_SHARDS
from echo_agent.finetune.config import parse_recipe, read_recipe, recipe_names
from echo_agent.finetune.data.bank.bank import build_bank
from echo_agent.finetune.data.bank.manifest import MANIFEST
from echo_agent.finetune.data.bank.packages import PACKAGES, RESERVED, fetch
from echo_agent.finetune.nano import testset
from echo_agent.finetune.nano.train import VAL_SHARDS, NanoRecipe
from tests.cli.commands import Result, Run, refused
from tests.finetune.small_bank import write_bank

VERBS = ("testset", "nano")
ALL = ("sound", "note", "background", "digit", "word")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv(DEBUG, raising=False)

    def run(*arguments: str | Path) -> Result:
        code = main(["finetune", *map(str, arguments)])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def debs(tmp_path: Path) -> Path:
    """A folder in which every package is unpacked, and holds nothing."""
    folder = tmp_path / "debs"
    for package in PACKAGES:
        (folder / package.name).mkdir(parents=True)
    return folder


def test_help(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "") and all(verb in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb(run: Run, verb: str) -> None:
    code, out, err = run(verb, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: echo-agent finetune {verb}" in out
    for argument in ("BANK", "OUT", "--seed"):
        assert argument in out


@pytest.mark.parametrize("verb", VERBS)
def test_a_missing_argument(run: Run, verb: str) -> None:
    refused(run(verb), f"echo-agent finetune {verb} --help")


def test_an_unknown_verb(run: Run) -> None:
    refused(run("brew", "tea"), "brew")


# --- fetch --------------------------------------------------------------------------------------------------------


def test_fetch_leaves_alone_what_is_there(debs: Path) -> None:
    before = sorted(debs.iterdir())
    fetch(debs)
    assert sorted(debs.iterdir()) == before


def test_fetch_beside_a_reserved_package(run: Run, debs: Path, tmp_path: Path) -> None:
    (debs / sorted(RESERVED)[0]).mkdir()
    refused(run("data", "bank", "--free", debs, tmp_path / "out"), "reserved")


def test_fetch_where_there_is_no_apt(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(run("data", "bank", "--free", tmp_path / "debs", tmp_path / "out"), "apt-get")


def test_fetch_when_apt_fails(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(run("data", "bank", "--free", tmp_path / "debs", tmp_path / "out"), "exit code 100")


def test_fetch_into_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    refused(run("data", "bank", "--free", tmp_path / "file", tmp_path / "out"), "is a file")


# --- bank ---------------------------------------------------------------------------------------------------------


def test_bank_without_packages(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fetch them first"):
        build_bank(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bank_where_there_is_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_bytes(b"a manifest")
    refused(run("data", "bank", "--free", tmp_path / "debs", tmp_path / "out"), "already holds a bank")
    assert not (tmp_path / "debs").exists(), "nothing was fetched for it"
    assert (tmp_path / "out" / MANIFEST).read_bytes() == b"a manifest"


# --- testset ------------------------------------------------------------------------------------------------------


def test_testset_without_a_bank(run: Run, tmp_path: Path) -> None:
    refused(run("testset", tmp_path / "nowhere", tmp_path / "out"), "echo-agent finetune data bank")
    assert not (tmp_path / "out").exists()


def test_testset_where_there_is_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "core.jsonl").write_text("rows")
    bank = write_bank(tmp_path / "bank", {"test": ALL})
    refused(run("testset", bank, tmp_path), "core.jsonl is there already")
    assert (tmp_path / "core.jsonl").read_text() == "rows"


def test_testset_of_a_bank_without_the_split(run: Run, tmp_path: Path) -> None:
    bank = write_bank(tmp_path / "bank", {"train": ("sound",)})
    refused(run("testset", bank, tmp_path / "out"), "split")


def test_testset_of_a_damaged_bank(run: Run, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"PAR1 but no table")
    refused(run("testset", tmp_path, tmp_path / "out"), MANIFEST)
    bank = write_bank(tmp_path / "bank", {}, listed=("test",))
    refused(run("testset", bank, tmp_path / "out"), ".wav")


def test_testset(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = testset.TestSet("core", "test", "test", 3, 10.0, 12.0)
    monkeypatch.setattr(testset, "SETS", (small,))
    bank = write_bank(tmp_path / "bank", {"test": ALL})
    code, out, err = run("testset", bank, tmp_path / "out", "--seed", "3")
    path = tmp_path / "out" / "core.jsonl"
    assert (code, out, err) == (0, f"{path}: 3 questions\n", "")
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 3


# --- nano ---------------------------------------------------------------------------------------------------------


def test_nano_without_a_bank(run: Run, tmp_path: Path) -> None:
    refused(run("nano", tmp_path / "nowhere", tmp_path / "out"), "echo-agent finetune data bank")
    assert not (tmp_path / "out").exists()


def test_nano_into_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    refused(run("nano", tmp_path, tmp_path / "file"), "is a file")


def test_nano_with_a_damaged_shard(run: Run, tmp_path: Path) -> None:
    tiles = tmp_path / "run" / "tiles"
    assert MOST_SHARDS == VAL_SHARDS - 1
    for split, first, count in (("train", 0, 1), ("val", VAL_SHARDS, NanoRecipe.val_shards)):
        (tiles / split).mkdir(parents=True)
        for number in range(first, first + count):
            (tiles / split / f"{number:04d}.safetensors").write_bytes(b"half")
    refused(run("nano", tmp_path, tmp_path / "run", "--shards", "1"), "0000.safetensors")


@pytest.mark.parametrize(
    ("option", "value"), [("--shards", "0"), ("--steps", "3"), ("--branch-epochs", "none"), ("--seed", "-1")]
)
def test_nano_with_impossible_settings(run: Run, tmp_path: Path, option: str, value: str) -> None:
    refused(run("nano", tmp_path, tmp_path / "out", option, value), option)


# --- training ---------------------------------------------------------------------------------------------------


def test_recipes_are_listed_with_a_sentence_each_and_printed_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["finetune", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(recipe_names()) and all(line.endswith(".") and len(line) > 50 for line in lines)
    assert main(["finetune", "recipes", "nano-rl"]) == 0
    assert parse_recipe(yaml.safe_load(capsys.readouterr().out), "printed") == read_recipe("nano-rl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sft", "nano-rl", "d", "r"], "is of the stage rl: use `echo-agent finetune rl`"),
        (["rl", "nano-sft", "d", "r"], "is of the stage sft: use `echo-agent finetune sft`"),
        (["sft", "nano", "d", "r"], "there is no recipe nano"),
        (["sft", "nano-sft", "none", "r"], "none holds no whole dataset"),
        (["sft", "nano-sft", "d", "r", "--set", "optimizer.steps=3"], "optimizer: there is no such key"),
        (["rl", "nano-rl", "d", "r", "--set", "rollout.questions=3"], "must be a multiple of"),
        (["merge", "none", "out"], "none holds no adapters"),
        (["recipes", "none"], "there is no recipe none"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", *words]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("echo-agent:")]
    assert len(said) == 1 and message in said[0]
