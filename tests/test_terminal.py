"""The one way to the terminal: whoever writes, and whatever is in it, a terminal acts on none of it."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from rich.live import Live
from rich.table import Table
from rich.text import Text

from echo_agent.cli import main
from echo_agent.console import PlainConsole
from echo_agent.errors import DataError
from echo_agent.terminal import beneath, guarded, printable, say, say_json
from tests.scripted import ASK_ONCE, scripted_family
from tests.terminals import opened_terminal
from tests.tiny import sounds

EVIL = "a\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r\x7f\x00\x1b[Az"
SHOWN = r"a\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r\x7f\x00\x1b[Az"


# --- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "a dog barks", "café, Küche", "犬", "👩\u200d🚀", "a\u00a0b"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b2J", r"\x9b2J"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("dog\rcat", r"dog\rcat"),
        ("gpj\u202egnp", r"gpj\u202egnp"),
        ("a\u2028b", r"a\u2028b"),
        ("caf\udce9.wav", r"caf\udce9.wav"),
        ("two\nlines\tand\x00", r"two\nlines\tand\x00"),
    ],
)
def test_what_a_terminal_acts_on_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


def test_lines_and_tabs_stay_where_a_text_may_have_several() -> None:
    assert printable("a\n\tb\r\x1bc", lines=True) == "a\n\tb\\r\\x1bc"


# --- streams ------------------------------------------------------------------------------------------------------


def by_print() -> None:
    print(EVIL)
    print(EVIL, file=sys.stderr)


def by_pieces() -> None:
    for letter in EVIL + "\n":
        sys.stdout.write(letter)
    sys.stderr.writelines([EVIL, "\n"])


def by_say() -> None:
    say(EVIL)
    say(EVIL, error=True)


def by_log() -> None:
    print(EVIL)
    handler = logging.StreamHandler()
    handler.emit(logging.LogRecord("x", logging.ERROR, "x", 1, EVIL, None, None))


@pytest.mark.parametrize("write", [by_print, by_pieces, by_say, by_log])
def test_whoever_writes_a_terminal_acts_on_nothing(
    capfd: pytest.CaptureFixture[str], write: Callable[[], None]
) -> None:
    before = sys.stdout, sys.stderr
    with guarded():
        write()
        assert sys.stdout.encoding == before[0].encoding and sys.stderr.fileno() == before[1].fileno()
        assert not hasattr(sys.stdout, "buffer"), "a way around"
        with guarded():
            assert beneath(sys.stdout) is before[0]
    assert (sys.stdout, sys.stderr) == before
    printed = capfd.readouterr()
    assert printed.out == SHOWN + "\n"
    assert SHOWN in printed.err and not set(EVIL) - set(SHOWN) & set(printed.err) - {"\n"}
    assert printed.err.replace("\n", "").isprintable()


def test_without_the_guard_say_is_plain_all_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    by_say()
    assert capfd.readouterr() == (SHOWN + "\n", SHOWN + "\n")


def test_json_stays_json(capfd: pytest.CaptureFixture[str]) -> None:
    with guarded():
        say_json({EVIL: [EVIL, "café"]})
    out = capfd.readouterr().out
    assert out.isascii() and out.strip().isprintable() and json.loads(out) == {EVIL: [EVIL, "café"]}


def test_errors_say_themselves_in_plain_characters() -> None:
    assert str(DataError(f"{EVIL}\n\ud800 \udce9")) == SHOWN + r"\n\ud800 \xe9"
    assert str(DataError("bad rows", EVIL, DataError("b\nc"))) == f"bad rows\n{SHOWN}\nb\\nc"
    assert str(DataError()) == ""
    long = str(DataError(f"{'a' * 10**6} is too long"))
    assert len(long) < 4100 and long.startswith("aaa") and long.endswith("a is too long")


CRASH = f"""
import sys, warnings
from echo_agent import cli, command
def broken(*_):
    warnings.warn({"warned " + EVIL!r})
    raise RuntimeError({EVIL!r})
cli._run = broken
sys.argv = ["echo-agent"]
command.main()
"""


def test_a_traceback_is_plain_too() -> None:
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True)
    assert (
        done.returncode == 1 and f"warned {SHOWN}" in done.stderr and f"RuntimeError: {SHOWN}" in done.stderr
    )
    assert done.stderr.replace("\n", "").isprintable()


@pytest.fixture
def bars() -> Iterator[None]:
    """Bars of the hub are shown, whatever ran before in this process."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    off = are_progress_bars_disabled()
    enable_progress_bars()
    yield
    if off:
        disable_progress_bars()


@pytest.mark.usefixtures("bars")
def test_bars_of_downloads_are_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    from huggingface_hub.utils import tqdm

    with guarded():
        with (
            tqdm(total=2, desc=EVIL, file=sys.stderr) as one,
            tqdm(total=2, desc="b", file=sys.stderr) as two,
        ):
            two.update(1), one.update(1)
    with os.fdopen(os.dup(2), "w"):
        err = capfd.readouterr().err
    assert err.startswith("\r" + SHOWN) and "\x1b[A" in err
    assert "\x1b" not in err.replace("\x1b[A", "") and "\x9b" not in err


# --- the console --------------------------------------------------------------------------------------------------


def drawn(draw: Callable[[PlainConsole], Any], **settings: Any) -> str:
    file = io.StringIO()
    console = PlainConsole(
        file=file, force_terminal=True, width=200, markup=False, highlight=False, **settings
    )
    draw(console)
    return file.getvalue()


def table_of(cell: object) -> Table:
    table = Table("title", str(cell), title=str(cell))
    table.add_row(cell, "x")  # type: ignore[arg-type]
    return table


