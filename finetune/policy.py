"""The policy that is trained: loaded, with a chosen part of its weights trainable, and written out again.

What is trained is the decoder with its embeddings and the projector from audio features, in full or, for the decoder,
through low-rank adapters (PEFT); the audio encoder only where a recipe says so. Everything else a checkpoint may hold
(a tower for pictures, say) stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_agent.dialects import Dialect, dialect_named
from echo_agent.errors import DataError, ModelError
from echo_agent.families.base import Family
from echo_agent.families.loading import bases_of_adapters, load_family
from echo_agent.finetune.config import LoRAConfig, ModelConfig
from echo_agent.finetune.examples import Report
from echo_agent.locks import locked_output
from echo_agent.shipped import SHIPPED

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ADAPTERS = "adapter_config.json"
CARD = "README.md"
"""Where PEFT leaves the template of a model card."""


def load_policy(part: ModelConfig, lora: LoRAConfig | None, device: str = "") -> tuple[Family, Dialect]:
    """Load the model of a recipe with its trainable weights marked (adapters are put on by the trainer).

    Whatever is trained is held in float32, a projector with adapters too: in bfloat16 most updates of a small rate
    are smaller than half a step of the format, and lost. ``device`` takes the place of the recipe's, where processes
    have one each.

    Raises:
        ModelError: The model cannot be loaded.
        DataError: The recipe asks of the model what it cannot do.
        ContextError: It asks for a dialect that the model cannot write.
    """
    dtype = "float32" if lora is None and part.dtype == "auto" else part.dtype
    family = load_family(part.name, device or part.device, dtype)
    if part.listen_tokens is not None or part.tokens_per_second is not None:
        _set_budget(family, part)
    mark_trainable(family, part.train_encoder)
    dialect = dialect_named(part.dialect or family.default_dialect)
    if dialect.name != "inline":
        family.turn_open("system")  # says so where there are none
    if lora is not None:
        adapter_config(family, lora)
        if lora.train_projector:
            projector = family.model.get_submodule(family.projector_module).float()
            projector.register_forward_pre_hook(_as_its_weights)
    return family, dialect


def policy_digest(name: str) -> str:
    """A hash of the files of a model's weights, of those under adapters too; of a model on the hub, of its name.

    Raises:
        ModelError: The folder holds adapters that come to no model.
    """
    digest = hashlib.sha256()
    for part in (name, *bases_of_adapters(name)):
        folder = SHIPPED.get(part, Path(os.path.expanduser(part)))
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not files:
            digest.update(part.encode())
        for path in files:
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _as_its_weights(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What goes into a module, in the precision of its weights."""
    weight = next(module.parameters())
    return tuple(value.to(weight.dtype) for value in args)


def _set_budget(family: Family, part: ModelConfig) -> None:
    from echo_agent.families.nano import NanoFamily

    if not isinstance(family, NanoFamily):
        raise DataError(
            f"model.listen_tokens and model.tokens_per_second are for echo-nano; {family.name} has no budget per listen"
        )
    if part.listen_tokens is not None:
        family.config.listen_tokens = part.listen_tokens
    if part.tokens_per_second is not None:
        family.config.tokens_per_second = part.tokens_per_second


def mark_trainable(family: Family, train_encoder: bool) -> None:
    """Let gradients into decoder, head and projector, and into the encoder where it is to be trained.

    Raises:
        DataError: The encoder is to be trained, and there is none.
    """
    model = family.model
    model.requires_grad_(False)
    for name in (family.decoder_module, family.projector_module):
        model.get_submodule(name).requires_grad_(True)
    head: Any = model.get_output_embeddings()
    head.requires_grad_(True)
    if train_encoder and not family.frozen_modules:
        raise DataError(f"model.train_encoder: {family.name} has no encoder, it hears the samples themselves")
    if train_encoder:
        for module in family.frozen_modules:
            for name, weight in model.get_submodule(module).named_parameters():
                weight.requires_grad_("positions" not in name)  # tables of sines, which nobody trains
    if not any(p.requires_grad for p in model.get_submodule(family.projector_module).parameters()):
        raise ModelError(f"{family.name}: the projector {family.projector_module} has nothing to train")


