"""The command line: what it prints, what it writes, its exit codes, and one clear line for every bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import typer
from rich.console import Console

from echo_agent import command
from echo_agent.audio.recording import Recording
from echo_agent.cli import DEBUG, main
from echo_agent.cli.models import licence_of
from echo_agent.cli.show import Screen, Thought, described
from echo_agent.families.loading import load_family
from echo_agent.results_file import Results
from tests.scripted import ASK_FOREVER, ASK_ONCE, scripted_family
from tests.small.tiny_small import tiny_small
from tests.terminals import opened_terminal
from tests.tiny import sounds, tiny_family
from tests.token_server import token_server

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
        "confidence",
        "forced",
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


def test_words_that_the_embedded_model_was_not_taught_are_named(run: Run, sound: Path) -> None:
    asked = ("ask", sound, "Which sheep is heard first?", "--choices", "the bell | Schafe")
    said = "echo-agent: echo-nano does not know the words sheep, schafe, and was not asked"
    code, out, err = run(*asked)
    assert (code, out) == (4, "") and err.startswith(said) and err.count("\n") == 1
    code, out, err = run(*asked, "--json")
    result = json.loads(out)
    assert code == 4 and result["status"] == "not_understood" and result["answer"] is None
    assert result["notes"] == [said.removeprefix("echo-agent: ")]
    refused(run("ask", "none.wav", *asked[2:]), "none.wav")


def test_a_question_in_another_language_is_not_put_to_echo_small(
    run: Run, sound: Path, tmp_path: Path
) -> None:
    """By its name before it is loaded; one of another name is loaded first."""
    tiny_small().save(tmp_path / "mine")
    for model, about in (("echo-small", ""), (tmp_path / "mine", "yard.flac: ")):
        asked = ("ask", sound, "Wie oft bellt der Hund?", "--model", model)
        said = (
            "the question is not in English, the only language that echo-small was taught, and was not asked"
        )
        assert run(*asked) == (4, "", f"echo-agent: {about}{said}\n")
        code, out, _ = run(*asked, "--json")
        result = json.loads(out)
        assert (code, result["status"], result["notes"]) == (4, "not_understood", [said])
    _, _, err = run("ask", sound, "wer hustet", "--model", tmp_path / "mine", "--max-relistens", "0")
    assert "the question seems not to be in English" in err


def test_answers_are_guided_unless_they_shall_be_free(run: Run, models: Path, sound: Path) -> None:
    arguments = ("ask", sound, "What is it?", "--choices", "a cow|a pig", "--model", models / "once")
    for guided in ((), ("--guided",)):
        code, out, err = run(*arguments, *guided)
        assert code == 0 and out in ("a cow\n", "a pig\n")
        assert re.fullmatch(r"echo-agent: the answer was forced to a choice \(confidence \d%\)\n", err), err
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


def test_a_model_on_a_server_answers_as_it_does_here(run: Run, models: Path, sound: Path) -> None:
    """Its weights are not read here; the trace is the same token by token."""
    with token_server(load_family(str(models / "once"), "cpu"), name=str(models / "once")) as server:
        arguments = (
            "ask",
            sound,
            "What is it?",
            "--choices",
            "a dog|a cat",
            "--model",
            models / "once",
            "--json",
        )
        here, there = run(*arguments), run(*arguments, "--server", server.url)
        assert (here[0], there[0], there[2]) == (0, 0, "")
        results = [json.loads(out) for _, out, _ in (here, there)]
        for result in results:
            result["timings"] = None
        assert results[0].pop("confidence") == pytest.approx(results[1].pop("confidence"), abs=1e-3)
        assert results[0] == results[1]
        refused(run(*arguments, "--server", server.url, "--served-as", "mine"), "not mine: name the model")
    refused(run(*arguments, "--server", server.url), f"no server answers ({server.url}")
    refused(run(*arguments, "--server", "localhost:8000"), "is not the address of a server")
    refused(run(*arguments, "--served-as", "mine"), "give its address too (--server)")


def test_the_same_thread_gives_the_same_run(run: Run, models: Path, sound: Path, tmp_path: Path) -> None:
    arguments = ("ask", sound, "What is it?", "--model", models / "once", "--thread", "mine", "--json")
    first, second = run(*arguments), run(*arguments)
    assert (tmp_path / "home" / "threads.sqlite").exists()
    timings = re.compile(r'"timings":{[^}]*}')
    assert timings.sub("", first[1]) == timings.sub("", second[1])
    refused(run(*arguments[:2], "What else?", *arguments[3:]), "mine")


@pytest.mark.parametrize(
    ("name", "start"),
    [("run.svg", b"<?xml"), ("run.pdf", b"%PDF"), ("RUN.PNG", b"\x89PNG"), ("run.html", b"<!doctype html>")],
)
def test_a_picture_is_what_its_suffix_says(
    run: Run, models: Path, sound: Path, tmp_path: Path, name: str, start: bytes
) -> None:
    question = "What <is> \x1b[31mit?"
    code, _, err = run("ask", sound, question, "--model", models / "once", "--plot", tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert (code, err) == (0, "") and data.startswith(start)
    if name.endswith("svg"):
        ElementTree.fromstring(data)
    if name.endswith("html"):
        assert b"data:image/png;base64," in data and b"What &lt;is&gt; \\x1b[31mit?" in data


def test_a_page_of_a_run_now_and_later(run: Run, models: Path, sound: Path, tmp_path: Path) -> None:
    trace, now, later = tmp_path / "run.json", tmp_path / "now.html", tmp_path / "run.html"
    given = ("ask", sound, "What is it?", "--model", models / "once", "--trace", trace, "--report", now)
    assert run(*given) == (0, "a dog\n", "")
    assert run("report", trace) == (0, f"{later}\n", "")
    assert now.read_bytes() == later.read_bytes() and b"0:02.0" in now.read_bytes()
    moved = tmp_path / "moved.flac"
    moved.write_bytes(sound.read_bytes())
    assert run("report", trace, tmp_path / "other.html", "--audio", moved)[0] == 0
    refused(run("report", tmp_path / "none.json"), "cannot read a trace from")
    refused(run("report", sound), "cannot read a trace from")
    refused(run("report", trace, tmp_path / "run.png"), "a page is a file that ends in .html or .htm")
    refused(run("report", trace, tmp_path / "none" / "run.html"), "there is no folder")
    refused(run("report", trace, "--audio", models / "none.wav"), "none.wav")
    refused(run("ask", sound, "What?", "--report", tmp_path / "run.pdf"), "a page is a file that ends in")
    refused(run("ask", sound, "What?", "--report", sound), "this is the recording")


def test_what_cannot_be_written_does_not_lose_the_answer(
    run: Run, models: Path, sound: Path, tmp_path: Path
) -> None:
    """A disk that fills up while the model thinks."""
    for name in ("run.json", "run.png"):
        (tmp_path / name).symlink_to("/dev/full")
    outputs = ("--trace", tmp_path / "run.json", "--plot", tmp_path / "run.png")
    code, out, err = run("ask", sound, "What is it?", "--model", models / "once", *outputs)
    assert (code, out) == (2, "a dog\n")
    assert err.count("No space left on device") == 2 and "run.json" in err and "run.png" in err
    code, out, _ = run("ask", sound, "What is it?", "--model", models / "once", "--json", *outputs)
    assert code == 2 and json.loads(out)["answer"] == "a dog"
    assert (tmp_path / "run.json").is_symlink(), "what stands there is not replaced"
    free = tmp_path / "other.json"
    run(
        "ask",
        sound,
        "What is it?",
        "--model",
        models / "once",
        "--trace",
        free,
        "--plot",
        tmp_path / "run.png",
    )
    assert json.loads(free.read_text(encoding="utf-8"))["result"]["answer"] == "a dog"


def test_a_loop_of_links_is_refused_before_anything_is_run(run: Run, sound: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    for option in ("--trace", "--plot"):
        refused(
            run("ask", sound, "What?", option, tmp_path / "loop.png"), "Too many levels of symbolic links"
        )
    assert (tmp_path / "loop.png").is_symlink()


def test_json_is_plain_ascii(run: Run, models: Path, sound: Path, tmp_path: Path) -> None:
    """Also what a terminal would act on that JSON lets through, such as the one-byte form of an escape."""
    odd = ("a d\x9b31mog", "a c\u202eat")
    _, out, _ = run("ask", sound, "What?", "--model", models / "once", "--choices", "|".join(odd), "--json")
    assert out.isascii() and "\x1b" not in out and json.loads(out)["answer"] in odd


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
    "nan": (lambda folder: write(folder / "a.wav", np.full(RATE, np.nan), subtype="FLOAT"), "a.wav"),
    "infinity": (lambda folder: write(folder / "a.wav", np.full(RATE, np.inf), subtype="FLOAT"), "a.wav"),
    "url": (lambda folder: Path("https://example.org/a.wav"), "a.wav"),
    "zero byte": (lambda folder: folder / "a\0b.wav", "a"),
    "long name": (lambda folder: folder / ("a" * 5000), "a"),
}


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.wav"])
def test_what_was_found_about_a_recording_is_said(run: Run, models: Path, tmp_path: Path, name: str) -> None:
    file = cut(write(tmp_path / name, sounds(12.0)))
    code, out, err = run(
        "ask", file, "What is it?", "--choices", "a cat|a dog", "--model", models / "once", "--json"
    )
    assert code == 0
    (note,) = json.loads(out)["notes"]
    assert note.startswith("it is cut off: ")
    assert err == f"echo-agent: {name}: {note}\n"


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
        (["What?", "--trace", "FILE"], "this is the recording; name another file"),
        (["What?", "--plot", "."], "this is a folder"),
        (["What?", "--plot", "run.jpg"], "ends in .png, .svg, .pdf or .html"),
        (["What?", "--plot", "run"], "--plot run: a picture is a file that ends in"),
        (
            ["What?", "--model", "http://localhost:8000/v1"],
            "http://localhost:8000/v1 is an address: name the model",
        ),
        (["What?", "--model", "~nobody-here/model"], "no folder ~nobody-here/model"),
        (["What?", "--model", "evil/\x1b[2J"], r"evil/\x1b[2J"),
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
    given = [argument.replace("FILE", str(sound)) for argument in arguments]
    refused(run("ask", sound, *given), message)


def test_a_question_longer_than_the_context(run: Run, models: Path, sound: Path) -> None:
    refused(run("ask", sound, "x" * 100_000, "--model", models / "once"), "shorten the question")


def test_a_recording_longer_than_the_model_can_hear(run: Run, models: Path, tmp_path: Path) -> None:
    long = write(tmp_path / "long.wav", np.zeros(31 * RATE, np.float32))
    code, out, err = run("ask", long, "What?", "--model", models / "short-sighted", "--json")
    found = json.loads(out)
    assert code in (0, 3) and "longer than" in err and "searched in 2 listens" in found["notes"][-1]
    assert [listen["end"] for listen in found["search"]["listens"]] == [16.0, 31.0]


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
    silent = "echo-agent: odd.wav: it is silent: nothing can be heard in it\n"
    assert (code, out, err) == (0, "a dog\n", silent)


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


def test_the_end_of_a_file_is_no_interrupt(run: Run, sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: Any) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr("echo_agent.cli.ask.check_question", end)
    code, _, err = run("ask", sound, "What?")
    assert code == 1 and "unexpected EOFError: Ran out of input" in err


def test_an_interrupt_while_a_model_loads_does_not_wait_for_it(
    run: Run, models: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def load(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        go.wait()

    monkeypatch.setattr("echo_agent.families.qwen25_omni.Qwen25OmniFamily.load", load)
    arguments = ("ask", sound, "What?", "--model", models / "once")
    assert run(*arguments) == (130, "", "echo-agent: interrupted\n")
    go.set()


def test_an_interrupted_eval_says_what_is_kept(
    run: Run, models: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"id": str(i), "audio": str(sound), "question": f"What {i}?", "answer": "a dog"} for i in range(3)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    add = Results.add

    def then_stop(self: Results, outcome: Any) -> None:
        add(self, outcome)
        if len(self.outcomes) == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Results, "add", then_stop)
    arguments = ("eval", tmp_path / "q.jsonl", "--model", models / "once", "--out", tmp_path / "r.jsonl")
    code, out, err = run(*arguments, "--batch", "1")
    assert (code, out) == (130, "") and len(err.splitlines()) == 1
    kept = len((tmp_path / "r.jsonl").read_text().splitlines())
    assert kept >= 2 and f"r.jsonl holds {kept} results: run the same command again to resume" in err
    monkeypatch.setattr(Results, "add", add)
    assert run(*arguments)[0] == 0 and len((tmp_path / "r.jsonl").read_text().splitlines()) == 3


def test_the_command_is_interrupted_from_its_first_import_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    ended: list[int] = []
    monkeypatch.setitem(sys.modules, "echo_agent.cli", Interrupting("echo_agent.cli"))
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(SystemExit):  # which a real _exit does not come back from
        command.main()
    assert ended == [130] and capfd.readouterr().err == "echo-agent: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="signals are a matter of POSIX")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("ignored", [False, True], ids=["", "nohup"])
def test_a_command_that_others_end_closes_what_is_open(number: str, ignored: bool) -> None:
    code = f"""
