"""``echo-agent eval`` on benchmarks, from the folder to scores, submission and report; shards, merge and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from echo_agent.agent import EchoAgent
from echo_agent.cli import main
from tests.benchmarks.folders import lat_bench, mmar, mmau, write_json
from tests.scripted import ASK_ONCE, scripted_family


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """It listens again once, and gives every question the same answer."""
    folder = tmp_path_factory.mktemp("model")
    scripted_family(ASK_ONCE).save(folder)
    return str(folder)


class Command:
    """Runs ``echo-agent eval``."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        code = main(["eval", *map(str, arguments)])
        printed = self._capfd.readouterr()
        return code, printed.out, printed.err

    def json(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        found, out, err = self(*arguments, "--json")
        assert found == code, err
        return json.loads(out)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(capfd)


def test_mmar_from_folder_to_report(run: Command, model: str, tmp_path: Path) -> None:
    rows = mmar(tmp_path / "MMAR", 4)
    controls = ["on", "off", "no-audio"]
    asked = ["mmar", "--data", tmp_path / "MMAR", "--controls", ",".join(controls), "--model", model]
    files = [
        "--out",
        tmp_path / "r.jsonl",
        "--report",
        tmp_path / "r.html",
        "--submission",
        tmp_path / "p.jsonl",
    ]
    summary = run.json(*asked, *files)
    assert list(summary["controls"]) == controls
    for control in controls:
        for rule in ("official", "strict"):
            score = summary["controls"][control][rule]
            assert (score["n"], score["correct"], score["accuracy"]) == (4, 2, 0.5)
            assert score["interval"][0] < 0.5 < score["interval"][1]
    assert (summary["rows"], summary["rows_in_file"], summary["left_out"], summary["chance"]) == (
        4,
        4,
        [],
        0.5,
    )
    assert [apart["other"] for apart in summary["differences"]] == ["off", "no-audio"]
    handed_in = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    written = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    answers = [line["answer"] for line in written if line["control"] == "on"]
    assert handed_in == [row | {"answer_prediction": said} for row, said in zip(rows, answers, strict=True)]
    assert set(answers) <= {"a cat", "a dog"}
    assert "Signal Layer" in (tmp_path / "r.html").read_text() and "| on |" in (tmp_path / "r.md").read_text()
    before = (tmp_path / "r.jsonl").read_bytes()
    code, out, err = run(*asked, *files)
    assert code == 0 and err == "" and "official" in out and "strict" in out and "mix-sound-speech" in out
    assert (tmp_path / "r.jsonl").read_bytes() == before


def test_rows_that_cannot_be_asked_are_said_and_the_rest_is_scored(
    run: Command, model: str, tmp_path: Path
) -> None:
    mmar(tmp_path, 4)
    (tmp_path / "audio" / "1.wav").unlink()
    (tmp_path / "audio" / "2.wav").write_bytes(b"no sound")
    code, out, err = run("mmar", "--data", tmp_path, "--model", model, "--json")
    summary = json.loads(out)
    on = summary["controls"]["on"]
    assert code == 2 and (summary["rows_in_file"], summary["rows"]) == (4, 3)
    assert (on["official"]["over"], on["strict"]["over"], on["strict"]["n"]) == (2, 3, 3)
    assert len(summary["left_out"]) == len(summary["failed"]) == 1
    assert "MMAR-meta.jsonl:2: audio: no such file" in err and "2.wav" in err and "1 runs of 3" in err


def test_spans_are_scored_over_all_rows(run: Command, model: str, tmp_path: Path) -> None:
    lat_bench(tmp_path)
    on = run.json("lat-bench", "--data", tmp_path, "--model", model, "--controls", "on,oracle")["controls"][
        "on"
    ]
    assert (on["official"]["over"], on["official"]["accuracy"]) == (0, None)
    assert (on["strict"]["over"], on["strict"]["accuracy"], on["strict"]["mIoU"]) == (2, 0.0, 0.0)


def test_withheld_answers_are_handed_in_and_not_scored(run: Command, model: str, tmp_path: Path) -> None:
    rows = [{key: row[key] for key in row if key != "answer"} for row in mmau(tmp_path, 2, "test")]
    write_json(tmp_path / "mmau-test.json", rows)
    asked = ["mmau", "--data", tmp_path, "--split", "test", "--model", model]
    summary = run.json(*asked, "--submission", tmp_path / "p.json", "--report", tmp_path / "r.html")
    assert summary["unscored"] == 2 and summary["controls"]["on"]["strict"]["n"] == 0
    handed_in = json.loads((tmp_path / "p.json").read_text())
    assert [{key: row[key] for key in row if key != "model_output"} for row in handed_in] == rows
    assert all(row["model_output"] in row["choices"] for row in handed_in)
    assert run(*asked)[0] == 0


def test_shards_are_merged_and_models_compared(
    run: Command, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mmar(tmp_path, 5)
    asked = ["mmar", "--data", tmp_path, "--model", model, "--controls", "on,off"]
    whole = run.json(*asked, "--out", tmp_path / "whole.jsonl")
    for number in (1, 2):
        part = run.json(*asked, "--shard", f"{number}/2", "--out", tmp_path / f"{number}.jsonl")
        assert part["rows"] == (3, 2)[number - 1]
    assert run("merge", tmp_path / "all.jsonl", tmp_path / "1.jsonl", tmp_path / "2.jsonl")[0] == 0
    assert (tmp_path / "all.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()

    async def never(*arguments: object, **options: object) -> None:
        raise AssertionError("it asked again")

    monkeypatch.setattr(EchoAgent, "acontrols", never)
    assert run.json(*asked, "--out", tmp_path / "all.jsonl") == whole
    found = run.json("compare", tmp_path / "whole.jsonl", tmp_path / "1.jsonl")
    assert found["only_in_first"] == 2 and found["controls"]["off"]["n"] == 3
    assert (found["controls"]["on"]["points"], found["controls"]["on"]["p"]) == (0.0, 1.0)
    code, out, err = run("compare", tmp_path / "whole.jsonl", tmp_path / "1.jsonl")
    assert (
        code == 0 and "0 mended, 0 spoiled, n = 3" in out and "2 questions are not in the other file" in err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mmar"], "say where its files are with --data"),
        (["mmar", "--data", "none"], "no such folder"),
        (["mmarr", "--data", "."], "is not a benchmark"),
        (["mmar", "--data", ".", "--split", "test"], "it has none"),
        (["mmar", "--data", ".", "--shard", "9/8"], "such as 3/8"),
        (["mmar", "--data", ".", "--shard", "3"], "such as 3/8"),
        (["mmar", "--data", ".", "--shard", "3/3"], "there are only 2 questions"),
        (["mmar", "--data", ".", "--controls", "oracle"], "no question has gold_spans"),
        (["mmar", "--data", ".", "--report", "r.txt"], "such as report.html"),
        (["mmar", "--data", ".", "--submission", "p.csv"], "are a .jsonl file"),
        (["mmar", "--data", ".", "--submission", "p.jsonl", "--out", "p.jsonl"], "name the same file"),
        (["mmar", "--data", ".", "--judge", "gpt"], "names no chat model"),
        (["mmar", "--data", ".", "--embedder", "gpt"], "names no embedding model"),
        (["compare", "a.jsonl", "b.jsonl"], "no such file of results"),
        (["compare", "a.jsonl"], "Missing argument"),
        (["merge", "a.jsonl", "MMAR-meta.jsonl"], "not a line of results"),
        ([], "Missing argument"),
    ],
)
def test_bad_arguments_are_one_line(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    mmar(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
