"""Evaluation with controls: what is run, what is written, what is not run again, and what a bad row does."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_agent.agent import EchoAgent
from echo_agent.cli import main
from echo_agent.cli.results import merge
from echo_agent.errors import ContextError, DataError, QuestionError
from echo_agent.evaluation import evaluate, parse_controls
from echo_agent.results_file import Results
from echo_agent.rows import Row, read_rows
from echo_agent.scores import Outcome
from tests.scripted import ASK_ONCE, UNSURE, scripted_family
from tests.test_locks import other
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
            return {id: outcome for (id, *_), outcome in results.outcomes.items()}

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
    acontrols = agent.acontrols

    async def counted(*arguments: Any, **options: Any) -> Any:
        asked.extend(options["controls"])
        return await acontrols(*arguments, **options)

    agent.acontrols = counted  # type: ignore[method-assign]
    steps: list[None] = []
    try:
        await evaluate(agent, rows, results, controls=("on", "off"), progress=lambda _: steps.append(None))
    finally:
        del agent.acontrols
    results.close()
    assert (len(asked), len(steps)) == (2, 6)
    assert out.read_bytes().startswith(b"".join(kept))
    assert sorted(out.read_bytes().splitlines()) == sorted(whole.splitlines())


@pytest.mark.parametrize("change", ["temperature", "max_relistens", "guided", "question", "model"])
async def test_results_of_another_run_are_not_mixed_in(
    agent: EchoAgent, file: Path, tmp_path: Path, change: str
) -> None:
    rows = read_rows(file)[:1]
    results = Results(tmp_path / "results.jsonl")
    await evaluate(agent, rows, results)
    options: dict[str, Any] = {change: 1} if change in ("temperature", "max_relistens") else {}
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
    [
        b"notes\n",
        b"notes",
        b'{"id": 1}\n',
        b"{}",
        b'{"id":"1","control":"on"}\n',
        b"\n",
        b"\xff\xfe",
        b'{"id": "1", "audio": "a.wav", "question": "What?", "answer": "x"}',
    ],
)
def test_other_files_are_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="notes.txt"):
        Results(path)
    assert path.read_bytes() == content


def test_one_process_at_a_time_writes_results(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    process = other(path)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    with pytest.raises(
        DataError, match=rf"^.*results.jsonl is in use by process {process.pid} on .*for --out$"
    ):
        Results(path)
    process.kill()
    process.communicate()
    results = Results(path)
    with pytest.raises(DataError, match="in use by another run in this process"):
        Results(path)
    results.close()
    Results(path).close()
    path.write_text("notes")
    with pytest.raises(DataError, match="not a file of results"):
        Results(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.jsonl"]


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
    assert {id for id, *_ in results.outcomes} == {"1", "2"}


async def test_a_control_that_fails_does_not_take_the_others_with_it(agent: EchoAgent, file: Path) -> None:
    acontrols = agent.acontrols

    async def failing(*arguments: Any, **options: Any) -> Any:
        found = await acontrols(*arguments, **options)
        if "silence" in options["controls"]:
            raise ContextError("too long")
        return found

    agent.acontrols = failing  # type: ignore[method-assign]
    results = Results(None)
    try:
        failures = await evaluate(agent, read_rows(file)[:1], results, controls=("on", "silence", "off"))
    finally:
        del agent.acontrols
    assert [(failure.control, failure.message) for failure in failures] == [("silence", "too long")]
    assert {control for _, control, _ in results.outcomes} == {"on", "off"}


def test_parse_controls() -> None:
    assert parse_controls("wrong-crop, on,off,on") == CONTROLS
    for text in ("", ",", "on,of"):
        with pytest.raises(QuestionError, match="--controls"):
            parse_controls(text)


async def test_another_recording_at_the_same_place_is_another_run(
    agent: EchoAgent, file: Path, tmp_path: Path
) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        soundfile.write(tmp_path / place / "a.wav", sounds(12.0), RATE)
    row = read_rows(file)[0]
    here, there = (
        row.model_copy(update={"audio": str(tmp_path / place / "a.wav")}) for place in ("here", "there")
    )
    results = Results(tmp_path / "results.jsonl")
    await evaluate(agent, [here], results)
    written = (tmp_path / "results.jsonl").read_bytes()
    await evaluate(agent, [there], results)  # the same recording, moved
    assert (tmp_path / "results.jsonl").read_bytes() == written
    soundfile.write(here.audio, sounds(12.0, seed=1), RATE)
    with pytest.raises(DataError, match="another run"):
        await evaluate(agent, [here], results)
    results.close()


# --- controls, seeds, order ---------------------------------------------------------------------------------------


async def test_the_oracle_hears_the_gold_span(agent: EchoAgent, file: Path) -> None:
    results = Results(None)
    await evaluate(agent, read_rows(file), results, controls=("on", "oracle"))
    assert {id for id, control, _ in results.outcomes if control == "oracle"} == {"1", "2"}, (
        "3 has no gold span"
    )
    for id, gold in (("1", (2.0, 6.0)), ("2", (3.0, 4.0))):
        (listen,) = results.outcomes[id, "oracle", 0].relistens
        assert (listen["start"], listen["end"]) == (2.0, 4.0)
        assert (listen["instead"]["start"], listen["instead"]["end"]) == gold
        assert listen["instead"]["overlap"] == gold[1] - gold[0]


async def test_without_audio_there_is_only_silence(agent: EchoAgent, file: Path) -> None:
    """The policy is given as many audio tokens, and the logits differ: nothing of the recording is left."""
    heard: list[Any] = []
    acontrols = agent.acontrols

    async def noted(audio: Any, *arguments: Any, **options: Any) -> Any:
        heard.append(audio)
        return await acontrols(audio, *arguments, **options)

    agent.acontrols = noted  # type: ignore[method-assign]
    results = Results(None)
    try:
        await evaluate(agent, read_rows(file)[:1], results, controls=("on", "no-audio"))
    finally:
        del agent.acontrols
    path, silence = heard
    assert isinstance(path, str) and not silence.read(0.0, silence.duration, RATE).any()
    assert silence.duration == pytest.approx(12.0)
    on, blind = results.outcomes.values()
    assert on.tokens["audio"] == blind.tokens["audio"] and blind.control == "no-audio"


@pytest.mark.parametrize("calls", [True, False])
async def test_what_controls_have_in_common_is_made_once(file: Path, calls: bool) -> None:
    """All together decode less than one by one, and come to the same."""
    script = ASK_ONCE if calls else {**ASK_ONCE, "<think>": "a dog barks"}
    controls = ("on", "off", "wrong-crop", "silence", "oracle", "no-audio")
    together, alone = Results(None), Results(None)
    rows = read_rows(file)[:1]
    with EchoAgent(scripted_family(script)) as agent:
        await evaluate(agent, rows, together, controls=controls, concurrency=1)
        once = agent.engine.stats()["decode_steps"]
        for control in controls:
            await evaluate(agent, rows, alone, controls=(control,))
        apart = agent.engine.stats()["decode_steps"] - once
    assert alone.outcomes == together.outcomes
    assert apart - once >= 4 if calls else apart == 3 * once, (once, apart)


@pytest.fixture(scope="module")
def unsure() -> Iterator[EchoAgent]:
    with EchoAgent(scripted_family(UNSURE)) as agent:
        yield agent


ASKED: dict[str, Any] = {
    "controls": ("on", "off", "oracle"),
    "temperature": 1.0,
    "seeds": 2,
    "questions": "q",
}


async def made(agent: EchoAgent, rows: list[Row], path: Path, **options: Any) -> bytes:
    """The file of an evaluation."""
    results = Results(path)
    await evaluate(agent, rows, results, **(ASKED | options))
    results.close()
    return path.read_bytes()


async def test_equal_evaluations_make_equal_files(unsure: EchoAgent, file: Path, tmp_path: Path) -> None:
    """Batched or single, at once or resumed after a kill, in shards or whole: the same bytes."""
    rows = read_rows(file)
    whole = await made(unsure, rows, tmp_path / "whole.jsonl", concurrency=4)
    assert whole == await made(unsure, rows, tmp_path / "single.jsonl", concurrency=1)
    assert [(line["line"], line["control"], line["seed"]) for line in lines(tmp_path / "whole.jsonl")][
        :4
    ] == [
        (1, "on", 0),
        (1, "on", 1),
        (1, "off", 0),
        (1, "off", 1),
    ]
    stopped = whole.splitlines(keepends=True)
    (tmp_path / "resumed.jsonl").write_bytes(b"".join(stopped[3:7]) + stopped[9][:40])
    assert whole == await made(unsure, rows, tmp_path / "resumed.jsonl", concurrency=2)
    for number in (0, 1):
        await made(unsure, rows[number::2], tmp_path / f"shard{number}.jsonl")
    merge(str(tmp_path / "merged.jsonl"), [str(tmp_path / f"shard{number}.jsonl") for number in (1, 0)])
    assert (tmp_path / "merged.jsonl").read_bytes() == whole
    seeds = {line["seed"]: line["relistens"] for line in lines(tmp_path / "whole.jsonl") if line["id"] == "1"}
    assert set(seeds) == {0, 1}


async def test_what_does_not_belong_together_is_not_merged(
    unsure: EchoAgent, file: Path, tmp_path: Path
) -> None:
    rows = read_rows(file)
    one, other, out = (str(tmp_path / f"{name}.jsonl") for name in ("one", "other", "out"))
    await made(unsure, rows[:1], Path(one))
    for change in ({"temperature": 0.5}, {"questions": "others"}, {"max_relistens": 1}):
        Path(other).unlink(missing_ok=True)
        await made(unsure, rows[1:], Path(other), **change)
        with pytest.raises(DataError, match="not shards of one evaluation"):
            merge(out, [one, other])
    text = Path(one).read_text()
    Path(other).write_text(text.replace('"seconds_heard":', '"seconds_heard":1'))
    with pytest.raises(DataError, match="different results for row '1'"):
        merge(out, [one, other])
    Path(other).write_text(re.sub('"made_by":"[^"]*"', '"made_by":"0"', text))
    with pytest.raises(DataError, match="not shards"):
        merge(out, [one, other])
    with pytest.raises(DataError, match="another evaluation"):
        merge(other, [one])
    with pytest.raises(DataError, match="no such file"):
        merge(out, [one, str(tmp_path / "none.jsonl")])
    assert not Path(out).exists()


# --- results after a crash ----------------------------------------------------------------------------------------


def one(name: str) -> Outcome:
    return Outcome(
        id=name, control="on", answer="x", correct=True, status="answered", relistens=(), tokens={},
        seconds_heard=0.0, budget_exhausted=False, run="r",
    )  # fmt: skip


def line(name: str) -> bytes:
    return one(name).model_dump_json().encode() + b"\n"


@pytest.mark.parametrize(
    ("left", "kept", "dropped"),
    [
        (line("a") + line("b") + b"\0" * 5000, "ab", 1),
        (line("a") + line("b")[:20] + b"\0" * 40, "a", 1),
        (line("a") + b"\0" * 40 + line("b"), "ab", 0),
        (line("a") + line("b")[:20] + b"\0" * 40 + b"\n" + line("c"), "ac", 1),
        (line("a") + b"\0" * 40 + b"\n" + line("b")[:-30], "a", 2),
        (b"\0" * 300, "", 1),
    ],
)
def test_zeros_of_a_crash_are_mended(tmp_path: Path, left: bytes, kept: str, dropped: int) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(left)
    results = Results(path)
    assert "".join(id for id, *_ in results.outcomes) == kept and results.dropped == dropped
    results.add(one("new"))
    results.close()
    assert path.read_bytes() == b"".join(map(line, kept)) + line("new")


@pytest.mark.parametrize("content", [b"RIFF\0\0\0\0WAVE", line("a") + b"notes\0\0\n", b"\0\0notes"])
def test_other_files_with_zeros_are_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(DataError, match="name another file for --out"):
        Results(path)
    assert path.read_bytes() == content


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = Results(path)
    results.add(one("a"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(line("a")) + 20, before[1]))
        with pytest.raises(
            DataError, match=r"^cannot write results to .*: File too large; make room and [^\n]*$"
        ):
            results.add(one("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    results.close()
    assert path.read_bytes() == line("a")


async def test_a_full_disk_ends_an_evaluation_with_one_sentence(agent: EchoAgent, file: Path) -> None:
    results = Results("/dev/full")
    with pytest.raises(
        DataError, match="^cannot write results to /dev/full: No space left on device; make room"
    ):
        await evaluate(agent, read_rows(file), results, controls=CONTROLS)
    results.close()


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
    assert on["by_category"]["order"]["accuracy"] == 0.5
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


def test_eval_on_a_full_disk(file: Path, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(file), "--model", str(model), "--out", "/dev/full"]) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "No space left on device" in printed.err


def test_what_a_file_says_does_not_reach_the_terminal(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "a.wav", sounds(12.0), RATE)
    escape = "\x1b]0;taken\x07\x9b2J"
    row = {"id": f"1{escape}", "audio": "a.wav", "question": "What?", "answers": ["x"]}
    kind = {"family": f"order{escape}", "difficulty": escape}
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    rows = [row | kind, row | {"id": f"2{escape}", "audio": "bad.wav"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for more in ([], ["--json"]):
        assert main(["eval", str(tmp_path / "rows.jsonl"), "--model", str(model), *more]) == 2
        printed = capfd.readouterr()
        assert not set("\x1b\x07\x9b") & set(printed.out + printed.err)
        assert r"\x1b]0;taken\x07\x9b2J" in printed.err


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
