"""From a name to a loaded family: the embedded model, a model on the hub, or a folder.

Which family a checkpoint belongs to is read from ``model_type`` in its ``config.json``, so a fine-tuned copy under any
name or in any folder is loaded by the code of its architecture. No code from a checkpoint is ever run, and weights are
read from safetensors only.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_agent.errors import ModelError

if TYPE_CHECKING:
    import torch

    from echo_agent.families.base import Family

EMBEDDED = "echo-nano"
"""Name of the model that comes with the package."""

NANO = "echo_nano"
"""``model_type`` of echo-nano."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""The precisions that weights can be loaded in, and bytes per weight."""


@dataclass(frozen=True)
class KnownModel:
    """A model that is known to work, and what it takes to run it."""

    name: str
    """What to write after ``--model``."""
    kind: str
    """Its family."""
    parameters: int
    """Weights that are loaded (of Qwen2.5-Omni: the thinker, pictures included)."""
    cache_values: int
    """Numbers that one token leaves in the KV cache: 2 x layers x key-value heads x head size."""
    longest_recording: float
    """Seconds of audio that it can hear at once."""
    note: str
    """One sentence for the list."""

    def memory(self, dtype: str = "bfloat16", tokens: int = 2000) -> float:
        """Gigabytes (10^9 bytes) for weights and the KV cache of one run of so many tokens.

        Activations come on top: count on another 1 to 2 GB for a large model.
        """
        return (self.parameters + tokens * self.cache_values) * BYTES[dtype] / 1e9


def known_models() -> list[KnownModel]:
    """The models that are known to work, smallest first."""
    return [
        KnownModel(
            EMBEDDED,
            "echo-nano",
            11_600_000,
            1_920,
            600.0,
            "comes with echo-agent, runs on any CPU; knows little",
        ),
        KnownModel(
            "Qwen/Qwen2.5-Omni-3B",
            "qwen2.5-omni",
            4_703_464_448,
            18_432,
            600.0,
            "for a GPU of 16 GB; up to ten minutes",
        ),
        KnownModel(
            "Qwen/Qwen2-Audio-7B-Instruct",
            "qwen2-audio",
            8_397_094_912,
            262_144,
            30.0,
            "for a GPU of 24 GB; 30 s at most",
        ),
        KnownModel(
            "Qwen/Qwen2.5-Omni-7B",
            "qwen2.5-omni",
            8_931_813_888,
            28_672,
            600.0,
            "for a GPU of 24 GB; up to ten minutes",
        ),
    ]


def load_family(name: str = EMBEDDED, device: str = "auto", dtype: str = "auto") -> Family:
    """Load a model by name.

    Args:
        name: ``echo-nano``, a hub id (``Qwen/Qwen2.5-Omni-7B``) or a folder with a checkpoint in it.
        device: ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        dtype: ``auto`` (bfloat16 on a GPU, float32 on the CPU and for echo-nano), ``float32``, ``bfloat16`` or
            ``float16``.

    Raises:
        ModelError: The name is unknown, the checkpoint is of no supported architecture or cannot be read, or the
            device does not exist.
    """
    if base := _base_of_adapters(name):
        try:
            family = load_family(base, device, dtype)
        except ModelError as error:
            raise ModelError(
                f"the adapters in {name} belong to {base}, which is needed too: {error}"
            ) from error
        return _with_adapters(name, family)
    where = resolve_device(device)
    if name == EMBEDDED:
        from echo_agent.nano.weights import WEIGHTS

        source, model_type = str(WEIGHTS), NANO
    else:
        source = _source(name)
        model_type = _model_type(name, source)
    precision = _resolve_dtype(dtype, where, model_type)
    if model_type == NANO:
        from echo_agent.families.nano import NanoFamily as family
    elif model_type == "qwen2_audio":
        from echo_agent.families.qwen2_audio import Qwen2AudioFamily as family
    elif model_type in ("qwen2_5_omni", "qwen2_5_omni_thinker"):
        from echo_agent.families.qwen25_omni import Qwen25OmniFamily as family
    else:
        raise ModelError(
            f"{name} is a model of type {model_type} (model_type in its config.json); echo-agent knows echo_nano, "
            "qwen2_audio and qwen2_5_omni"
        )
    from safetensors import SafetensorError

    try:
        # In a thread that ends. On a CPU every thread that computes keeps worker threads of its own (OpenMP); where
        # there are more of them than cores they sleep instead of waiting for work, and small operations take ten times
        # as long. So the workers of loading must be gone when the engine's thread begins.
        with ThreadPoolExecutor(1, "echo-agent-load") as loader:
            return loader.submit(family.load, source, name=name, device=where, dtype=precision).result()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # out of memory is a RuntimeError
        raise ModelError(_why(name, error)) from error


