"""Weights on disk: what is written is what is loaded, and what is missing is named."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from echo_agent.errors import ModelError
from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.encoder import NanoEncoder
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.weights import (
    ENCODER_FILE,
    POLICY_FILE,
    WEIGHTS,
    load_embedded,
    load_encoder,
    save_embedded,
)
from tests.tiny import tiny_family


@pytest.fixture(scope="module")
def model() -> NanoForConditionalGeneration:
    model = tiny_family("echo-nano").model
    assert isinstance(model, NanoForConditionalGeneration)
    return model.eval()


@pytest.fixture
def folder(model: NanoForConditionalGeneration, tmp_path: Path) -> Path:
    """A tiny model in the form of the embedded one."""
    folder = tmp_path / "model"
    save_embedded(model, folder)
    encoder = {name: value.half().contiguous() for name, value in model.model.encoder.state_dict().items()}
    save_file(encoder, folder / ENCODER_FILE)
    return folder


def test_round_trip(model: NanoForConditionalGeneration, folder: Path) -> None:
    again = load_embedded(folder)
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.model.encoder.parameters())
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert after[name].dtype == value.dtype, name
        assert torch.equal(after[name], value.half().float() if value.is_floating_point() else value), name
    assert again.lm_head.weight is again.get_input_embeddings().weight


def test_the_policy_file_holds_neither_encoder_nor_tied_head(folder: Path) -> None:
    tensors = load_file(folder / POLICY_FILE)
    assert not [name for name in tensors if name.startswith("model.encoder.") or name.startswith("lm_head")]
    assert {str(value.dtype) for value in tensors.values()} == {"torch.float16", "torch.int64"}
    assert tensors["model.time_tokens"].shape == (601,)


@pytest.mark.parametrize("name", [ENCODER_FILE, POLICY_FILE, "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name) as caught:
        load_embedded(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert "missing" in str(caught.value)


def test_a_policy_of_another_model_is_refused(folder: Path) -> None:
    tensors = load_file(folder / POLICY_FILE)
    del tensors["model.adapter.project.1.weight"]
    save_file(tensors, folder / POLICY_FILE)
    with pytest.raises(ModelError, match=r"does not fit .*adapter.project.1.weight"):
        load_embedded(folder)


def test_a_policy_of_another_size_is_refused(folder: Path) -> None:
    tensors = load_file(folder / POLICY_FILE)
    tensors["model.adapter.project.1.bias"] = torch.zeros(3, dtype=torch.float16)
    save_file(tensors, folder / POLICY_FILE)
    with pytest.raises(ModelError, match=r"does not fit .*adapter.project.1.bias"):
        load_embedded(folder)


@pytest.mark.parametrize("name", [ENCODER_FILE, POLICY_FILE])
def test_a_file_that_broke_off_is_refused(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=name):
        load_embedded(folder)


def test_load_encoder_says_how_it_is_built(model: NanoForConditionalGeneration, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"python -m echo_agent\.finetune\.nano\.convert_encoder"):
        load_encoder(model, tmp_path)


def test_the_shipped_encoder_is_small_and_carries_its_licence() -> None:
    assert (WEIGHTS / ENCODER_FILE).stat().st_size <= 24 * 2**20
    notice = (WEIGHTS / "LICENSE-whisper.txt").read_text(encoding="utf-8")
    assert "MIT License" in notice and "OpenAI" in notice and "without restriction" in notice


def test_the_shipped_encoder_fits_the_default_configuration() -> None:
    tensors = load_file(WEIGHTS / ENCODER_FILE)
    expected = NanoEncoder(NanoConfig()).state_dict()
    assert {name: value.shape for name, value in tensors.items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_the_shipped_encoder_knows_whispers_positions() -> None:
    """Whisper's positions are sinusoids by construction; a wrong conversion would show here first."""
    positions = load_file(WEIGHTS / ENCODER_FILE)["positions"].float()
    torch.testing.assert_close(positions, NanoEncoder(NanoConfig()).positions.data, atol=2e-3, rtol=0)


def test_saving_leaves_the_model_as_it_was(model: NanoForConditionalGeneration, tmp_path: Path) -> None:
    def digest() -> str:
        total = hashlib.sha256()
        for value in model.state_dict().values():
            total.update(value.numpy().tobytes())
        return total.hexdigest()

    before = digest()
    save_embedded(model, tmp_path / "a" / "b")
    assert digest() == before
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {POLICY_FILE, "config.json"}
    shutil.rmtree(tmp_path / "a")
