"""What is shown in a terminal while a question is answered."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from echo_agent.audio.recording import Recording
from echo_agent.cli.show import Screen, Thought, described
from tests.cli.commands import Run
from tests.terminals import opened_terminal


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
