"""Evaluation with controls: what is run, what is written, what is not run again, and what a bad row does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_agent.agent import EchoAgent
from echo_agent.cli import main
from echo_agent.errors import DataError, QuestionError
from echo_agent.evaluation import Results, evaluate, parse_controls
from echo_agent.rows import Row, read_rows
from echo_agent.scores import Outcome
from tests.scripted import ASK_ONCE, UNSURE, scripted_family
from tests.tiny import sounds

RATE = 16000
CONTROLS = ("on", "off", "wrong-crop")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three questions about two recordings; the scripted models say "a dog" and listen to 2.0 to 4.0."""
    folder = tmp_path_factory.mktemp("rows")
    soundfile.write(folder / "a.wav", sounds(12.0), RATE)
    soundfile.write(folder / "b.flac", sounds(20.0, seed=1), RATE)
    dog = {"question": "What is it?", "choices": ["a cat", "a dog"], "family": "order"}
    rows = [
        dog | {"id": "1", "audio": "a.wav", "answer": "a dog", "gold_spans": [[2.0, 6.0]]},
        dog | {"id": "2", "audio": "b.flac", "answer": "a cat", "gold_spans": [[3.0, 4.0]]},
        {"id": "3", "audio": "b.flac", "question": "Which?", "answers": ["dog", "A dog."], "family": "open"},
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder / "rows.jsonl"


@pytest.fixture(scope="module")
def agent() -> Iterator[EchoAgent]:
    with EchoAgent(scripted_family(ASK_ONCE)) as agent:
        yield agent


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_each_row_is_asked_once_per_control(agent: EchoAgent, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    results = Results(out)
    assert await evaluate(agent, read_rows(file), results, controls=CONTROLS) == []
    results.close()
    written = {(line["id"], line["control"]): line for line in lines(out)}
    assert len(written) == len(lines(out)) == 9
    assert {id for id, control in written if written[id, control]["correct"]} == {"1", "3"}
    for (id, control), line in written.items():
        assert set(line) == set(Outcome.model_fields)
        assert (line["answer"], line["status"]) == ("a dog", "answered")
        listens = [(listen["start"], listen["end"]) for listen in line["relistens"]]
        assert listens == ([] if control == "off" else [(2.0, 4.0)]), (id, control)
        assert line["seconds_heard"] == (0.0 if control == "off" else 2.0)
    for id, gold in (("1", (2.0, 6.0)), ("2", (2.0, 4.0)), ("3", (2.0, 4.0))):
        (listen,) = written[id, "wrong-crop"]["relistens"]
        instead = listen["instead"]
        assert instead["end"] - instead["start"] == pytest.approx(2.0)
        assert instead["end"] <= gold[0] or instead["start"] >= gold[1]


async def test_a_row_does_not_depend_on_its_company(file: Path) -> None:
    """Sampled: alone, in another order and in one batch, each row comes out the same."""
    rows = read_rows(file)
    with EchoAgent(scripted_family(UNSURE, sure=1.0)) as agent:

        async def answers(some: list[Row], **options: Any) -> dict[str, Outcome]:
            results = Results(None)
            await evaluate(agent, some, results, **{"temperature": 1.0, "seed": 3, **options})
            return {id: outcome for (id, _), outcome in results.outcomes.items()}

        together = await answers(rows, concurrency=3)
        assert await answers(rows[::-1], concurrency=1) == together
        assert await answers(rows[1:2]) == {"2": together["2"]}
        said = [
            [(o.answer, o.relistens) for o in (await answers(rows, seed=seed)).values()] for seed in (3, 4)
        ]
        assert said[0] != said[1], "nothing was sampled"


async def test_what_is_there_is_not_run_again(agent: EchoAgent, file: Path, tmp_path: Path) -> None:
    """A file that a killed run left behind, with a torn last line, is completed and not rewritten."""
    out, rows = tmp_path / "results.jsonl", read_rows(file)
    results = Results(out)
    await evaluate(agent, rows, results, controls=("on", "off"))
    results.close()
    whole = out.read_bytes()
    kept = whole.splitlines(keepends=True)[:4]
    out.write_bytes(b"".join(kept) + b'{"id":"1","contr')

    results, asked = Results(out), []
    aask = agent.aask

    async def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(options["control"])
        return await aask(*arguments, **options)

    agent.aask = counted  # type: ignore[method-assign]
    steps: list[None] = []
    try:
        await evaluate(agent, rows, results, controls=("on", "off"), progress=lambda: steps.append(None))
    finally:
        del agent.aask
    results.close()
    assert (len(asked), len(steps)) == (2, 6)
    assert out.read_bytes().startswith(b"".join(kept))
    assert sorted(out.read_bytes().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize("change", ["seed", "temperature", "max_relistens", "guided", "question", "model"])
async def test_results_of_another_run_are_not_mixed_in(
    agent: EchoAgent, file: Path, tmp_path: Path, change: str
) -> None:
    rows = read_rows(file)[:1]
    results = Results(tmp_path / "results.jsonl")
    await evaluate(agent, rows, results)
    options: dict[str, Any] = {change: 1} if change in ("seed", "temperature", "max_relistens") else {}
    if change == "guided":
        options = {"guided": False}
    if change == "question":
        rows = [rows[0].model_copy(update={"question": "What was it?"})]
    if change == "model":
        with (
            EchoAgent(scripted_family(ASK_ONCE, seed=1)) as agent,
            pytest.raises(DataError, match="another run"),
        ):
            await evaluate(agent, rows, results)
    else:
        with pytest.raises(DataError, match="another run"):
            await evaluate(agent, rows, results, **options)
    results.close()


@pytest.mark.parametrize(
    "content",
    [b"notes\n", b"notes", b'{"id": 1}\n', b"{}", b'{"id":"1","control":"on"}\n', b"\n", b"\xff\xfe"],
)
def test_other_files_are_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="notes.txt"):
        Results(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("where", [".", "none/results.jsonl"])
def test_results_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    with pytest.raises(DataError, match="cannot write results"):
        Results(tmp_path / where)


async def test_rows_that_cannot_be_run_are_named(agent: EchoAgent, file: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    rows = read_rows(file)
    bad = Row(id="bad", audio=str(tmp_path / "bad.wav"), question="What?", answers=["x"], line=9)
    results = Results(None)
    failures = await evaluate(agent, [rows[0], bad, rows[1]], results, controls=("on", "off"))
    assert [(failure.row.id, failure.control) for failure in failures] == [("bad", "on"), ("bad", "off")]
    assert "bad.wav" in failures[0].message
    assert {id for id, _ in results.outcomes} == {"1", "2"}


def test_parse_controls() -> None:
    assert parse_controls("wrong-crop, on,off,on") == CONTROLS
    for text in ("", ",", "on,of"):
        with pytest.raises(QuestionError, match="--controls"):
            parse_controls(text)


# --- through the command line -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    scripted_family(ASK_ONCE).save(folder)
    return folder


def test_eval(file: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results.jsonl"
    arguments = [
        "eval",
        str(file),
        "--controls",
        "on,off,wrong-crop",
        "--model",
        str(model),
        "--out",
        str(out),
    ]
    assert main([*arguments, "--json"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    summary = json.loads(printed.out)
    assert (summary["rows"], summary["seed"], list(summary["controls"])) == (3, 0, list(CONTROLS))
    on = summary["controls"]["on"]
    assert (on["n"], on["correct"], on["unparsed"], on["listened"]) == (3, 2, 0, 1.0)
    assert on["by_family"]["order"]["accuracy"] == 0.5
    assert (on["gold_heard"], on["gold_iou"]) == (pytest.approx(0.75), pytest.approx(0.5))
    assert len(lines(out)) == 9
    before = out.read_bytes()
    assert main(arguments) == 0  # all of it is there
    table = capfd.readouterr().out
    assert "66.7%" in table and "wrong-crop" in table and "order" in table
    assert out.read_bytes() == before


def test_eval_keeps_what_it_encoded_for_the_next_model(
    file: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    arguments = ["eval", str(file), "--model", str(model), "--json"]
    assert main(arguments) == main([*arguments, "--features", str(kept)]) == 0
    files = {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")}
    assert len(files) == len({row["audio"] for row in lines(file)})
    assert main([*arguments, "--features", str(kept)]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.safetensors")} == files
    printed = capfd.readouterr()
    assert printed.err == "" and len(set(printed.out.splitlines())) == 1


def test_eval_of_bad_rows(file: Path, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = file.read_text(encoding="utf-8").splitlines()[0].replace("a.wav", str(file.parent / "a.wav"))
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{good}\n{{}}\n", encoding="utf-8")
    assert main(["eval", str(path)]) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.startswith(f"echo-agent: {path}:2: ")

    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    bad = {"id": "bad", "audio": "nan.wav", "question": "What?", "answers": ["x"]}
    path.write_text(f"{good}\n{json.dumps(bad)}\n", encoding="utf-8")
    assert main(["eval", str(path), "--model", str(model), "--json"]) == 2
    printed = capfd.readouterr()
    summary = json.loads(printed.out)
    assert summary["controls"]["on"]["n"] == 1 and len(summary["failed"]) == 1
    assert f"{path}:2: bad (on): " in printed.err and "nan.wav" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "cannot read questions"),
        (["FILE", "--controls", "on,loud"], "--controls"),
        (["FILE", "--out", "none/out.jsonl"], "cannot write results"),
        (["FILE", "--out", "FILE"], "not a line of results"),
        (["FILE", "--features", "FILE"], "features cannot be kept in"),
        (["FILE", "--batch", "0"], "--batch"),
        (["FILE", "--model", "echo-nanoo"], "did you mean echo-nano"),
    ],
)
def test_eval_of_bad_arguments(
    file: Path, arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = file.read_bytes()
    assert main(["eval", *(str(file) if argument == "FILE" else argument for argument in arguments)]) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and message in printed.err and printed.err.count("\n") == 1
    assert file.read_bytes() == before
