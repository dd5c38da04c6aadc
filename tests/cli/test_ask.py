"""``ask``: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from echo_agent.agent import EchoAgent
from echo_agent.families.loading import load_family
from tests.cli.commands import Run, refused
from tests.small.tiny_small import tiny_small
from tests.token_server import token_server


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


def test_words_that_echo_nano_was_not_taught_are_named(run: Run, sound: Path) -> None:
    asked = (
        "ask",
        sound,
        "Which sheep is heard first?",
        "--choices",
        "the bell | Schafe",
        "--model",
        "echo-nano",
    )
    said = "echo-agent: echo-nano does not know the words sheep, schafe, and was not asked"
    code, out, err = run(*asked)
    assert (code, out) == (4, "") and err.startswith(said) and err.count("\n") == 1
    code, out, err = run(*asked, "--json")
    result = json.loads(out)
    assert code == 4 and result["status"] == "not_understood" and result["answer"] is None
    assert result["notes"] == [said.removeprefix("echo-agent: ")]
    refused(run("ask", "none.wav", *asked[2:]), "none.wav")


def test_echo_small_is_asked_where_no_model_is_named(run: Run, sound: Path) -> None:
    code, out, _ = run("ask", sound, "Is a dog heard?", "--json")
    assert code == 0 and json.loads(out)["model"] == "echo-small"
    for load in (EchoAgent.from_pretrained, load_family):
        assert inspect.signature(load).parameters["name"].default == "echo-small"


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
