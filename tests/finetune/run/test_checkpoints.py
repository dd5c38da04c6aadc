"""Checkpoints: sealed when whole, found out when damaged, and the one before taken in their place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from echo_agent.finetune.policy import follow_umask
from echo_agent.finetune.run.checkpoints import (
    MANIFEST,
    CheckpointKeeper,
    fault_of,
    last_whole,
    processes_of,
    seal,
)

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def save(folder: Path, step: int, *, sealed: bool = True) -> Path:
    """A checkpoint in small."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"weight": torch.arange(64.0)}, checkpoint / FILES[0])
    for name in FILES[1:4]:
        torch.save({"step": step, "values": torch.arange(64.0)}, checkpoint / name)
    (checkpoint / FILES[4]).write_text(json.dumps({"global_step": step}))
    if sealed:
        seal(checkpoint)
    return checkpoint


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


SPOILS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "flipped": flip,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_taken(
    tmp_path: Path, name: str, spoil: str
) -> None:
    earlier, later = save(tmp_path, 2), save(tmp_path, 10)
    assert last_whole(tmp_path).whole == later
    SPOILS[spoil](later / name)
    found = last_whole(tmp_path)
    assert found.whole == earlier and found.step == 2 and found.lost
    assert len(found.faults) == 1 and found.faults[0].startswith(f"checkpoint-10 is damaged ({name} ")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spoil", ["missing", "empty", "cut", "zeros"])
def test_damage_shows_in_checkpoints_of_older_versions_too(tmp_path: Path, name: str, spoil: str) -> None:
    """They have no manifest; of a flipped bit in the weights nothing can be known then."""
    earlier, later = save(tmp_path, 2, sealed=False), save(tmp_path, 10, sealed=False)
    assert last_whole(tmp_path).whole == later
    SPOILS[spoil](later / name)
    assert last_whole(tmp_path).whole == earlier


def test_what_was_never_sealed_is_not_whole_where_another_was(tmp_path: Path) -> None:
    """The process died before it had written the manifest: of an older version it is not."""
    old, sealed, late = (save(tmp_path, step, sealed=step == 4) for step in (2, 4, 6))
    found = last_whole(tmp_path)
    assert found.whole == sealed and found.faults == (
        "checkpoint-6 is damaged (manifest.json is missing: saving was broken off)",
    )
    flip(sealed / FILES[0])
    assert last_whole(tmp_path).whole == old and late.exists()


def test_the_processes_of_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 2)
    assert processes_of(checkpoint) == 1
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    shutil.copy(checkpoint / "rng_state_0.pth", checkpoint / "rng_state_1.pth")
    assert processes_of(checkpoint) == 2


def test_a_save_that_was_broken_off_is_nothing_lost(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 5, sealed=False)
    (checkpoint / "trainer_state.json").unlink()
    found = last_whole(tmp_path)
    assert found.whole is None and not found.lost and "broken off" in found.faults[0]
    assert last_whole(tmp_path / "none").whole is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', '{"files": {"a": {}}}'])
def test_a_damaged_manifest(tmp_path: Path, text: str) -> None:
    checkpoint = save(tmp_path, 5)
    (checkpoint / MANIFEST).write_text(text)
    assert fault_of(checkpoint) == f"{MANIFEST} cannot be read"


def test_a_kill_while_modes_are_set_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was made to see the mode of new ones would count as damage."""
    checkpoint = save(tmp_path, 2, sealed=False)
    before = {path.name for path in checkpoint.iterdir()}

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    (checkpoint / "model.safetensors").chmod(0o600)
    follow_umask(checkpoint)
    assert {path.name for path in checkpoint.iterdir()} == before and fault_of(checkpoint) == ""
    assert len({path.stat().st_mode for path in checkpoint.iterdir()}) == 1


def test_what_is_saved_is_sealed_and_older_ones_go_only_then(tmp_path: Path) -> None:
    keeper = CheckpointKeeper("some/model", keep=2)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True)
    for step in (2, 4, 6):
        checkpoint = save(tmp_path, step, sealed=False)
        for folder in (tmp_path, checkpoint):
            (folder / "README.md").write_text("[More Information Needed]")
        (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/me/m"}')
        keeper.on_save(arguments, TrainerState(global_step=step), TrainerControl())
        assert not fault_of(checkpoint) and (checkpoint / MANIFEST).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-4", "checkpoint-6"]
    assert not list(tmp_path.rglob("README.md"))
    config = json.loads((tmp_path / "checkpoint-6" / "adapter_config.json").read_text())
    assert config == {"base_model_name_or_path": "some/model"}
    modes = {path.stat().st_mode for path in (tmp_path / "checkpoint-6").iterdir()}
    assert len(modes) == 1  # that of new files, the weights' too
    shutil.rmtree(tmp_path / "checkpoint-4")
    assert last_whole(tmp_path).step == 6
