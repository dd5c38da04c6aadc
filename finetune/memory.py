"""What a training holds in memory in addition to the weights, and whether there is room for it before it begins.

Known before the first step: gradients, AdamW's two moments, and the copy of the weights that a divergence is from.
Activations depend on the lengths of sequences and come on top; where those are too large the first step says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from echo_agent.errors import ModelError
from echo_agent.finetune.config import RLRecipe, SFTRecipe
from echo_agent.finetune.policy import adapted_layers

if TYPE_CHECKING:
    from echo_agent.families.base import Family

WAY_OUT = (
    "a smaller optimiser.batch with more optimiser.accumulation, optimiser.gradient_checkpointing: true, a shorter "
    "data.longest, lora in place of all weights, or a larger device"
)
"""What to change, in words."""
GIGA = 1e9


def bytes_to_train(family: Family, recipe: SFTRecipe | RLRecipe) -> int:
    """Bytes of gradients, moments, and the copy of the weights, as far as they can be known.

    Adapters are counted as rank x (in + out) of each layer that gets one, in float32.
    """
    model = family.model
    if recipe.lora is None:
        trained = sum(3 * p.nbytes for p in model.parameters() if p.requires_grad)
    else:
        layers = adapted_layers(family, recipe.lora).values()
        adapters = sum(recipe.lora.rank * (layer.in_features + layer.out_features) for layer in layers)
        projector = sum(p.numel() for p in model.get_submodule(family.projector_module).parameters())
        trained = 16 * (adapters + projector * recipe.lora.train_projector)  # the weights too: they are added
    copied = isinstance(recipe, RLRecipe) and recipe.loss.kl > 0 and recipe.lora is None
    return trained + (sum(p.numel() * p.element_size() for p in model.parameters()) if copied else 0)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where that cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu":
        import psutil

        return psutil.virtual_memory().available
    return None


def check_memory(family: Family, recipe: SFTRecipe | RLRecipe) -> None:
    """Refuse a training for which there is no room, whatever its sequences.

    Raises:
        ModelError: With what it takes, what there is, and what to change.
    """
    needed, free = bytes_to_train(family, recipe), free_bytes(family.device)
    if free is not None and needed > free:
        copy = (
            "; set loss.kl to 0"
            if isinstance(recipe, RLRecipe) and recipe.loss.kl and not recipe.lora
            else ""
        )
        raise ModelError(
            f"training {family.name} takes {needed / GIGA:.1f} GB beside its weights (gradients, moments, copies), but "
            f"{free / GIGA:.1f} GB are free on {family.device}: use {WAY_OUT}{copy}"
        )
