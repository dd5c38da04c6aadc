"""Killed ten times at random moments and given again, a command comes to what one comes to that was left alone.

A keeper has imported everything once; each try is a fork of it. A try dies by SIGKILL either at one of the moments at
which it is about to open, move or remove a file (which one is drawn), or some time after its first (how long is drawn).
The numbers are drawn from a seed, and are in the message of a test that fails.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_agent.finetune.config import RLRecipe, SFTRecipe, write_recipe
from tests.finetune.small_dataset import saved, write_small_dataset
from tests.finetune.training import apart, rl_recipe, same_logs, sft_recipe, weights
from tests.scripted import UNSURE, scripted_family
from tests.tiny import sounds, tiny_family

pytestmark = pytest.mark.slow

KILLS = 10
SEED = 16

KEEPER = '''
import json, os, signal, sys, threading, time
import soundfile, trl
from echo_agent.cli import main
import echo_agent.agent, echo_agent.evaluation, echo_agent.finetune.rl, echo_agent.finetune.sft
import echo_agent.finetune.data.build, echo_agent.finetune.data.corpora, echo_agent.families.nano, peft

WATCHED = ("open", "os.", "shutil.", "sqlite3.", "tempfile.", "import")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def attempt(folder, arguments, at, after, told):
    """The child: runs a command, and dies at its n-th moment, or so many seconds after its first."""
    seen = [0, 0.0]

    def look(event, details):
        if not event.startswith(WATCHED):
            return
        if not seen[0] and not any(isinstance(one, str) and one.startswith(folder) for one in details):
            return
        seen[0] += 1
        if seen[0] == 1:
            seen[1] = time.monotonic()
            if after is not None:
                timer = threading.Timer(after, die)
                timer.daemon = True
                timer.start()
        if seen[0] == at:
            die()

    sys.argv = ["echo-agent", *arguments]
    sys.addaudithook(look)
    code = main(arguments)
    sys.stdout.flush()
    with os.fdopen(told, "w") as file:
        json.dump([code, seen[0], time.monotonic() - seen[1]], file)


print("ready", flush=True)
for line in sys.stdin:
    ask = json.loads(line)
    source, told = os.pipe()
    if child := os.fork():
        os.close(told)
        with os.fdopen(source) as file:
            said = file.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), said]), flush=True)
    else:
        os.close(source)
        output = os.open(ask.pop("printed"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        attempt(told=told, **ask)
        os._exit(0)
'''


@dataclass(frozen=True)
class Try:
    """What came of one try."""

    killed: bool
    code: int
    moments: int
    seconds: float
    printed: str


class Keeper:
    """Runs commands in forks of one process."""

    def __init__(self, folder: Path) -> None:
        self._printed = folder / "printed.txt"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ECHO_AGENT_HOME": str(folder / "out")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", KEEPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def run(
        self, out: Path, arguments: Sequence[str], at: int | None = None, after: float | None = None
    ) -> Try:
        assert self._process.stdin is not None and self._process.stdout is not None
        ask = {
            "folder": str(out),
            "arguments": arguments,
            "at": at,
            "after": after,
            "printed": str(self._printed),
        }
        self._process.stdin.write(json.dumps(ask) + "\n")
        self._process.stdin.flush()
        status, said = json.loads(self._process.stdout.readline())
        printed = self._printed.read_text()
        assert status in (0, -signal.SIGKILL), printed
        return Try(status != 0, *(json.loads(said) if not status else (-1, 0, 0.0)), printed)

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def keeper(place: Path) -> Iterator[Keeper]:
    keeper = Keeper(place)
    yield keeper
    keeper.close()


@pytest.fixture(scope="module")
def dataset(place: Path) -> Path:
    return write_small_dataset(place / "data")


@pytest.fixture(scope="module")
def policy(place: Path) -> Path:
    """Listens here or there, or not, when it is sampled."""
    return Path(saved(scripted_family(UNSURE, "echo-nano", sure=2.0), place / "policy"))


def survive(
    keeper: Keeper, place: Path, arguments: Sequence[str], same: Callable[[Try, Path, Try, Path], None]
) -> None:
    """Run a command unbroken; then kill it ten times, each time going on with what is there, and compare all ends.

    Args:
        keeper: Runs it.
        place: The command writes to ``out`` in there.
        arguments: The command.
        same: Is given two ends: what was printed, and the folder.
    """
    out, whole = place / "out", place / "whole"
    for folder in (out, whole):
        shutil.rmtree(folder, ignore_errors=True)  # a test that failed left it
    out.mkdir()
    unbroken = keeper.run(out, arguments)
    assert unbroken.code == 0, unbroken.printed
    out.rename(whole)
    out.mkdir()
    draw = random.Random(SEED)
    kills = 0
    story: list[str] = []
    try:
        while kills < KILLS:
            at = draw.randrange(1, unbroken.moments + 1)
            after = draw.uniform(0, unbroken.seconds)
            by_moment = draw.random() < 0.5
            tried = (
                keeper.run(out, arguments, at=at) if by_moment else keeper.run(out, arguments, after=after)
            )
            kills += tried.killed
            story.append(f"moment {at}" if by_moment else f"{after:.3f} s")
            if not tried.killed:
                story[-1] += ", too late"
                _ended(tried, out, unbroken, whole, same)
                out.mkdir()
        _ended(keeper.run(out, arguments), out, unbroken, whole, same)
    except AssertionError as error:
        raise AssertionError(
            f"of {unbroken.moments} moments, {unbroken.seconds:.3f} s: {story}\n{error}"
        ) from error
    shutil.rmtree(whole)


def _ended(
    tried: Try, out: Path, unbroken: Try, whole: Path, same: Callable[[Try, Path, Try, Path], None]
) -> None:
    assert tried.code == 0, tried.printed
    same(tried, out, unbroken, whole)
    shutil.rmtree(out)


def last_object(printed: str) -> dict[str, Any]:
    """The JSON object that a command printed."""
    return json.loads(next(line for line in reversed(printed.splitlines()) if line.startswith("{")))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_ask(keeper: Keeper, place: Path, policy: Path) -> None:
    soundfile.write(place / "a.wav", sounds(10.0), 16000)

    def same(one: Try, _: Path, other: Try, __: Path) -> None:
        mine, yours = (last_object(end.printed) for end in (one, other))
        assert mine["relistens"] and all(end.pop("timings") for end in (mine, yours))
        assert mine.pop("confidence") == pytest.approx(yours.pop("confidence"), abs=1e-4)
        assert mine == yours

    options = ("--choices", "a dog|a cat", "--temperature", "1", "--seed", "11", "--thread", "t", "--json")
    survive(
        keeper, place, ["ask", str(place / "a.wav"), "What barks?", "--model", str(policy), *options], same
    )


def test_eval(keeper: Keeper, place: Path, policy: Path) -> None:
    soundfile.write(place / "b.wav", sounds(10.0), 16000)
    rows = [
        {
            "id": str(n),
            "audio": "b.wav",
            "question": f"What barks, {n}?",
            "choices": ["a dog", "a cat"],
            "answer": "a dog",
        }
        for n in range(12)
    ]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def same(one: Try, out: Path, other: Try, whole: Path) -> None:
        mine, yours = (sorted((folder / "r.jsonl").read_bytes().splitlines()) for folder in (out, whole))
        assert len(mine) == 24 and mine == yours
        assert last_object(one.printed) == last_object(other.printed)

    options = ("--controls", "on,wrong-crop", "--temperature", "1", "--batch", "4", "--json", "--out")
    command = [
        "eval",
        str(place / "rows.jsonl"),
        "--model",
        str(policy),
        *options,
        str(place / "out" / "r.jsonl"),
    ]
    survive(keeper, place, command, same)


def test_data_build(keeper: Keeper, place: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("bell", "dog", "car", "drum", "bird", "saw", "door", "wolf"):
        (place / "clips" / label).mkdir(parents=True)
        soundfile.write(place / "clips" / label / "1.wav", 0.5 * rng.uniform(-1, 1, 12000), 16000)

    def same(_: Try, out: Path, __: Try, whole: Path) -> None:
        mine, yours = files(out), files(whole)
        assert mine.keys() == yours.keys()
        assert [name for name in mine if mine[name] != yours[name]] == []

    survive(
        keeper,
        place,
        ["finetune", "data", "build", str(place / "clips"), str(place / "out"), "--questions", "40"],
        same,
    )


def trained_alike(one: Path, other: Path, weight: float) -> None:
    """Weights to rounding, and the same log, line by line."""
    assert apart(weights(one / "model"), weights(other / "model")) < weight
    same_logs(one, other, 1e-2)


def train(keeper: Keeper, place: Path, dataset: Path, recipe: SFTRecipe | RLRecipe, weight: float) -> None:
    write_recipe(recipe, place / "recipe.yaml")
    command = ["finetune", recipe.stage, str(place / "recipe.yaml"), str(dataset), str(place / "out")]
    survive(keeper, place, command, lambda _, out, __, whole: trained_alike(out, whole, weight))


def test_sft(keeper: Keeper, place: Path, dataset: Path) -> None:
    made = sft_recipe(
        saved(tiny_family("echo-nano"), place / "student"),
        optimiser={"steps": 10, "schedule": "cosine"},
        watch={"save_every": 2, "log_every": 3, "evaluate": 2},
    )
    train(keeper, place, dataset, made, 1e-5)


def test_rl(keeper: Keeper, place: Path, dataset: Path, policy: Path) -> None:
    made = rl_recipe(
        str(policy),
        optimiser={"steps": 8, "batch": 4},
        rollout={"updates": 2},
        watch={"save_every": 2, "log_every": 3},
        loss={"rehearsal": 0.5},
    )
    train(keeper, place, dataset, made, 1e-4)
