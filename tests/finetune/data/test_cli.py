"""``echo-agent finetune data``: from a folder of clips to a dataset, and one clear line for every bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_agent.cli import DEBUG, main
from echo_agent.finetune.data.dataset import read_samples
from echo_agent.finetune.data.questions.checks import check_samples
from echo_agent.finetune.data.show.browse import records_in
from tests.finetune.data.llm.chats import Say, serving

LABELS = ("bell", "dog", "car", "drum", "bird", "saw", "door", "wolf", "organ", "kettle")
Result = tuple[int, str, str]
Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv(DEBUG, raising=False)

    def run(*arguments: str | Path | int) -> Result:
        code = main(["finetune", "data", *map(str, arguments)])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for label in LABELS:
        (folder / label).mkdir()
        soundfile.write(folder / label / "1.wav", 0.5 * rng.uniform(-1, 1, 12000), 16000)
    return folder


def annotated(folder: Path, count: int = 3) -> Path:
    """Recordings with six events each."""
    rows = []
    for number in range(count):
        soundfile.write(folder / f"{number}.wav", np.zeros(16000 * 40, np.float32) + 0.01, 16000)
        order = np.random.default_rng(number).permutation(LABELS[:6])
        events = [
            {"label": str(label), "onset": 3 + 6 * i, "offset": 5 + 6 * i} for i, label in enumerate(order)
        ]
        rows.append({"audio": f"{number}.wav", "events": events, "labels": LABELS})
    path = folder / "annotated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(result: Result, message: str) -> None:
    code, _, err = result
    assert code == 2, result
    last = err.strip().splitlines()[-1]
    assert last.startswith("echo-agent: ") and message in err
    assert "Traceback" not in err


def test_ten_clips_become_two_hundred_sound_questions(run: Run, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    code, printed, told = run("build", clips, out, "--questions", 200, "--workers", 1)
    assert (code, printed.strip()) == (0, str(out)), told
    samples = read_samples(out)
    assert len(samples) == 200 and {s.split for s in samples} == {"train"}
    assert not check_samples(samples, records_in(out)).dropped
    assert all((out / sample.audio).is_file() for sample in samples)
    assert "too few clips for validation and test" in told
    again = run("build", clips, out, "--questions", 200, "--workers", 1)
    assert again[0] == 0 and read_samples(out) == samples
    refused(run("build", clips, out, "--questions", 300), "other settings")
    assert read_samples(out) == samples


@pytest.mark.slow
def test_the_same_seed_gives_the_same_dataset_with_any_number_of_workers(
    run: Run, clips: Path, tmp_path: Path
) -> None:
    outs = [tmp_path / "a", tmp_path / "b"]
    for out, workers in zip(outs, (1, 2), strict=True):
        assert run("build", clips, out, "--questions", 60, "--seed", 5, "--workers", workers)[0] == 0
    first, second = (read_samples(out) for out in outs)
    assert first == second
    audio = [sorted((path.name, path.read_bytes()) for path in (out / "audio").iterdir()) for out in outs]
    assert audio[0] == audio[1]
    run("build", clips, tmp_path / "c", "--questions", 60, "--seed", 6, "--workers", 1)
    assert read_samples(tmp_path / "c") != first


def test_annotated_recordings_are_asked(run: Run, tmp_path: Path) -> None:
    path = annotated(tmp_path)
    code, _, told = run("build", path, tmp_path / "out", "--categories", "order,between,presence")
    assert code == 0 and "3 records; nothing skipped" in told
    samples = read_samples(tmp_path / "out")
    assert len(samples) >= 9 and {s.category for s in samples} == {"order", "between", "presence"}
    assert all(
        (tmp_path / "out" / s.audio).is_file() and "/" not in s.audio.removeprefix("audio/") for s in samples
    )


def test_scenes_with_jams_are_read_back(run: Run, clips: Path, tmp_path: Path) -> None:
    assert run("bank", clips, tmp_path / "bank")[0] == 0
    options = ("--count", 2, "--shortest", 10, "--longest", 12, "--jams", "--workers", 1)
    code, printed, _ = run("scenes", tmp_path / "bank", tmp_path / "scenes", *options)
    assert code == 0 and "2 scenes" in printed
    assert len(list((tmp_path / "scenes" / "audio").glob("*.jams"))) == 2
    assert run("build", tmp_path / "scenes" / "audio", tmp_path / "out")[0] == 0
    assert read_samples(tmp_path / "out")


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (None, ("build", "nowhere", "out"), "no such file or folder"),
        ("empty", ("build", "empty", "out"), "no clip"),
        ("table.tsv", ("build", "table.tsv", "out"), "--form"),
        ("table.tsv", ("build", "table.tsv", "out", "--form", "desed"), "--audio"),
        ("table.tsv", ("build", "table.tsv", "out", "--form", "spreadsheet"), "--form 'spreadsheet'"),
        ("rows.jsonl", ("build", "rows.jsonl", "out"), "rows.jsonl"),
        (None, ("scenes", "nowhere", "out"), "no sound bank"),
        (None, ("scenes", "nowhere", "out", "--shortest", "50", "--longest", "20"), "lower bound"),
        (None, ("inspect", "nowhere", "rows.png"), "nowhere"),
        (None, ("inspect", "nowhere", "rows.gif"), ".png or .html"),
        (None, ("bench", "out", "--bank", "nowhere"), "no sound bank"),
        (None, ("bank", "nowhere", "out"), "nowhere"),
    ],
)
def test_bad_input_is_one_clear_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: str | None,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if make and "." in make:
        (tmp_path / make).write_text("nothing\tof\tuse\n")
    elif make:
        (tmp_path / make).mkdir()
    refused(run(*arguments), message)


def test_families_that_are_none_are_named(run: Run, tmp_path: Path) -> None:
    refused(
        run("build", annotated(tmp_path), tmp_path / "out", "--categories", "order,colour"),
        "there is no colour",
    )


def test_recordings_without_events_give_no_dataset(run: Run, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000, np.float32) + 0.1, 16000)
    (tmp_path / "rows.jsonl").write_text('{"audio": "a.wav", "events": []}\n')
    refused(run("build", tmp_path / "rows.jsonl", tmp_path / "out"), "not one question")


def test_what_a_file_says_does_not_reach_the_terminal(run: Run, clips: Path, tmp_path: Path) -> None:
    escape = "\x1b]0;taken\x07"
    path = annotated(tmp_path, 1)
    row = json.loads(path.read_text())
    row["events"][0]["label"] = escape
    path.write_text(json.dumps(row | {"key": escape}) + "\n" + json.dumps({"audio": escape}) + "\n")
    results = [run("build", path, tmp_path / "out")]
    results.append(run("inspect", tmp_path / "out", tmp_path / "page.html", "--category", escape))
    (tmp_path / "own" / "bell").mkdir(parents=True)
    (tmp_path / "own" / "bell" / f"{escape}.wav").write_bytes(b"no sound")
    shutil.copy(clips / "bell" / "1.wav", tmp_path / "own" / "bell")
    results.append(run("bank", tmp_path / "own", tmp_path / "bank"))
    assert [code for code, _, _ in results] == [0, 2, 0]
    assert all(not set("\x1b\x07") & set(out + told) for _, out, told in results)
    assert "\x1b" not in (tmp_path / "out" / "README.md").read_text()
    assert r"\x1b]0;taken\x07" in results[0][2] and r"\x1b]0;taken\x07.wav" in results[2][1]


@pytest.mark.parametrize("hits", [0, 10**9, 10**30])
def test_absurd_counts_are_skipped(run: Run, tmp_path: Path, hits: int) -> None:
    path = annotated(tmp_path, 2)
    first, second = map(json.loads, path.read_text().splitlines())
    first["events"][0] |= {"kind": "burst", "hits": hits}
    path.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    code, _, told = run("build", path, tmp_path / "out")
    assert code == 0 and "1 row skipped: 1 with an event that is none" in told


def test_help(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and all(verb in out for verb in ("bank", "scenes", "build", "inspect", "bench"))


def test_a_language_model_writes_and_another_judges(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP, with a server that speaks the protocol: questions come in, half of them are found wanting."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")

    def script(body: dict[str, Any], number: int) -> Say:
        system = body["messages"][0]["content"]
        if "question_valid" in json.dumps(body.get("response_format", {})):
            valid = "slam" not in body["messages"][-1]["content"]
            verdict = {"question_valid": valid, "reasoning_valid": True}
            verdict |= {"question_reason": "so", "reasoning_reason": "so"}
            return Say(json.dumps(verdict))
        assert "question" in system
        return Say(json.dumps({"questions": [WRITTEN, WRITTEN | {"question": "When does the door slam?"}]}))

    path = annotated(tmp_path, 2)
    with serving(script) as server:
        options = ("--writer", "openai:tests", "--reviewer", "openai:tests", "--base-url", server.url)
        code, _, told = run("build", path, tmp_path / "out", *options)
        assert code == 0, told
        asked = len(server.requests)
        assert run("build", path, tmp_path / "out", *options)[0] == 0
        assert len(server.requests) == asked, "what was answered is not asked again"
    samples = read_samples(tmp_path / "out")
    assert {s.question for s in samples} == {WRITTEN["question"]} and len(samples) == 2
    assert {s.composer for s in samples} == {"openai:tests"}
    assert all(s.listens and s.use == "sft" for s in samples if s.split == "train")
    assert "questions written" in told and "tokens" in told


@pytest.mark.parametrize(
    "words",
    [
        ("scenes", "bank", "out", "--count", "1000000000"),
        ("scenes", "bank", "out", "--workers", "1000000"),
        ("build", "rows.jsonl", "out", "--questions", "9" * 25),
        ("bench", "out", "--scenes", "9" * 25),
    ],
)
def test_numbers_that_no_machine_can_hold_are_refused_at_once(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "") and words[-2] in err and "less than or equal to" in err


WRITTEN = {
    "question": "What is heard at the very beginning?",
    "choices": ["a first thing", "a second thing", "a third thing", "a fourth thing"],
    "answer": "a first thing",
    "spans": [{"start": 3, "end": 5}],
    "reasoning": "I listen to the beginning <seg>2, 6</seg> and there it is, a first thing.",
}
"""Whatever is asked of :func:`annotated`, something is at 3 s."""