OF_TEXT = SHOWN.replace(r"\r", "").replace(r"\x07", "")
"""rich itself drops these from texts that are made outside the console."""


@pytest.mark.parametrize(
    ("what", "shown"),
    [(EVIL, SHOWN), (Text(EVIL, "bold"), OF_TEXT), (table_of(EVIL), SHOWN), (table_of(Text(EVIL)), OF_TEXT)],
    ids=["str", "text", "table", "cells"],
)
def test_a_console_draws_and_obeys_nobody(what: Any, shown: str) -> None:
    text = drawn(lambda console: console.print(what), color_system=None)
    assert shown in text and text.replace("\n", "").isprintable()


def test_colours_and_cursors_are_the_console_s_own() -> None:
    def draw(console: PlainConsole) -> None:
        console.print("[bold]no markup[/bold]", style="red")
        with Live(Text(EVIL), console=console, auto_refresh=False) as live:
            live.update(Text("b"), refresh=True)

    text = drawn(draw, color_system="standard")
    assert "\x1b[31m[bold]no markup[/bold]\x1b[0m" in text
    assert "\x1b[?25l" in text and "\x1b[2K" in text, "a picture that is redrawn in place"
    assert OF_TEXT in text and "\x1b]0;" not in text


# --- through the command line -------------------------------------------------------------------------------------

NAME = "e\x1b]0;t\x07\x1b[2J\x9b1m\u202e\r\nz"
"""What a file can be called."""
WRITTEN = r"e\x1b]0;t\x07\x1b[2J\x9b1m\u202e\r\nz"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything has that name."""
    folder = tmp_path_factory.mktemp("hostile")
    scripted_family(ASK_ONCE).save(folder / "model")
    soundfile.write(folder / "a.wav", sounds(6.0), 16000)
    shutil.copyfile(folder / "a.wav", folder / f"{NAME}.wav")
    (folder / f"{NAME}.jsonl").write_text("nothing")
    (folder / "clips" / NAME).mkdir(parents=True)
    shutil.copyfile(folder / "a.wav", folder / "clips" / NAME / f"{NAME}.wav")
    row = {"id": NAME, "audio": f"{NAME}.wav", "question": NAME, "choices": [NAME, "b"], "answer": NAME}
    rows = [row | {"family": NAME}, row | {"id": "x", "audio": f"{NAME}.jsonl"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (folder / "twice.jsonl").write_text((json.dumps(row) + "\n") * 2)
    event = {"label": NAME, "onset": 1, "offset": 2}
    marked = {"audio": f"{NAME}.jsonl", "events": [event], NAME: 1}
    (folder / "marked.jsonl").write_text(json.dumps(marked) + "\n")
    (folder / "key.yaml").write_text(json.dumps({"stage": "sft", NAME: 1}))
    (folder / "stage.yaml").write_text(json.dumps({"stage": NAME}))
    return folder


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, ("ask", "NAME", "Q")),
        (2, ("ask", "a.wav", "Q", "--model", "NAME")),
        (2, ("ask", "a.wav", "What?", "--device", "NAME")),
        (2, ("ask", "a.wav", "Q", "--trace", "NAME/x")),
        (2, ("ask", "a.wav", "Q", "--plot", "NAME")),
        (0, ("ask", "NAME.wav", "NAME", "--choices", "NAME|b", "--model", "model")),
        (2, ("eval", "NAME")),
        (2, ("eval", "twice.jsonl")),
        (2, ("eval", "rows.jsonl", "--controls", "NAME")),
        (2, ("eval", "rows.jsonl", "--out", "NAME.jsonl")),
        (2, ("eval", "rows.jsonl", "--model", "model")),
        (2, ("finetune", "recipes", "NAME")),
        (2, ("finetune", "sft", "key.yaml", "d", "r")),
        (2, ("finetune", "sft", "stage.yaml", "d", "r")),
        (2, ("finetune", "sft", "demo-sft", "d", "r", "--set", "NAME=1")),
        (2, ("finetune", "sft", "demo-sft", "d", "r", "--set", "seed=NAME")),
        (2, ("finetune", "data", "build", "NAME", "o")),
        (2, ("finetune", "data", "build", "marked.jsonl", "o")),
        (2, ("finetune", "data", "build", "marked.jsonl", "o", "--form", "NAME")),
        (2, ("finetune", "data", "bank", "clips", "b")),
        (2, ("finetune", "data", "inspect", "NAME", "x.png")),
        (2, ("finetune", "merge", "NAME", "x")),
        (2, ("--NAME",)),
        (2, ("NAME",)),
    ],
)
def test_names_of_all_kinds_are_shown_and_not_obeyed(
    hostile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: int,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(hostile)
    assert main([argument.replace("NAME", NAME) for argument in arguments]) == code
    printed = capfd.readouterr()
    assert (printed.out + printed.err).replace("\n", "").isprintable()
    assert "unexpected" not in printed.err
    if code:
        assert WRITTEN in printed.err.replace(r"\x0d\x0a", r"\r\n"), "the name, on one line"


def test_a_run_in_a_terminal_shows_names_and_answers(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn are colours and the line of what is going on."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(hostile)
    with opened_terminal() as (terminal, pieces):
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        code = main(["ask", f"{NAME}.wav", "Q", "--choices", f"{NAME}|b", "--model", "model"])
        monkeypatch.undo()
    text = b"".join(pieces).decode()
    assert code == 0 and r"\x1b]0;t\x07" in text and "\x1b[1m" in text
    assert not set("\x07\x9b\u202e") & set(text) and "\x1b]" not in text
