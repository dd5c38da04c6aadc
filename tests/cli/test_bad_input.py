"""``ask`` with bad input: one clear line for each; and odd recordings, which are heard."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.cli.commands import RATE, Run, refused
from tests.tiny import sounds


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
