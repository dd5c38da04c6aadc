"""The evidence is drawn up from folders of runs: seeds averaged, policies compared on what both were asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evidence.py"
LENGTHS = {"short": 20.0, "middle": 50.0, "long": 100.0, "longer": 110.0}
"""Seconds of the recordings that are asked about; all but the first are asked about a detail."""


def write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def outcome(name: str, right: bool, control: str = "on", heard: float = 0.0) -> dict[str, object]:
    spans = [{"start": 1.0, "end": 1.0 + heard}] if heard else []
    return {
        "id": name, "control": control, "answer": "yes", "correct": right, "status": "answered", "relistens": spans,
        "tokens": {"audio": 48 + round(heard)}, "seconds_heard": heard, "budget_exhausted": False, "run": "r",
    }  # fmt: skip


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    rows = [
        {"id": name, "audio": f"{name}.wav", "duration": seconds, "question": "Is it?", "choices": ["yes", "no"],
         "answer": "yes", "family": "presence", "difficulty": "plain" if name == "short" else "detail",
         "gold_spans": [[1.0, 3.0]]}
        for name, seconds in LENGTHS.items()
    ]  # fmt: skip
    write_lines(tmp_path / "data" / "core.jsonl", rows)
    for test in ("unseen", "long"):
        write_lines(tmp_path / "data" / f"{test}.jsonl", rows[:1])
    for name in LENGTHS:
        (tmp_path / "data" / f"{name}.wav").touch()  # results are compared, nothing is heard
    (tmp_path / "data" / "lock.json").write_text(json.dumps({"sets": {"train": {"questions": 7}}}))
    return tmp_path / "data"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write_lines(folder / "a0" / "core.jsonl", [outcome(name, False) for name in LENGTHS])
    for seed, right in (("b0", True), ("b1", False)):
        write_lines(
            folder / seed / "core.jsonl",
            [outcome(name, right, heard=4.0) for name in LENGTHS]
            + [outcome(name, False, "off") for name in LENGTHS],
        )
        (folder / seed / "run.json").write_text(json.dumps({"seed": seed}))
    write_lines(folder / "d0" / "core.jsonl", [outcome("short", True), outcome("middle", True)])
    return folder


def drawn_up(runs: Path, dataset: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(runs), str(dataset), *more], capture_output=True, text=True
    )


def test_seeds_are_averaged_and_policies_compared_on_what_both_were_asked(
    runs: Path, dataset: Path, tmp_path: Path
) -> None:
    done = drawn_up(runs, dataset, "--out", str(tmp_path / "e.json"), "--picture", str(tmp_path / "e.png"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["training_set"] == {"questions": 7} and list(found["runs"]) == ["b0", "b1"]
    assert list(found["tests"]) == ["core"]  # nobody was asked the others
    core = found["tests"]["core"]
    on = core["scores"]["b"]["on"]
    assert (on["right"], on["seeds"], on["seconds_heard"], on["gold_iou"]) == (50.0, 2, 4.0, 0.5)
    assert on["difficulty"]["detail"] == {"right": 50.0, "questions": 3}
    assert core["short"]["d"]["right"] == 100.0 and core["short"]["b"]["questions"] == 2
    apart = core["differences"]
    assert apart["b over a"]["all"]["points"] == 50.0 and apart["a over b"]["detail"]["points"] == -50.0
    assert apart["d over b"]["detail"] == {"points": 50.0, "low": 50.0, "high": 50.0}  # one question
    assert apart["d over b"]["detail, 90-150 s"] is None
    assert apart["b, on over off"]["up to 60 s"]["points"] == 50.0
    assert imread(tmp_path / "e.png").std() > 0.01


def test_tables_show_each_policy_once(runs: Path, dataset: Path) -> None:
    tables = drawn_up(runs, dataset).stdout.split("\n\n")
    assert tables[0].splitlines()[2:] == ["| a | 0.0 | 0.0 |", "| b | 50.0 | 50.0 |"]
    assert "| d | 100.0 | 100.0 | 48 |" in tables[2]  # was not asked about the long ones
    assert "| b, detail | 50.0 | 0.0 |  |  |" in tables[3]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_what_is_missing_is_said(runs: Path, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for folder, data, message in (
        (tmp_path / "none", dataset, "no folder in it has results"),
        (runs, tmp_path / "none", "cannot read questions"),
    ):
        done = drawn_up(folder, data)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_what_was_not_asked_is_left_empty(dataset: Path, tmp_path: Path) -> None:
    """One policy, on long recordings without gold spans; another that was never given what it asked for."""
    runs = tmp_path / "runs"
    rows = [json.loads(line) for line in (dataset / "core.jsonl").read_text().splitlines()]
    write_lines(dataset / "core.jsonl", [row | {"gold_spans": []} for row in rows[1:]])
    write_lines(runs / "b0" / "core.jsonl", [outcome(name, True, heard=2.0) for name in LENGTHS])
    write_lines(runs / "c0" / "core.jsonl", [outcome(name, True, "off") for name in LENGTHS])
    done = drawn_up(runs, dataset, "--out", str(tmp_path / "e.json"))
    assert done.returncode == 0, done.stderr
    assert "| b | 100.0 |" in done.stdout and "100 % |  | 2.0 |  |" in done.stdout
    assert list(json.loads((tmp_path / "e.json").read_text())["tests"]["core"]["scores"]) == ["b"]
    (dataset / "lock.json").unlink()
    done = drawn_up(runs, dataset, "--out", str(tmp_path / "e.json"))
    assert done.returncode == 2 and "it has no lock.json, so it is not EchoBench" in done.stderr
