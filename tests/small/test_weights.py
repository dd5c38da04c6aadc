"""The files that ship: what is written is read back, and what is missing or damaged is one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig

from echo_agent.errors import ModelError
from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.nano.weights import ENCODER_FILE
from echo_agent.nano.weights import WEIGHTS as NANO_WEIGHTS
from echo_agent.small.blocks import shapes
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.modeling import SmallForConditionalGeneration
from echo_agent.small.weights import (
    BITS,
    ENCODER,
    FILES,
    bits_of,
    file_of,
    load_embedded,
    nano_encoder,
    save_embedded,
)
from echo_agent.small.whisper import tiny_english
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
        assert value.ndim > 1 or lost < 1e-3, name
    assert read.model.lm_head.weight is read.model.get_input_embeddings().weight
    assert read.model.dtype == torch.float32 and not read.model.training


def test_every_weight_has_its_file() -> None:
    names = [f"model.language_model.layers.{n}.mlp.up_proj.weight" for n in (0, 14, 15, 29)]
    assert [file_of(name)[-13] for name in names] == ["1", "1", "2", "2"]
    assert file_of("model.language_model.embed_tokens.weight") == FILES[3]
    assert file_of("model.whisper.model.decoder.embed_tokens.weight") == FILES[1]
    assert file_of("model.projector.leave.weight") == file_of("model.ears.head.enter.bias") == FILES[0]


def test_bits_of_a_part_stand_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "model.language_model.embed_tokens.weight": 5,
        "model.language_model.layers.3.mlp.up_proj.weight": 6,
        "model.whisper.model.encoder.layers.0.fc1.weight": 8,
        "model.whisper.model.decoder.layers.0.fc1.weight": 5,
        "model.ears.yamnet.layers.2.conv.weight": 8,
        "elsewhere": 0,
    }
    monkeypatch.setitem(BITS, "model.language_model.", 6)
    assert {name: bits_of(name) for name in names} == names
    tiny_small().save_in_blocks(tmp_path)
    written = load_file(tmp_path / FILES[2]) | load_file(tmp_path / FILES[3])
    up = "model.language_model.layers.1.mlp.up_proj.weight"
    assert len(written[f"{up}.codes"]) == 6
    assert len(written["model.language_model.embed_tokens.weight.codes"]) == 5


# --- what is not held twice ---------------------------------------------------------------------------------------


def wide() -> SmallForConditionalGeneration:
    """A model with the sizes of Whisper-tiny's encoder, and next to nothing else."""
    config = tiny_small().config
    config.whisper_config = WhisperConfig(
        vocab_size=64, d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536,
        decoder_layers=1, decoder_attention_heads=6, decoder_ffn_dim=64, max_source_positions=1500,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    return SmallForConditionalGeneration(config)


def test_the_encoder_is_that_of_echo_nano(tmp_path: Path) -> None:
    model = wide()
    known = nano_encoder(model.config)
    own = model.state_dict()
    assert known.keys() == {name for name in own if name.startswith(ENCODER)}
    assert all(tensor.shape == own[name].shape for name, tensor in known.items())
    other = f"{ENCODER}layers.2.fc1.weight"
    for name, tensor in known.items():
        own[name].copy_(tensor * 1.01 if name == other else tensor.half())
    save_embedded(model, tmp_path)
    held = {name for name in shapes(load_file(tmp_path / FILES[1])) if name.startswith(ENCODER)}
    assert held == {other}, "what echo-nano has is not held again"
    read = load_embedded(tmp_path).state_dict()
    for name, tensor in known.items():
        if name == other:
            assert 0.009 < (read[name] - tensor).norm() / tensor.norm() < 0.015
        else:
            assert torch.equal(read[name], tensor), name


def test_positions_are_those_of_the_file() -> None:
    held = load_file(NANO_WEIGHTS / ENCODER_FILE)["positions"].float()
    computed = nano_encoder(SmallConfig(whisper_config=tiny_english()))[f"{ENCODER}embed_positions.weight"]
    assert computed.shape == (1500, 384)
    torch.testing.assert_close(computed[: len(held)], held, atol=1e-3, rtol=0)


def test_a_projector_that_adds_nothing_is_left_out(tmp_path: Path) -> None:
    family = tiny_small()
    family.model.model.projector.silence()
    family.save_in_blocks(tmp_path)
    assert not any(name.startswith("model.projector") for name in load_file(tmp_path / FILES[0]))
    first, again = (load_embedded(tmp_path).model.projector for _ in range(2))
    assert not first.leave.weight.any() and first.enter[1].weight.std() > 0, "it can be trained"
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_what_the_configuration_says_is_in_no_file(folder: Path) -> None:
    tensors = load_file(folder / FILES[0])
    assert not any("taught" in name or "thresholds" in name for name in tensors)
    family = load_family(str(folder), "cpu")
    assert isinstance(family, SmallFamily) and family.config.taught == [True, True, False, True]
    before = family.encoder_fingerprint()
    family.config.thresholds = [1.0, 0.0, 0.0, 0.0]
    assert family.encoder_fingerprint() != before


# --- what is wrong ------------------------------------------------------------------------------------------------


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
