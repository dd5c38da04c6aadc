"""How a training ends before its last step: a person stops it, the disk is full, or memory runs out.

Ctrl-C (and SIGTERM, by which clusters stop a job) lets the step be finished, saves a checkpoint and stops; a second one
stops at once. Whatever the reason, one sentence says what was wrong and how to resume.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from echo_agent.disk import disk_fault
from echo_agent.errors import DataError, ModelError
from echo_agent.finetune.memory import WAY_OUT
from echo_agent.finetune.run.checkpoints import MANIFEST, checkpoints_in, fault_of, step_of

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest(TrainerCallback):
    """Stops a trainer after the step in which Ctrl-C was pressed, with a checkpoint.

    Args:
        updates: Steps per generation (RL): a run can be resumed between generations only.
        report: Told that the request was heard.
    """

    def __init__(self, updates: int, report: Callable[[str], None]) -> None:
        self._updates, self._report = updates, report
        self.made = False
        """Whether it was asked to stop."""

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen for the signals; outside of the main thread nobody can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            if former[number] is not signal.SIG_IGN:  # such as of a job in the background
                signal.signal(number, self._hear)
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.made:
            raise KeyboardInterrupt
        self.made = True
        with suppress(RuntimeError):  # it may have come in the middle of another line
            self._report("stopping after this step, which is saved; press Ctrl-C again to stop at once")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save and stop, where all processes do."""
        if state.global_step % self._updates == 0 and self._agreed():
            control.should_save = True
            control.should_training_stop = True

    def _agreed(self) -> bool:
        """Whether any process was asked to stop: signals do not reach all of them in one step."""
        import torch
        from accelerate import PartialState

        state = PartialState()
        if state.num_processes > 1:
            asked = torch.tensor([float(self.made)], device=state.device)
            torch.distributed.all_reduce(asked)
            self.made = bool(asked.item())
        return self.made


@contextmanager
def said_plainly(checkpoints: Path, step: Callable[[], int], report: Callable[[str], None]) -> Iterator[None]:
    """Turn what ends a training into one sentence that says how to resume.

    Args:
        checkpoints: Folder of the run's checkpoints.
        step: The last step that was done.
        report: Told of an interrupt.

    Raises:
        DataError: The run's folder cannot be written to.
        ModelError: The device ran out of memory.
        KeyboardInterrupt: As it came.
    """
    import torch

    try:
        yield
    except KeyboardInterrupt:
        report(f"interrupted in step {step() + 1}; {how_to_resume(checkpoints)}")
        raise
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"the device ran out of memory in step {step() + 1}: use {WAY_OUT}; what was saved is in {checkpoints} "
            f"({str(error).splitlines()[0]})"
        ) from error
    except BrokenPipeError:  # nobody reads our lines any more
        raise
    except Exception as error:  # tokenizers raises no other kind where the disk is full
        reason = _of_the_disk(error, checkpoints)
        if not reason:
            raise
        broken = checkpoints / f"checkpoint-{step()}"
        if broken.exists() and fault_of(broken):
            shutil.rmtree(broken, ignore_errors=True)
        raise DataError(
            f"{checkpoints.parent} cannot be written to after step {step()} ({reason}): mend that; "
            f"{how_to_resume(checkpoints)}"
        ) from error


def how_to_resume(checkpoints: Path) -> str:
    """What the same command does next, in words."""
    for checkpoint in checkpoints_in(checkpoints):
        if (checkpoint / MANIFEST).exists():
            return f"the same command resumes at step {step_of(checkpoint) + 1}"
    return "nothing was saved yet, so the same command starts at step 1"


def _of_the_disk(error: Exception, folder: Path) -> str:
    """Why a file could not be written; empty where the error is of another kind."""
    reason = disk_fault(error)
    if isinstance(error, OSError):
        return f"{reason}: {error.filename}" if reason and error.filename else reason
    with suppress(OSError):
        if reason and shutil.disk_usage(folder).free < 1 << 20:
            return "the disk is full"
    return reason
