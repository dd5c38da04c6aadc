"""The command line: what it prints, what it writes, its exit codes, and one clear line for every bad input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from rich.console import Console

from echo_agent.cli import DEBUG, main
from echo_agent.cli.show import Screen, Thought, clean, described
from echo_agent.recording import Recording
from tests.scripted import ASK_FOREVER, ASK_ONCE, scripted_family
from tests.tiny import sounds, tiny_family

RATE = 16000
Result = tuple[int, str, str]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with models that follow a script."""
    folder = tmp_path_factory.mktemp("models")
    scripted_family({**ASK_ONCE, "<think>": "<seg>2.0, 4.0; speed=0.5</seg>"}).save(folder / "once")
    scripted_family(ASK_FOREVER).save(folder / "forever")
    scripted_family({**ASK_ONCE, "</think>": "<|im_end|>"}).save(folder / "mute")
    tiny_family("qwen2-audio").save(folder / "short-sighted")
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "yard.flac"
    soundfile.write(path, sounds(12.0), RATE)
    return path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("ECHO_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(DEBUG, raising=False)

    def run(*arguments: str | Path) -> Result:
        code = main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


def refused(result: Result, message: str) -> str:
    """Exit code 2, nothing on stdout, and one line on stderr that says what was wrong."""
    code, out, err = result
    assert (code, out) == (2, ""), result
    assert re.fullmatch(r"echo-agent: [^\n]+\n", err), err
    assert message in err
    assert "Traceback" not in err and "unexpected" not in err
    return err


# --- ask ----------------------------------------------------------------------------------------------------------


def test_ask_json(run: Run, models: Path, sound: Path) -> None:
    code, out, err = run(
        "ask",
        sound,
        "What is it?",
        "--choices",
        "a cat | a dog",
        "--model",
        models / "once",
        "--json",
        "--free",
    )
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert list(result) == [
        "answer",
        "status",
        "budget_exhausted",
        "choice_index",
        "relistens",
        "seconds_heard",
        "tokens",
        "timings",
        "model",
        "text",
    ]
    assert (result["answer"], result["status"], result["choice_index"]) == ("a dog", "answered", 1)
    assert result["budget_exhausted"] is False
    listen = {"start": 2.0, "end": 4.0, "speed": 0.5, "low_hz": None, "high_hz": None, "gain_db": 0.0}
    assert result["relistens"] == [listen | {"seconds": 4.0, "observation": ""}]
    assert result["seconds_heard"] == 4.0
    assert set(result["tokens"]) == {"prompt", "sampled", "audio"}
    assert set(result["timings"]) == {"load", "encode", "prefill", "decode"}
    assert "<seg>2.0, 4.0; speed=0.5</seg>" in result["text"]


def test_answers_are_guided_unless_they_shall_be_free(run: Run, models: Path, sound: Path) -> None:
    arguments = ("ask", sound, "What is it?", "--choices", "a cow|a pig", "--model", models / "once")
    for guided in ((), ("--guided",)):
        code, out, _ = run(*arguments, *guided)
        assert code == 0 and out in ("a cow\n", "a pig\n")
    assert run(*arguments, "--free") == (3, "", "echo-agent: no answer could be read\n")


def test_outside_a_terminal_stdout_is_the_answer(run: Run, models: Path, sound: Path) -> None:
    assert run("ask", sound, "What is it?", "--model", models / "once") == (0, "a dog\n", "")


def test_an_answer_that_cannot_be_read_is_exit_code_3(run: Run, models: Path, sound: Path) -> None:
    code, out, err = run("ask", sound, "What is it?", "--model", models / "mute")
    assert (code, out, err) == (3, "", "echo-agent: no answer could be read\n")
    code, out, _ = run("ask", sound, "What is it?", "--model", models / "mute", "--json")
    assert code == 3
    assert (json.loads(out)["status"], json.loads(out)["answer"]) == ("unparsed", None)


@pytest.mark.parametrize(
    ("options", "listens"),
    [(["--max-relistens", "3"], 3), (["--max-relistens", "0"], 0), (["--no-relisten"], 0), ([], 8)],
)
def test_budget(run: Run, models: Path, sound: Path, options: Sequence[str], listens: int) -> None:
    code, out, _ = run("ask", sound, "What is it?", "--model", models / "forever", "--json", *options)
    result = json.loads(out)
    assert code == 0
    assert (len(result["relistens"]), result["budget_exhausted"], result["answer"]) == (
        listens,
        True,
        "a dog",
    )


def test_trace_and_plot(run: Run, models: Path, sound: Path, tmp_path: Path) -> None:
    trace, plot = tmp_path / "out.json", tmp_path / "run.png"
    code, _, err = run(
        "ask", sound, "What is it?", "--model", models / "once", "--trace", trace, "--plot", plot
    )
    assert (code, err) == (0, "")
    assert plot.read_bytes().startswith(b"\x89PNG")
    data = json.loads(trace.read_text(encoding="utf-8"))
    assert [segment["origin"] for segment in data["segments"]][:3] == ["prompt", "sampled", "tool"]
    assert [ref["start"] for segment in data["segments"] for ref in segment.get("audio", [])] == [0.0, 2.0]
    sampled = "".join(segment["text"] for segment in data["segments"] if segment["origin"] == "sampled")
    assert sampled == data["result"]["text"]
    assert all(len(s["logprobs"]) == len(s["ids"]) for s in data["segments"] if s["origin"] == "sampled")


def test_the_same_thread_gives_the_same_run(run: Run, models: Path, sound: Path, tmp_path: Path) -> None:
    arguments = ("ask", sound, "What is it?", "--model", models / "once", "--thread", "mine", "--json")
    first, second = run(*arguments), run(*arguments)
    assert (tmp_path / "home" / "threads.sqlite").exists()
    timings = re.compile(r'"timings":{[^}]*}')
    assert timings.sub("", first[1]) == timings.sub("", second[1])
    refused(run(*arguments[:2], "What else?", *arguments[3:]), "mine")


# --- ask: bad input -----------------------------------------------------------------------------------------------


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options: Any) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def text(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "none.wav", "none.wav"),
    "folder": (lambda folder: folder, "folder"),
    "empty": (lambda folder: text(folder / "a.wav", b""), "empty"),
    "no samples": (lambda folder: write(folder / "a.wav", np.zeros(0, np.float32)), "a.wav"),
    "text": (lambda folder: text(folder / "a.wav", b"not a recording at all\n" * 99), "a.wav"),
    "cut mp3": (lambda folder: cut(write(folder / "a.mp3", sounds(3.0))), "a.mp3"),
    "cut flac": (lambda folder: cut(write(folder / "a.flac", sounds(3.0))), "a.flac"),
    "nan": (lambda folder: write(folder / "a.wav", np.full(RATE, np.nan), subtype="FLOAT"), "a.wav"),
    "infinity": (lambda folder: write(folder / "a.wav", np.full(RATE, np.inf), subtype="FLOAT"), "a.wav"),
    "url": (lambda folder: Path("https://example.org/a.wav"), "a.wav"),
    "zero byte": (lambda folder: folder / "a\0b.wav", "a"),
    "long name": (lambda folder: folder / ("a" * 5000), "a"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(run: Run, tmp_path: Path, case: str) -> None:
    make, message = BAD_FILES[case]
    refused(run("ask", make(tmp_path), "What is it?"), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "question is empty"),
        (["  \n"], "question is empty"),
        (["What?", "--choices", "a dog"], "1 choice given"),
        (["What?", "--choices", ""], "1 choice given"),
        (["What?", "--choices", "a dog|A dog "], "are the same"),
        (["What?", "--choices", "a dog||a cat"], "is empty"),
        (["bad \udcff bytes"], "UTF-8"),
        (["What?", "--trace", "none/out.json"], "there is no folder"),
        (["What?", "--plot", "."], "this is a folder"),
        (["What?", "--model", "echo-nanoo"], "did you mean echo-nano"),
        (["What?", "--model", "./none"], "./none"),
        (["What?", "--device", "toaster"], "toaster"),
        (["What?", "--max-relistens", "-1"], "--max-relistens"),
        (["What?", "--temperature", "nan"], "--temperature"),
        (["What?", "--temperature", "-1"], "--temperature"),
        (["What?", "--seed", "x"], "--seed"),
        (["What?", "--colour", "red"], "--colour"),
        ([], "QUESTION"),
    ],
)
def test_bad_arguments(run: Run, sound: Path, arguments: list[str], message: str) -> None:
    refused(run("ask", sound, *arguments), message)