import signal, sys, time, types
signal.signal(signal.{number}, signal.{"SIG_IGN" if ignored else "SIG_DFL"})
def run():
    try:
        signal.raise_signal(signal.{number})
        print("goes on")
        return 0
    except KeyboardInterrupt:
        print("closed", flush=True)
        return 130
sys.modules["echo_agent.cli"] = types.SimpleNamespace(main=run)
from echo_agent.command import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = (0, "goes on\n") if ignored else (-getattr(signal, number), "closed\n")
    assert (done.returncode, done.stdout) == expected, done.stderr


# --- models, help -------------------------------------------------------------------------------------------------


def test_models(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = run("models", "--json")
    listed = {model["name"]: model for model in json.loads(out)["models"]}
    assert code == 0 and listed["echo-nano"]["here"] is True
    assert listed["Qwen/Qwen2.5-Omni-7B"]["memory_gb"] > listed["Qwen/Qwen2.5-Omni-3B"]["memory_gb"] > 1
    assert {"bell", "voice", "wolf"} < set(listed["echo-nano"]["sounds"])
    assert {"zero", "nine", "market"} < set(listed["echo-nano"]["words"])
    assert all(model["licence"] and "here" in model["runs"] for model in listed.values())
    assert listed["Qwen/Qwen2.5-Omni-7B"]["runs"] == [*json.loads(out)["runs"]] == ["here", "vLLM", "API"]
    code, out, _ = run("models")
    assert code == 0 and all(name in out for name in listed)
    words = out.replace("\n", " ")
    assert "echo-nano knows the sounds: airplane, beep, bell" in words and "zero, one, two" in words
    assert "vLLM: --model NAME --server URL" in words and "API: --model openai:NAME@URL" in words


def test_the_licence_on_a_card_that_is_here_is_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "README.md"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, file: str(card))
    for head, licence in {
        "license: mit": "mit",
        "license: other\nlicense_name: qwen-research": "qwen-research",
        "license: other": None,
        "tags: [audio]": None,
        "license: [": None,
    }.items():
        card.write_text(f"---\n{head}\n---\nA model.\n")
        assert licence_of("some/model") == licence, head
    assert licence_of("echo-nano") is None


