"""The files that ship: what is written is read back, and what is missing or damaged is one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from echo_agent.errors import ModelError
from echo_agent.families.loading import load_family
from echo_agent.small.weights import FILES, file_of
from tests.small.tiny_small import tiny_small


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that fit the widths of a tiny model, so that its matrices are held in them."""
    monkeypatch.setattr("echo_agent.small.blocks.BLOCK", 16)


@pytest.fixture
def folder(tmp_path: Path, small_blocks: None) -> Path:
    folder = tmp_path / "small"
    tiny_small().save_in_blocks(folder)
    return folder


def test_a_model_comes_back(folder: Path) -> None:
    family, read = tiny_small(), load_family(str(folder), "cpu")
    assert read.kind == "echo-small" and read.tokenizer.get_vocab() == family.tokenizer.get_vocab()
    assert any(name.endswith(".codes") for name in load_file(folder / FILES[2]))
    before, after = family.model.state_dict(), read.model.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        lost = (after[name].double() - value.double()).norm() / value.double().norm().clamp(min=1e-6)
        assert lost < 0.2, name
        assert value.ndim == 2 or lost < 1e-3, name
    assert read.model.lm_head.weight is read.model.get_input_embeddings().weight
    assert read.model.dtype == torch.float32 and not read.model.training


def test_every_weight_has_its_file() -> None:
    names = [f"model.language_model.layers.{n}.mlp.up_proj.weight" for n in (0, 14, 15, 29)]
    assert [file_of(name)[-13] for name in names] == ["1", "1", "2", "2"]
    assert file_of("model.language_model.embed_tokens.weight") == FILES[3]
    assert file_of("model.whisper.model.decoder.embed_tokens.weight") == FILES[1]
    assert file_of("model.projector.leave.weight") == file_of("model.ears.taught") == FILES[0]


@pytest.mark.parametrize("spoil", ["missing", "cut", "lacks", "exceeds", "other size"])
def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path, spoil: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    path = copy / FILES[2 if spoil == "missing" else 0]
    tensors = load_file(path)
    first = sorted(tensors)[0]
    if spoil == "missing":
        path.unlink()
    elif spoil == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        if spoil == "lacks":
            del tensors[first]
        elif spoil == "exceeds":
            tensors["model.ears.nose"] = torch.ones(1)
        else:
            tensors[first] = torch.ones(1, 2, 3)
        save_file(tensors, path)
    said = {"missing": "is missing", "cut": "damaged"}.get(spoil, "does not fit the model's configuration")
    with pytest.raises(ModelError, match=said) as error:
        load_family(str(copy), "cpu")
    assert path.name in str(error.value) and "\n" not in str(error.value)