def adapted_layers(family: Family, part: LoRAConfig) -> dict[str, nn.Linear]:
    """The decoder's linear layers that the recipe names, by their names in the model."""
    from torch import nn

    decoder = family.model.get_submodule(family.decoder_module)
    return {
        f"{family.decoder_module}.{name}": module
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in part.modules
    }


def adapter_config(family: Family, part: LoRAConfig) -> PeftConfig:
    """Adapters on the decoder's linear layers that the recipe names.

    Raises:
        DataError: The decoder has no such layers.
    """
    from peft import LoraConfig

    names = list(adapted_layers(family, part))
    if not names:
        raise DataError(
            f"lora.modules: the decoder of {family.name} has no layers called {', '.join(part.modules)}"
        )
    return LoraConfig(
        r=part.rank,
        lora_alpha=part.alpha,
        lora_dropout=part.dropout,
        target_modules=names,
        modules_to_save=[family.projector_module] if part.train_projector else None,
        task_type="CAUSAL_LM",
    )


def save_policy(
    family: Family, model: PreTrainedModel | PeftModel, folder: Path, weights: dict[str, Tensor] | None = None
) -> None:
    """Write what ``EchoAgent.from_pretrained(folder)`` loads: the whole model, or adapters that name their base.

    It is written aside, and moved into place when it is whole; what was there goes.

    Raises:
        OSError, SafetensorError: The folder cannot be written to.
    """
    from peft import PeftModel

    aside = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    if isinstance(model, PeftModel):
        # "auto" would look for the base on the hub, to see whether the embeddings were resized: they never are.
        model.save_pretrained(str(aside), save_embedding_layers=False)
        (aside / CARD).unlink(missing_ok=True)
        name_base(aside, family.name)
    else:
        family.save(aside, weights)
    follow_umask(aside)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)


def name_base(folder: Path, name: str) -> None:
    """Have the adapters in a folder, if it holds any, name the model that they were trained on.

    A model of the package or the hub stands there by its name; one in a folder by the way there from the adapters, so
    that both can be moved together and nothing is said of the machine.
    """
    path, base = folder / ADAPTERS, Path(name).expanduser()
    if not path.exists():
        return
    if base.is_dir():
        try:
            way = Path(os.path.relpath(base.resolve(), folder.resolve())).as_posix()
            name = way if way.startswith(".") else f"./{way}"
        except ValueError:  # on another drive
            name = str(base.resolve())
    settings = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": name}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def follow_umask(folder: Path) -> None:
    """Give the weights in a folder the mode that new files get there; safetensors writes for the owner alone.

    It is read from the settings beside them. A file made to see it would stay where the process is killed just then,
    and a checkpoint with an empty file in it counts as damaged.
    """
    mode = min(folder.glob("*.json")).stat().st_mode
    for path in folder.rglob("*.safetensors"):
        path.chmod(mode)


def merge(folder: Path, out: Path, *, dtype: str = "auto", push: str = "", report: Report = print) -> Path:
    """Put adapters into the weights of their base and write a whole model.

    Args:
        folder: What a training with adapters wrote.
        out: Folder to write to; it must not be there.
        dtype: Precision of the weights: ``auto`` is float32, whatever the base is written in.
        push: Also upload it under this hub id.
        report: Told what was done.

    Raises:
        ModelError: The folder holds no adapters, or the model cannot be loaded, written or uploaded.
        DataError: Another process writes to the same folder.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    if not (folder / ADAPTERS).exists():
        raise ModelError(f"{folder} holds no adapters ({ADAPTERS}): what it holds needs no merging")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with locked_output(out, str(out), "another folder"):
            if out.exists():
                raise ModelError(f"{out} is there already: name another folder")
            family = load_family(str(folder), "cpu", dtype)
            save_policy(family, family.model, out)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{out} cannot be written: {error}") from error
    report(
        f"{out}: {sum(p.numel() for p in family.model.parameters()) / 1e6:.1f} M parameters, ready for --model"
    )
    if push:
        from huggingface_hub import HfApi

        api = HfApi()
        try:
            api.create_repo(push, private=True, exist_ok=True)
            api.upload_folder(repo_id=push, folder_path=out)
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise ModelError(f"{out} is written, but cannot be pushed to {push}: {error}") from error
        report(f"pushed to {push}")
    return out
