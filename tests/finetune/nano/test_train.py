"""From a bank to a model: what is made, what is not made again, and that it can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from echo_agent.agent import EchoAgent
from echo_agent.errors import DataError
from echo_agent.families.loading import load_family
from echo_agent.finetune.nano.train import NanoRecipe, export, load_branch, new_model, train_nano
from echo_agent.nano.processing import load_tokenizer, time_token_ids
from echo_agent.nano.weights import ENCODER_FILE, POLICY_FILE, WEIGHTS
from tests.finetune.small_bank import write_bank
from tests.tiny import sounds

ALL = ("sound", "note", "background", "digit", "word")
RECIPE = NanoRecipe(shards=1, val_shards=1, branch_epochs=1, steps=4, seed=1)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_model_is_a_function_of_its_seed() -> None:
    first, again, other = (new_model(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    differ = {name for name, value in first.items() if not torch.equal(value, other[name])}
    assert differ and not any(name.startswith("model.encoder.") for name in differ)


def test_a_new_model_hears_with_whispers_encoder_and_writes_with_the_tokenizer() -> None:
    model, tokenizer = new_model(), load_tokenizer(WEIGHTS)
    assert not any(parameter.requires_grad for parameter in model.model.encoder.parameters())
    assert model.config.time_token_ids == time_token_ids(tokenizer)
    assert model.config.text_config.vocab_size == len(tokenizer)
    shipped = load_file(WEIGHTS / ENCODER_FILE)
    assert all(torch.equal(v, shipped[name].float()) for name, v in model.model.encoder.state_dict().items())


def test_what_is_exported_can_be_loaded(tmp_path: Path) -> None:
    model = new_model(seed=3)
    folder = export(model, tmp_path / "model")
    assert files(folder) == {"config.json", ENCODER_FILE, POLICY_FILE, "tokenizer.json"}
    family = load_family(str(folder), device="cpu")
    assert family.kind == "echo-nano"
    loaded = family.model.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(loaded[name], value, atol=2e-3, rtol=2e-3)


def test_nothing_is_begun_without_a_bank(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sound bank"):
        train_nano(tmp_path, tmp_path / "run", RECIPE)
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match="is a file"):
        train_nano(tmp_path, tmp_path / "file", RECIPE)


@pytest.mark.slow
def test_from_a_bank_to_an_answer(tmp_path: Path) -> None:
    bank = write_bank(tmp_path / "bank", {"train": ALL, "val": ALL}, listed=("test",))
    out, said = tmp_path / "run", list[str]()
    folder = train_nano(bank, out, RECIPE, report=said.append)
    assert folder == out / "model"
    made = {
        "tiles/train/0000.safetensors",
        "tiles/val/100000.safetensors",
        "branch.safetensors",
        "sft/checkpoint.pt",
        *(f"model/{name}" for name in ("config.json", ENCODER_FILE, POLICY_FILE, "tokenizer.json")),
    }
    assert files(out) == made
    assert [line.split(":")[0] for line in said] == [
        "train tiles",
        "val tiles",
        "sound branch",
        "sound branch",
    ]
    with EchoAgent.from_pretrained(str(folder), device="cpu") as agent:
        result = agent.ask((sounds(8.0), 16000), "Which comes first: the bell or the car?", ["bell", "car"])
    assert result.status in ("answered", "unparsed") and result.tokens["audio"] >= 48
    kept = {name: (out / name).read_bytes() for name in made}
    other = new_model(seed=1)
    load_branch(other, out / "branch.safetensors")
    assert not other.model.adapter.branch.training
    (out / "branch.safetensors").unlink()  # a second run makes what is missing, and makes it the same
    said.clear()
    train_nano(bank, out, RECIPE, report=said.append)
    assert all(line.startswith("sound branch") for line in said) and said
    for name in made - {"sft/checkpoint.pt"}:
        assert (out / name).read_bytes() == kept[name], name