def test_a_question_longer_than_the_context(run: Run, models: Path, sound: Path) -> None:
    refused(run("ask", sound, "x" * 100_000, "--model", models / "once"), "shorten the question")


def test_a_recording_longer_than_the_model_can_hear(run: Run, models: Path, tmp_path: Path) -> None:
    long = write(tmp_path / "long.wav", np.zeros(31 * RATE, np.float32))
    refused(run("ask", long, "What?", "--model", models / "short-sighted"), "30")


@pytest.mark.parametrize(
    ("seconds", "rate", "channels", "subtype"),
    [
        (0.02, 16000, 1, "PCM_16"),
        (1.0, 8000, 8, "PCM_U8"),
        (1.0, 192000, 2, "PCM_24"),
        (1.0, 44101, 1, "PCM_32"),
        (1.0, 11025, 3, "DOUBLE"),
    ],
)
def test_odd_recordings_are_heard(
    run: Run, models: Path, tmp_path: Path, seconds: float, rate: int, channels: int, subtype: str
) -> None:
    silence = np.zeros((int(seconds * rate), channels), np.float32)
    path = write(tmp_path / "odd.wav", silence, rate, subtype=subtype)
    code, out, err = run("ask", path, "What is it?", "--model", models / "forever", "--no-relisten")
    assert (code, out, err) == (0, "a dog\n", "")


