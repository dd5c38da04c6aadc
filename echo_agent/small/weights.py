"""Where echo-small's weights lie, and how the model is put together from them.

They are held in blocks of a few bits (:mod:`echo_agent.small.blocks`), and the model computes in float32. What is there
already is not held again: Whisper's encoder is taken from echo-nano's file, and a projector that adds nothing is left
out. :data:`BITS` says how many bits each part has. In four bits both decoders are clearly worse: the loss on lessons in
listening is 0.24 in place of 0.14 (in five it is 0.15), and Whisper hears four words of ten wrong in place of two.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from echo_agent.errors import ModelError
from echo_agent.nano.encoder import sinusoids
from echo_agent.nano.weights import ENCODER_FILE, check_fit, read_tensors, shapes_of
from echo_agent.nano.weights import WEIGHTS as NANO
from echo_agent.small.blocks import packed, shapes, unpacked
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.modeling import Projector, SmallForConditionalGeneration

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the embedded model."""
DECODER, ENCODER, PROJECTOR = "model.language_model.", "model.whisper.model.encoder.", "model.projector."
BITS = {
    f"{DECODER}embed_tokens.": 5,
    DECODER: 5,
    ENCODER: 8,
    "model.whisper.": 5,
    "model.ears.": 8,
    PROJECTOR: 8,
}
"""Bits of weights by the beginning of their names; the first that fits counts, and 0 is float16."""
FILES = ("ears.safetensors", "whisper.safetensors", "decoder-1.safetensors", "decoder-2.safetensors")
HALF = 15
"""Layers of the decoder in its first file: each is smaller than what repositories take."""
SAME = 1e-3
"""Difference, as a share of the length of a tensor, up to which two are one: that of rounding to float16."""


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
    """Bits of a weight; 0 leaves it as it is."""
    return next((bits for part, bits in BITS.items() if name.startswith(part)), 0)


def nano_encoder(config: SmallConfig) -> dict[str, Tensor]:
    """Whisper's encoder as echo-nano's file holds it, by this model's names, in float32.

    Positions are computed: echo-nano has those of five seconds, and a window has thirty here.
    """
    tensors = {ENCODER + name: tensor.float() for name, tensor in read_tensors(NANO / ENCODER_FILE).items()}
    del tensors[f"{ENCODER}positions"]
    sizes = config.whisper_config
    return tensors | {
        f"{ENCODER}embed_positions.weight": sinusoids(sizes.max_source_positions, sizes.d_model)
    }


# --- writing ------------------------------------------------------------------------------------------------------


def save_embedded(model: SmallForConditionalGeneration, folder: Path) -> None:
    """Write configuration and weights, but for what :func:`load_embedded` has from elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    own, elsewhere = _own(model), nano_encoder(model.config)
    left = {name for name, tensor in elsewhere.items() if _are_one(own.get(name), tensor)}
    if not model.model.projector.leave.weight.any():
        left |= {name for name in own if name.startswith(PROJECTOR)}
    for file in FILES:
        held = {name: own[name] for name in own if name not in left and file_of(name) == file}
        save_file(packed(held, bits_of), folder / file, metadata={"format": "pt"})


def _own(model: SmallForConditionalGeneration) -> dict[str, Tensor]:
    """The weights of a model; its head is tied to the embeddings, and no weight of its own."""
    return {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}


def _are_one(own: Tensor | None, other: Tensor) -> bool:
    if own is None or own.shape != other.shape:
        return False
    return bool((own.float() - other).norm() <= SAME * other.norm())


# --- reading ------------------------------------------------------------------------------------------------------


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
    own = _own(model)
    for file in FILES:
        _fill(model, own, folder / file)
    model.tie_weights()
    return model.eval()


def _fill(model: SmallForConditionalGeneration, own: dict[str, Tensor], path: Path) -> None:
    """Read a file into the weights of a model; what is not in it comes from echo-nano, or begins anew."""
    tensors = read_tensors(path)
    found = shapes(tensors)
    needed = {name: shape for name, shape in shapes_of(own).items() if file_of(name) == path.name}
    absent = needed.keys() - found.keys()
    encoder = {name for name in absent if name.startswith(ENCODER)}
    projector = {name for name in needed if name.startswith(PROJECTOR)}
    other = encoder | (projector if projector <= absent else set())
    check_fit(path, found, {name: needed[name] for name in needed.keys() - other})
    for name, tensor in unpacked(tensors):
        own[name].copy_(tensor)
    if encoder:
        known = {name: tensor for name, tensor in nano_encoder(model.config).items() if name in encoder}
        check_fit(NANO / ENCODER_FILE, shapes_of(known), {name: needed[name] for name in encoder})
        for name, tensor in known.items():
            own[name].copy_(tensor)
    if projector & other:
        _begin(model.model.projector)


def _begin(projector: Projector) -> None:
    """Weights of a projector that adds nothing and can be trained; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for module in projector.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
    projector.silence()
