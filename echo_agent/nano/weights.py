"""Where echo-nano's weights lie, and how a model is put together from them.

echo-nano is two files: the encoder, which never changes, and the policy (adapter and decoder). Both are
float16 safetensors; the model computes in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from echo_agent.errors import ModelError
from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.modeling import NanoForConditionalGeneration

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the embedded model."""
ENCODER_FILE = "encoder.safetensors"
POLICY_FILE = "policy.safetensors"


def load_encoder(model: NanoForConditionalGeneration, folder: Path = WEIGHTS) -> None:
    """Read the encoder's weights into a model and freeze them; raises ModelError where they are missing or damaged."""
    path = folder / ENCODER_FILE
    if not path.exists():
        raise ModelError(
            f"{path}: encoder weights are missing; build them with `python -m echo_agent.finetune.nano.convert_encoder`"
        )
    encoder = model.model.encoder
    _fill(encoder, path, ())
    encoder.requires_grad_(False)


def load_embedded(folder: Path = WEIGHTS) -> NanoForConditionalGeneration:
    """echo-nano, in evaluation mode on the CPU; raises ModelError where a file is missing or damaged."""
    for name, what in ((POLICY_FILE, "policy weights are"), ("config.json", "the model's configuration is")):
        if not (folder / name).exists():
            raise ModelError(f"{folder / name}: {what} missing; reinstall echo-agent, or train a model")
    model = NanoForConditionalGeneration(NanoConfig.from_pretrained(folder))
    load_encoder(model, folder)
    _fill(model, folder / POLICY_FILE, ("model.encoder.", "lm_head.weight"))
    return model.eval()


def _fill(module: nn.Module, path: Path, elsewhere: tuple[str, ...]) -> None:
    """Load a file into a module; names that begin as one of ``elsewhere`` need not be in it."""
    tensors = read_tensors(path)
    own = module.state_dict()
    needed = (
        {name: value for name, value in own.items() if not name.startswith(elsewhere)} if elsewhere else own
    )
    check_fit(path, shapes_of(tensors), shapes_of(needed))
    floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    module.load_state_dict(floats, strict=False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; raises ModelError where it is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged, get it again: {error}") from error


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Their shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_fit(
    path: Path, found: Mapping[str, tuple[int, ...]], needed: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise ModelError where a file has other tensors than a model needs from it, or of other shapes."""
    other = {name for name in needed.keys() & found.keys() if found[name] != needed[name]}
    if bad := sorted((needed.keys() ^ found.keys()) | other):
        raise ModelError(f"{path} does not fit the model's configuration: {', '.join(bad[:3])}")


def save_embedded(model: NanoForConditionalGeneration, folder: Path) -> None:
    """Write configuration and policy (all but the encoder and the tied head) as float16."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    tensors = {
        name: value.detach().contiguous().to(torch.float16 if value.is_floating_point() else value.dtype)
        for name, value in model.state_dict().items()
        if not name.startswith("model.encoder.") and name != "lm_head.weight"
    }
    save_file(tensors, folder / POLICY_FILE, metadata={"format": "pt"})
