"""The policy in training, on the servers that sample its rollouts: loaded anew for each generation.

It goes there as adapters where these are all that is trained and vLLM loads them for the family, else as the whole
model, with adapters merged into it. Each version has a name of its own, made of its content, so that no server
continues what it computed with others, of this run or of one before it. The files lie in the run's folder, which
trainer and servers see under the same path: they need no network of their own, and work on a CPU.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from peft import PeftModel
from peft.tuners.lora import Linear
from safetensors.torch import load_file, save_file
from transformers.core_model_loading import revert_weight_conversion

from echo_agent.errors import DataError
from echo_agent.finetune.policy import save_policy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from echo_agent.engine import VLLMEngine
    from echo_agent.families.base import Family

DECODERS = {"qwen2.5-omni": "thinker.model."}
"""What adapters for vLLM call a model's decoder, by family: of Qwen2-Audio it loads none."""
BEFORE = {"qwen2-audio": "", "qwen2.5-omni": "thinker."}
"""What stands before the names of weights in the checkpoints that vLLM reads, by family."""
ADAPTERS, WHOLE = "adapter_model.safetensors", "model.safetensors"
KEPT = 2
"""Versions whose files are kept: a server that is started anew reads the last one again."""


class ServedPolicy:
    """Brings the policy to the servers; see the module."""

    def __init__(self, engine: VLLMEngine, family: Family, run: Path, *, adapters: bool) -> None:
        """Use ``run/adapters``, or ``run/weights``.

        Args:
            engine: Over the servers.
            family: The model in training.
            run: Folder of the run.
            adapters: Adapters (LoRA) of the decoder are all that is trained.

        Raises:
            DataError: How vLLM calls this family's weights is not known.
        """
        if family.kind not in BEFORE:
            known = ", ".join(BEFORE)
            raise DataError(
                f"rollout.engine: {family.name} is a {family.kind}, whose weights cannot be brought to vLLM; those of "
                f"{known} can"
            )
        self._engine, self._family = engine, family
        self._whole = not adapters or family.kind not in DECODERS
        self._folder = run.resolve() / ("weights" if self._whole else "adapters")

    def publish(self, model: Any, step: int) -> None:
        """Have all further requests answered with the policy as it is.

        Raises:
            ServerError: A server cannot load it.
        """
        state = PartialState()
        folder = self._folder / f"step-{step:06d}"
        path = folder / (WHOLE if self._whole else ADAPTERS)
        if state.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            if self._whole:
                save_file(published(self._family, whole_weights(model)), path, {"format": "pt"})
            else:
                self._save_adapters(model, path)
            for old in sorted(self._folder.glob("step-*"))[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        state.wait_for_everyone()
        with path.open("rb") as file:
            name = f"{folder.name}-{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
        use = self._engine.use_weights if self._whole else self._engine.use_adapters
        if state.is_main_process:  # the servers load once; the others then find that it is there
            use(name, str(folder))
        state.wait_for_everyone()
        if not state.is_main_process:
            use(name, str(folder))

    def _save_adapters(self, model: Any, path: Path) -> None:
        save_policy(self._family, model, path.parent)
        ours = f"base_model.model.{self._family.decoder_module}."
        theirs = f"base_model.model.{DECODERS[self._family.kind]}"
        save_file({name.replace(ours, theirs): weight for name, weight in load_file(path).items()}, path)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """All weights of a model on the CPU, by their names in it, each once; adapters are merged into a copy."""
    base: nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
    layers = {name: layer for name, layer in base.named_modules() if isinstance(layer, Linear)}
    found: dict[str, Tensor] = {}
    places = set[tuple[int, int]]()
    for name, weight in base.state_dict().items():
        place = (weight.data_ptr(), weight.numel())
        if ".lora_" in name or ".original_module." in name or (weight.numel() and place in places):
            continue  # tied weights are the first of their names
        places.add(place)
        name = name.replace(".modules_to_save.default.", ".")
        owner, _, part = name.rpartition(".base_layer.")
        if owner and part == "weight":
            weight = weight + layers[owner].get_delta_weight("default").to(weight.dtype)
        found[f"{owner}.{part}" if owner else name] = weight.detach().cpu().contiguous()
    return found


def published(family: Family, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of the family's published checkpoints, which vLLM reads, in place of the model's own."""
    return named_as_published(family.kind, revert_weight_conversion(family.model, weights))


def named_as_published(kind: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same of weights under the names of a checkpoint, be it a published one or one of a part of the model."""
    before = BEFORE[kind]
    return {before + name.removeprefix(before): weight for name, weight in weights.items()}
