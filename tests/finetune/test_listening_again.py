"""What listening again is worth: figures from folders of runs, tables from the figures, the page that shows them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

ROOT = Path(__file__).parents[2]
COMPARE, SHOW = (ROOT / "benchmarks" / f"listening_again{name}.py" for name in ("", "_tables"))
PUBLISHED = [ROOT / "benchmarks" / "results" / f"listening-again{name}.json" for name in ("", "-first")]
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
    write_lines(folder / "once-0" / "core.jsonl", [outcome(name, False) for name in LENGTHS])
    for seed, right in (("sft-0", True), ("sft-1", False)):
        write_lines(
            folder / seed / "core.jsonl",
            [outcome(name, right, heard=4.0) for name in LENGTHS]
            + [outcome(name, False, "off") for name in LENGTHS],
        )
        (folder / seed / "run.json").write_text(json.dumps({"seed": seed}))
    write_lines(folder / "wide" / "core.jsonl", [outcome("short", True), outcome("middle", True)])
    return folder


def call(script: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(script), *map(str, words)], capture_output=True, text=True)


@pytest.fixture
def figures(runs: Path, dataset: Path, tmp_path: Path) -> Path:
    out = tmp_path / "figures.json"
    done = call(COMPARE, runs, dataset, out, "--names", "sft=SFT", "once=hears once")
    assert done.returncode == 0, done.stderr
    return out


def tables(text: str) -> list[list[str]]:
    """Tables in markdown, each as its lines; the ruler under a head in its shortest form."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append(re.sub(r" ?-{3,} ?", "---", line))
        elif found[-1]:
            found.append([])
    return [lines for lines in found if lines]


def test_seeds_are_averaged_and_policies_compared_on_what_both_were_asked(figures: Path) -> None:
    found = json.loads(figures.read_text())
    assert found["training_set"] == {"questions": 7} and list(found["runs"]) == ["sft-0", "sft-1"]
    assert list(found["tests"]) == ["core"]  # nobody was asked the others
    core = found["tests"]["core"]
    assert list(core["scores"]) == ["hears once", "SFT", "wide"]
    on = core["scores"]["SFT"]["on"]
    assert (on["right"], on["seeds"], on["seconds_heard"], on["gold_iou"]) == (50.0, 2, 4.0, 0.5)
    detail = {"right": 50.0, "questions": 3, "listened": 1.0, "seconds_heard": 4.0}
    assert on["difficulty"]["detail"] == detail
    assert core["short"]["wide"]["right"] == 100.0 and core["short"]["SFT"]["questions"] == 2
    apart = core["differences"]
    assert apart["SFT over hears once"]["all"]["points"] == 50.0
    assert apart["hears once over SFT"]["detail"]["points"] == -50.0
    assert apart["wide over SFT"]["detail"] == {"points": 50.0, "low": 50.0, "high": 50.0}  # one question
    assert apart["wide over SFT"]["detail, 90-150 s"] is None
    assert apart["SFT, on over off"]["up to 60 s"]["points"] == 50.0


def test_tables_and_figure_come_from_the_figures_alone(figures: Path, tmp_path: Path) -> None:
    done = call(SHOW, figures, "--picture", tmp_path / "figure.png")
    assert done.returncode == 0, done.stderr
    main, _, short, controls, categories, *_ = found = tables(done.stdout)
    assert main[2:] == ["| hears once | 0.0 | 0.0 | 48 | 0.0 |", "| SFT | 50.0 | 50.0 | 52 | 4.0 |"]
    assert "| wide | 100.0 | 100.0 | 48 |" in short  # was not asked about the long ones
    assert "| SFT, detail | 50.0 | 0.0 |  |  |" in controls
    assert categories[2:] == ["| presence | 0.0 | 50.0 | 100 % | 4.0 |"]
    for lines in found:
        assert len({line.count("|") for line in lines}) == 1
    assert imread(tmp_path / "figure.png").std() > 0.01


def test_a_policy_is_called_as_its_folder_without_a_seed(runs: Path, dataset: Path, tmp_path: Path) -> None:
    assert call(COMPARE, runs, dataset, tmp_path / "f.json").returncode == 0
    assert list(json.loads((tmp_path / "f.json").read_text())["tests"]["core"]["scores"]) == [
        "once",
        "sft",
        "wide",
    ]
    done = call(COMPARE, runs, dataset, tmp_path / "f.json", "--names", "SFT")
    assert done.returncode == 2 and "'SFT' is not FOLDER=NAME" in done.stderr


def test_the_page_shows_what_the_figures_say() -> None:
    """Every row of a table on the page whose head is one that the script prints, is a row that it prints."""
    printed = [lines for path in PUBLISHED for lines in tables(call(SHOW, path).stdout)]
    heads = {lines[0] for lines in printed}
    rows = {line for lines in printed for line in lines}
    shown = [lines for lines in tables((ROOT / "docs" / "results.md").read_text()) if lines[0] in heads]
    assert len(shown) == 9
    assert not {line for lines in shown for line in lines} - rows


def test_what_is_missing_is_said(runs: Path, dataset: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    none.mkdir()
    for script, words, message in (
        (COMPARE, [none, dataset, none / "f.json"], "no folder in it has results"),
        (COMPARE, [runs, none, none / "f.json"], "it has no lock.json, so it is not EchoBench"),
        (SHOW, [none / "f.json"], "is no file that benchmarks/listening_again.py wrote"),
        (SHOW, [dataset / "lock.json"], "is no file that benchmarks/listening_again.py wrote"),
    ):
        done = call(script, *words)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    (dataset / "core.jsonl").unlink()
    done = call(COMPARE, runs, dataset, none / "f.json")
    assert done.returncode == 2 and "cannot read questions" in done.stderr


def test_what_was_not_asked_is_left_empty(dataset: Path, tmp_path: Path) -> None:
    """One policy, on long recordings without gold spans; another that was never given what it asked for."""
    runs, out = tmp_path / "runs", tmp_path / "f.json"
    rows = [json.loads(line) for line in (dataset / "core.jsonl").read_text().splitlines()]
    write_lines(dataset / "core.jsonl", [row | {"gold_spans": []} for row in rows[1:]])
    write_lines(runs / "sft-0" / "core.jsonl", [outcome(name, True, heard=2.0) for name in LENGTHS])
    write_lines(runs / "rl-0" / "core.jsonl", [outcome(name, True, "off") for name in LENGTHS])
    assert call(COMPARE, runs, dataset, out).returncode == 0
    assert list(json.loads(out.read_text())["tests"]["core"]["scores"]) == ["sft"]
    done = call(SHOW, out)
    assert done.returncode == 0, done.stderr
    main, lengths, *_ = tables(done.stdout)
    assert main[2] == "| sft | 100.0 | 100.0 | 50 | 2.0 |"
    assert lengths[2].endswith("| 100 % |  |  |")