def _base_of_adapters(name: str) -> str:
    """What the adapters in a folder were trained on; empty where the folder holds none, or a whole model too."""
    folder = Path(name).expanduser()
    path = folder / "adapter_config.json"
    if not name or not path.exists() or (folder / "config.json").exists():
        return ""
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not base or not isinstance(base, str) or Path(base).resolve() == folder.resolve():
        raise ModelError(f"{path} does not say which model its adapters belong to (base_model_name_or_path)")
    return base


def _with_adapters(name: str, family: Family) -> Family:
    """A family with adapters (PEFT) worked into its weights."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(name).expanduser()
    path = folder / "adapter_model.safetensors"
    if not path.exists():
        raise ModelError(f"{name} holds the settings of adapters, but not their weights ({path.name})")
    try:
        given = load_file(path)
        model: Any = PeftModel(family.model, PeftConfig.from_pretrained(str(folder)))
        wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
        odd = given.keys() ^ wanted.keys()  # PEFT passes over these without a word
        odd |= {key for key in given.keys() & wanted.keys() if given[key].shape != wanted[key].shape}
        if odd:
            raise ValueError(
                f"weights are missing, too many or of another size ({len(odd)}), such as {min(odd)}"
            )
        set_peft_model_state_dict(model, given)
        family.model = model.merge_and_unload()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"the adapters in {name} do not fit {family.name}: {reason}") from error
    family.model.eval().requires_grad_(False)
    family.name = name
    return family


def resolve_device(device: str) -> torch.device:
    """The device of that name, or the best there is for ``auto``; raises ModelError where it does not exist."""
    import torch

    if device == "auto":
        device = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = None
    if wanted is None or wanted.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"device {device!r} is not one of auto, cpu, cuda, cuda:<number>, mps")
    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[
        wanted.type
    ]
    if (wanted.index or 0) >= found:
        raise ModelError(
            f"there is no device {device} here ({found} of that kind); use device='auto' or 'cpu'"
        )
    return wanted


def _resolve_dtype(dtype: str, device: torch.device, model_type: str) -> torch.dtype:
    """The precision to load in."""
    import torch

    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" or model_type == NANO else "bfloat16"
    if dtype not in BYTES:
        raise ModelError(f"dtype {dtype!r} is not one of auto, {', '.join(BYTES)}")
    return getattr(torch, dtype)


def _source(name: str) -> str:
    """What to hand to transformers: an existing folder, or something that can be a hub id."""
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(f"{name} is a folder without a config.json: it holds no model")
        return str(folder)
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1:
        raise ModelError(f"there is no folder {name}")
    if name.count("/") != 1:
        raise ModelError(f"there is no model {name!r}{_nearest(name)}")
    return name


def _model_type(name: str, source: str) -> str:
    """``model_type`` in the checkpoint's configuration."""
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        raise ModelError(_why(name, error)) from error
    if not config:  # transformers gives an empty one where the hub knows the name but not the file
        raise ModelError(f"{name} has no config.json that can be read{_nearest(name)}")
    return config.get("model_type") or "nameless"


def _nearest(name: str) -> str:
    """The known names that are most like ``name``, as the end of a sentence."""
    names = [model.name for model in known_models()]
    short = {known.rpartition("/")[2].lower(): known for known in names}
    near = get_close_matches(name.rpartition("/")[2].lower(), short, n=3, cutoff=0.5)
    return (
        f"; did you mean {' or '.join(short[key] for key in near)}?"
        if near
        else f"; known are {', '.join(names)}"
    )


def _why(name: str, error: BaseException) -> str:
    """What kept a checkpoint from being read, and what to do, from the chain of errors under it."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # pyright: ignore[reportAssignmentType]
    if any(isinstance(link, GatedRepoError) for link in chain):
        return f"{name} is gated: accept its terms on its page and log in with `hf auth login`"
    if any(isinstance(link, RepositoryNotFoundError) for link in chain):
        return f"there is no model {name!r} on the hub (or it is private){_nearest(name)}"
    if any(
        isinstance(link, (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)) for link in chain
    ):
        return (
            f"{name} is not on this machine and the hub cannot be reached (or HF_HUB_OFFLINE is set): connect once so "
            f"that it can be downloaded, or name a folder that holds it; {EMBEDDED} needs no network"
        )
    return f"{name} cannot be loaded: {chain[0]}"
