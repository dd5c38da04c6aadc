"""What a trainer adds up goes on in a run that is resumed; more of it is in ``test_sft`` and ``test_killed``."""

from __future__ import annotations

from pathlib import Path

from echo_agent.finetune.callbacks import LOG
from echo_agent.finetune.sft import train_sft
from tests.finetune.small_dataset import saved
from tests.finetune.training import same_logs, sft_recipe
from tests.tiny import tiny_family


def test_a_run_that_died_after_its_last_checkpoint_logs_its_end(dataset: Path, tmp_path: Path) -> None:
    """With the mean of all steps, one of which was in no line yet."""
    made = sft_recipe(
        saved(tiny_family("echo-nano"), tmp_path / "m"), optimiser={"steps": 3}, watch={"log_every": 2}
    )
    train_sft(made, dataset, tmp_path / "run", report=lambda _: None)
    log = tmp_path / "run" / LOG
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / LOG).write_bytes(log.read_bytes())
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    for name in ("run.json", "curves.png"):
        (tmp_path / "run" / name).unlink()
    train_sft(made, dataset, tmp_path / "run", report=lambda _: None)
    same_logs(tmp_path / "whole", tmp_path / "run")
    assert (tmp_path / "run" / "curves.png").exists()