def test_unexpected_errors_are_one_line(run: Run, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("echo_agent.cli.ask.check_question", broken)
    code, out, err = run("ask", sound, "What?")
    assert (code, out) == (1, "")
    assert err == f"echo-agent: unexpected RuntimeError: two lines (set {DEBUG}=1 for the traceback)\n"
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(RuntimeError):
        main(["ask", str(sound), "What?"])


def test_interrupted(run: Run, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("echo_agent.cli.ask.check_question", stop)
    assert run("ask", sound, "What?") == (130, "", "echo-agent: interrupted\n")


# --- models, help -------------------------------------------------------------------------------------------------


def test_models(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("models", "--json")
    listed = {model["name"]: model for model in json.loads(out)["models"]}
    assert code == 0 and listed["echo-nano"]["here"] is True
    assert listed["Qwen/Qwen2.5-Omni-7B"]["memory_gb"] > listed["Qwen/Qwen2.5-Omni-3B"]["memory_gb"] > 1
    code, out, _ = run("models")
    assert code == 0 and all(name in out for name in listed)


def test_help_and_version(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and all(name in out for name in ("ask", "models", "eval", "finetune"))
    assert run()[0] == 2
    assert re.fullmatch(r"echo-agent \d+\.\d+\S*\n", run("--version")[1])
    code, out, _ = run("ask", "--help")
    options = "choices model device max-relistens no-relisten temperature seed json trace plot thread"
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


def test_a_closed_pipe_is_no_traceback(sound: Path) -> None:
    command = f'{sys.executable} -c \'from echo_agent.cli import main; main(["models", "--json"])\' | true'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=dict(os.environ))
    assert done.stderr == ""


# --- the terminal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_thought_hides_tags_whatever_the_pieces(size: int) -> None:
    text = "<think>a < b.<seg>1, 2</seg> A <b>ell.</think><answer>a bell</answer><|im_end|> 1<2 <"
    thought = Thought()
    shown = "".join(thought.feed(text[i : i + size]) for i in range(0, len(text), size))
    assert shown == "a < b. A ell. 1<2 "


def screen(sound: Path, **options: Any) -> tuple[Screen, Console]:
    console = Console(
        force_terminal=True, width=90, record=True, highlight=False, file=open(os.devnull, "w"), **options
    )
    return Screen(console, Recording.open(sound)), console


LISTEN = {
    "start": 3.0,
    "end": 6.0,
    "observation": "",
    "speed": 1.0,
    "low_hz": None,
    "high_hz": None,
    "gain_db": 0.0,
}


def test_screen(sound: Path, models: Path) -> None:
    shown, console = screen(sound, color_system="truecolor")
    with console.file:
        shown.head()
        for event in (
            {"type": "token", "text": "<think>\nA do", "origin": "sampled"},
            {"type": "token", "text": "or?<seg>3, 6</seg>", "origin": "sampled"},
            {"type": "relisten", **LISTEN, "speed": 0.5, "observation": "cut to 3 s"},
            {"type": "token", "text": " (cut to 3 s)", "origin": "tool"},
            {"type": "token", "text": "A dog.", "origin": "sampled"},
            {"type": "relisten", "start": None, "end": None, "observation": "not a span"},
            {"type": "token", "text": "</think><answer>", "origin": "tool"},
            {"type": "token", "text": "a dog</answer>", "origin": "sampled"},
        ):
            shown.event(event)
        text = console.export_text()
    lines = text.splitlines()
    assert re.fullmatch(r"yard\.flac +0:12\.0  [▁▂▃▄▅▆▇█]{48}", lines[0])
    assert lines[1] == "A door?"
    assert re.fullmatch(r" 1  0:03\.0 – 0:06\.0 +[▁▂▃▄▅▆▇█]{48}  speed 0\.5  \(cut to 3 s\)", lines[2])
    assert lines[3:] == ["A dog.", "  not heard again  (not a span)"]


def test_spans_show_without_colour_and_without_unicode(sound: Path) -> None:
    shown, console = screen(sound, no_color=True)
    with console.file:
        shown.relisten(LISTEN)
        assert re.search(r"  [▁▂▃▄▅▆▇█]{12}\[[▁▂▃▄▅▆▇█]{12}\][▁▂▃▄▅▆▇█]{24}\n", console.export_text())
    with open(os.devnull, "w", encoding="ascii") as file:
        ascii_only = Screen(Console(file=file, force_terminal=True, width=90), Recording.open(sound))
        ascii_only._line("", None)  # would raise UnicodeEncodeError


def test_text_cannot_take_over_the_terminal() -> None:
    assert clean("a\x1b[31mb\x07\nc") == "a [31mb  c"
    assert clean("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, ""),
        (
            {"speed": 0.5, "low_hz": 300.0, "high_hz": 3400.0, "gain_db": 6.0},
            "speed 0.5, 300 to 3400 Hz, +6 dB",
        ),
        ({"low_hz": 300.0, "gain_db": -3.0}, "above 300 Hz, -3 dB"),
        ({"high_hz": 3400.0}, "below 3400 Hz"),
    ],
)
def test_described(change: dict[str, Any], text: str) -> None:
    assert described(LISTEN | change) == text
