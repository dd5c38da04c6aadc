"""How a training ends early: Ctrl-C saves, a full disk and full memory are said, and all say how to resume."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import TrainerCallback

from echo_agent.errors import DataError, ModelError
from echo_agent.finetune.config import RolloutConfig
from echo_agent.finetune.rollouts import Rollouts
from echo_agent.finetune.run.checkpoints import MANIFEST, CheckpointKeeper, last_whole
from echo_agent.finetune.run.stopping import StopRequest, how_to_resume, said_plainly
from echo_agent.stores import RecordingStore
from tests.finetune.test_callbacks import train

pytestmark = pytest.mark.usefixtures("undrawn")


class Press(TrainerCallback):
    """Sends this process a signal, some times, in the middle of a step."""

    def __init__(self, step: int, number: int = signal.SIGINT, times: int = 1) -> None:
        self.step, self.number, self.times = step, number, times

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("updates", "stopped"), [(1, 3), (2, 4), (5, 5)])
def test_the_step_is_ended_and_saved(tmp_path: Path, number: int, updates: int, stopped: int) -> None:
    """In RL, the generation."""
    said: list[str] = []
    stop = StopRequest(updates, said.append)
    former = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with stop.heard():
        trainer = train(tmp_path, CheckpointKeeper("m", 3), stop, Press(3, number))
    assert stop.made and trainer.state.global_step == stopped
    assert last_whole(tmp_path / "checkpoints").step == stopped
    assert said == ["stopping after this step, which is saved; press Ctrl-C again to stop at once"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == former
    assert how_to_resume(tmp_path / "checkpoints") == f"the same command resumes at step {stopped + 1}"


def test_a_second_time_stops_at_once(tmp_path: Path) -> None:
    said: list[str] = []
    stop = StopRequest(1, said.append)
    with (
        pytest.raises(KeyboardInterrupt),
        said_plainly(tmp_path / "checkpoints", lambda: 2, said.append),
        stop.heard(),
    ):
        train(tmp_path, stop, Press(3, times=2))
    assert said[-1] == "interrupted in step 3; nothing was saved yet, so the same command starts at step 1"


def test_nobody_who_listens_elsewhere_is_disturbed(tmp_path: Path) -> None:
    """A job in the background ignores Ctrl-C, and goes on doing so."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest(1, lambda _: None).heard():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"\(No space left on device\)"),
        (
            PermissionError(errno.EACCES, "Permission denied", "log.jsonl"),
            r"\(Permission denied: log.jsonl\)",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
            "unexpected pos",
        ),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "failed writing"),
        (Exception("No space left on device (os error 28)"), "No space left"),
        (SafetensorError("Error while serializing: I/O error: No space left"), "No space left"),
    ],
)
def test_a_disk_that_cannot_be_written_to(tmp_path: Path, error: Exception, reason: str) -> None:
    """What is half there is removed, which also makes room."""
    half = tmp_path / "run" / "checkpoints" / "checkpoint-4"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    with (
        pytest.raises(
            DataError, match=f"run cannot be written to after step 4 .*{reason}.*mend that; nothing was"
        ) as found,
        said_plainly(half.parent, lambda: 4, print),
    ):
        raise error
    assert "\n" not in str(found.value) and not half.exists()


def test_a_full_disk_in_the_middle_of_training(tmp_path: Path) -> None:
    """The checkpoint before stays, and the run is resumed from there."""

    class Full(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 8:
                (tmp_path / "checkpoints/checkpoint-8/optimizer.pt").write_bytes(b"")
                raise OSError(errno.ENOSPC, "No space left on device")

    step = [8]
    with (
        pytest.raises(DataError, match="No space left on device.*the same command resumes at step 5"),
        said_plainly(tmp_path / "checkpoints", lambda: step[0], print),
    ):
        train(tmp_path, Full(), CheckpointKeeper("m", 1))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-4"]


FULL = Path("/dev/full")
SAVED = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "training_args.bin",
)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == SAVED[0] else pytest.mark.slow)
        for name in (*SAVED, f"{MANIFEST}.partial")
    ],
)
def test_a_disk_that_is_full_at_any_file_of_a_checkpoint(tmp_path: Path, name: str) -> None:
    """The run goes on from the checkpoint before, as often as it takes, and ends as one that never was stopped."""
    whole = train(tmp_path / "whole", CheckpointKeeper("m", 1))
    checkpoints = tmp_path / "run" / "checkpoints"

    class Fill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 8:
                (checkpoints / "checkpoint-8").mkdir()
                if name == SAVED[0]:  # which is moved into its place
                    (checkpoints / "checkpoint-8" / name).mkdir()
                else:
                    (checkpoints / "checkpoint-8" / name).symlink_to(FULL)

    resumed = False
    for _ in range(2):
        with (
            pytest.raises(DataError, match="run cannot be written to after step 8 .*resumes at step 5"),
            said_plainly(checkpoints, lambda: 8, print),
        ):
            train(tmp_path / "run", CheckpointKeeper("m", 1), Fill(), resume=resumed)
        assert last_whole(checkpoints).step == 4
        resumed = True
        shutil.rmtree(
            checkpoints / "checkpoint-8", ignore_errors=True
        )  # where only the seal is missing, it may stay
    again = train(tmp_path / "run", CheckpointKeeper("m", 1), resume=True)
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_memory_that_ran_out_and_mistakes_of_ours(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="ran out of memory in step 3: use a smaller optimiser.batch.*Tried to"
    ):
        with said_plainly(tmp_path, lambda: 2, print):
            raise torch.OutOfMemoryError("Tried to allocate 2 GiB")
    for error in (RuntimeError("shapes differ"), ValueError("x"), BrokenPipeError()):
        with pytest.raises(type(error)), said_plainly(tmp_path, lambda: 2, print):
            raise error


def test_runs_of_an_interrupted_batch_end_with_their_loop() -> None:
    """Else Python complains of each: Task was destroyed but it is pending."""
    model: Any = None
    rollouts = Rollouts(model, RecordingStore(), RolloutConfig())
    running = asyncio.run_coroutine_threadsafe(asyncio.sleep(3600), rollouts._loop)
    rollouts.close()
    assert running.cancelled()