def test_help_and_version(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0 and all(name in out for name in ("ask", "report", "serve", "studio", "models", "eval"))
    assert run()[0] == 2
    assert re.fullmatch(r"echo-agent \d+\.\d+\S*\n", run("--version")[1])
    code, out, _ = run("ask", "--help")
    options = (
        "choices model device quantise device-map max-relistens no-relisten temperature seed json trace plot"
    )
    options += " thread report"
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


CODE = "import sys; from echo_agent.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize(
    ("streams", "code", "err"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "echo-agent: the output could not be written: No space left on device\n"),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_streams_that_are_closed_or_full(streams: str, code: int, err: str) -> None:
    for verb in ("models", "--version"):
        line = f'exec "$0" -W ignore -c "$1" {verb} {streams}'
        done = subprocess.run(["sh", "-c", line, sys.executable, CODE], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (code, err), verb


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """What a C library writes to standard error would land in it."""
    code = "from echo_agent.cli import streams; streams.prepare(); import os, sys; f = open(sys.argv[1], 'w')"
    code += "; os.write(1, b'x'); os.write(2, b'y'); f.write(str(f.fileno() > 2))"
    line = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    subprocess.run(["sh", "-c", line, sys.executable, code, tmp_path / "file"], check=True)
    assert (tmp_path / "file").read_text() == "True"


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


def test_text_cannot_take_over_the_terminal(sound: Path, tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e"
    odd = tmp_path / f"a{evil}b.flac"
    odd.write_bytes(sound.read_bytes())
    with open(tmp_path / "screen", "w+", encoding="utf-8") as file:
        console = Console(file=file, force_terminal=True, width=90, color_system=None)
        shown = Screen(console, Recording.open(odd))
        shown.head()
        shown.event({"type": "token", "text": f"A {evil}\nbell", "origin": "sampled"})
        shown.event({"type": "relisten", **LISTEN, "observation": evil})
        file.seek(0)
        text = file.read()
    assert not set("\x1b\x07\x9b\u202e") & set(text)
    assert "\\x1b[2J" in text


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


def test_what_is_going_on_is_shown_in_a_terminal(
    run: Run, models: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with opened_terminal() as (terminal, pieces):
        monkeypatch.setattr(sys, "stderr", terminal)
        code, out, _ = run("ask", sound, "What is it?", "--model", models / "once")
    shown = b"".join(pieces)
    places = [shown.find(word) for word in (b"opening yard.flac", b"loading", b"listening", b"reasoning")]
    assert (code, out) == (0, "a dog\n") and -1 not in places and places == sorted(places)
