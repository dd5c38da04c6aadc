"""Where echo-small's weights lie, and how the model is put together from them.

Matrices are held in blocks (:mod:`echo_agent.small.blocks`): five bits for the decoder, which is three quarters of the
model, four for Whisper's decoder and eight for its encoder; the ears, which are small, in float16. In four bits the
decoder is clearly worse (its loss on lessons in listening is 0.24 in place of 0.14; in five it is 0.15). The model
computes in float32.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor
from transformers.initialization import no_init_weights

from echo_agent.errors import ModelError
from echo_agent.nano.weights import check_fit, read_tensors
from echo_agent.small.blocks import packed, unpacked
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.modeling import SmallForConditionalGeneration

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the embedded model."""
DECODER = "model.language_model."
FILES = ("ears.safetensors", "whisper.safetensors", "decoder-1.safetensors", "decoder-2.safetensors")
HALF = 15
"""Layers of the decoder in its first file: each is smaller than what repositories take."""


def is_embedded(folder: Path) -> bool:
    """Whether a folder holds a model in these files."""
    return (folder / FILES[-1]).exists()


def file_of(name: str) -> str:
    """The file that a weight is in."""
    ears, whisper, first, second = FILES
    if not name.startswith(DECODER):
        return whisper if name.startswith("model.whisper.") else ears
    layer = name.removeprefix(DECODER + "layers.").partition(".")[0]
    return first if layer.isdigit() and int(layer) < HALF else second


def bits_of(name: str) -> int:
    """Bits of a matrix; 0 leaves it as it is."""
    if name.startswith("model.whisper.encoder."):
        return 8
    return 5 if name.startswith(DECODER) else 4 if name.startswith("model.whisper.") else 0


def save_embedded(model: SmallForConditionalGeneration, folder: Path) -> None:
    """Write configuration and weights, all but the head, which is tied."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    for file in FILES:
        save_file(packed(_held(model, file), bits_of), folder / file, metadata={"format": "pt"})


def _held(model: SmallForConditionalGeneration, file: str) -> dict[str, Tensor]:
    """What one of the files holds of a model; the head is tied, and in none."""
    own = model.state_dict().items()
    return {name: value for name, value in own if name != "lm_head.weight" and file_of(name) == file}


def load_embedded(folder: Path = WEIGHTS) -> SmallForConditionalGeneration:
    """The model of a folder, in evaluation mode on the CPU in float32.

    Raises:
        ModelError: A file is missing or damaged, or does not belong to the configuration.
    """
    for name in ("config.json", *FILES):
        if not (folder / name).exists():
            raise ModelError(f"{folder / name} is missing; reinstall echo-agent, or get the model again")
    with no_init_weights():
        model = SmallForConditionalGeneration(SmallConfig.from_pretrained(folder))
    for file in FILES:
        tensors = unpacked(read_tensors(folder / file))
        check_fit(folder / file, tensors, _held(model, file))
        model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    return model.eval()
