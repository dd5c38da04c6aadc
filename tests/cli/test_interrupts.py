"""What ends a command from outside, or by a mistake of ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from echo_agent import command
from echo_agent.cli import DEBUG, main
from echo_agent.results_file import Results
from tests.cli.commands import Run


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
