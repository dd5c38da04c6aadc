"""The folder of a run: who may begin in it, what it is resumed from, and what is refused in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.run.run_dir import RunDir
from echo_agent.locks import locked_folder
from tests.finetune.run.test_checkpoints import save
from tests.finetune.training import rl_recipe, sft_recipe
from tests.test_locks import other

DATA = Path("/data/set")


def begun(path: Path) -> RunDir:
    """A folder that a run was begun in and broken off."""
    folder = RunDir(path)
    assert folder.begin(sft_recipe("m"), DATA) is None
    folder.leave()
    return folder


def test_a_run_is_begun_and_resumed(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    checkpoint = save(folder.checkpoints, 1)
    assert folder.begin(sft_recipe("m"), DATA) == str(checkpoint)
    folder.leave()


def test_another_process_trains_there(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    process = other(tmp_path)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    with pytest.raises(DataError, match="in use by process"):
        folder.begin(sft_recipe("m"), DATA)
    process.communicate()
    assert folder.begin(sft_recipe("m"), DATA) is None
    folder.leave()


def test_a_folder_that_is_refused_is_left_to_others(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    save(folder.checkpoints, 1)
    with pytest.raises(DataError, match="model.name was m, now n"):
        folder.begin(sft_recipe("n"), DATA)
    with pytest.raises(DataError, match="begun with the data of /data/set, not /data/other"):
        folder.begin(sft_recipe("m"), Path("/data/other"))
    with pytest.raises(DataError, match="was begun with another recipe"):
        folder.begin(rl_recipe("m"), DATA)
    assert other(tmp_path).communicate() == ("locked\n", "")


def test_the_same_place_with_other_samples_is_other_data(tmp_path: Path) -> None:
    data, folder = tmp_path / "set", RunDir(tmp_path / "run")
    (data / "data").mkdir(parents=True)
    (data / "data" / "train.parquet").write_bytes(b"some")
    folder.begin(sft_recipe("m"), data)
    folder.leave()
    save(folder.checkpoints, 1)
    (data / "data" / "train.parquet").write_bytes(b"others")
    with pytest.raises(DataError, match="set holds other samples than when .*run was begun"):
        folder.begin(sft_recipe("m"), data)


def test_the_same_name_with_other_weights_is_another_policy(tmp_path: Path) -> None:
    """Adapters, with what they stand on."""
    base, model, folder = tmp_path / "base", tmp_path / "model", RunDir(tmp_path / "run")
    for place in (base, model):
        place.mkdir()
        (place / "model.safetensors").write_bytes(b"some")
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "../base"}')
    made = sft_recipe(str(model))
    folder.begin(made, DATA)
    folder.leave()
    checkpoint = save(folder.checkpoints, 1)
    for place in (base, model):
        (place / "model.safetensors").write_bytes(b"others")
        with pytest.raises(DataError, match="model has other weights than when .*run was begun"):
            folder.begin(made, DATA)
        (place / "model.safetensors").write_bytes(b"some")
    assert folder.begin(made, DATA) == str(checkpoint)
    folder.leave()


def test_another_number_of_processes_is_another_run(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    checkpoint = save(folder.checkpoints, 1, sealed=False)
    for number in (0, 1):
        shutil.copy(checkpoint / "rng_state.pth", checkpoint / f"rng_state_{number}.pth")
    (checkpoint / "rng_state.pth").unlink()
    with pytest.raises(DataError, match="was begun by 2 processes, and there are 1: .*--num_processes 2"):
        folder.begin(sft_recipe("m"), DATA)


def test_a_checkpoint_without_its_recipe_is_not_resumed_by_any(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    save(folder.checkpoints, 1)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(DataError, match=r"recipe.yaml is no recipe"):
        folder.begin(sft_recipe("m"), DATA)
    (tmp_path / "recipe.yaml").unlink()
    with pytest.raises(DataError, match=r"no recipe.yaml: with which recipe it was begun is not known"):
        folder.begin(sft_recipe("m"), DATA)


def test_what_is_watched_may_be_changed(tmp_path: Path) -> None:
    """A recipe of an older version, whose defaults were others, is resumed too."""
    folder = begun(tmp_path)
    checkpoint = save(folder.checkpoints, 1)
    changed = sft_recipe("m", watch={"log_every": 7, "keep": 5})
    assert folder.begin(changed, DATA) == str(checkpoint)
    folder.leave()


def test_damage_is_said_and_passed_over(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    earlier, later = save(folder.checkpoints, 1), save(folder.checkpoints, 2)
    (later / "optimizer.pt").unlink()
    said: list[str] = []
    assert RunDir(tmp_path, said.append).begin(sft_recipe("m"), DATA) == str(earlier)
    assert said == [f"{tmp_path}: checkpoint-2 is damaged (optimizer.pt is missing)"]
    folder.leave()


def test_a_run_without_a_whole_checkpoint_does_not_start_afresh_in_silence(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    checkpoint = save(folder.checkpoints, 2)
    (checkpoint / "trainer_state.json").unlink()
    with pytest.raises(
        DataError, match="no checkpoint is whole .*trainer_state.json is missing.*start at step 1"
    ):
        folder.begin(sft_recipe("m"), DATA)
    assert other(tmp_path).communicate() == ("locked\n", "")


def test_a_first_save_that_was_broken_off_begins_again(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    checkpoint = save(folder.checkpoints, 2, sealed=False)
    (checkpoint / "trainer_state.json").unlink()
    said: list[str] = []
    assert RunDir(tmp_path, said.append).begin(sft_recipe("m"), DATA) is None
    assert len(said) == 1 and "saving was broken off" in said[0]
    folder.leave()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"run cannot be made: Not a directory"):
        RunDir(tmp_path / "file" / "run").begin(sft_recipe("m"), DATA)


def test_a_lock_alone_makes_no_folder_foreign(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        assert RunDir(tmp_path).begin(sft_recipe("m"), DATA) is None
        RunDir(tmp_path).leave()
