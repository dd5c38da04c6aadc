"""From a name to a loaded family: a model of the package, one on the hub, or a folder.

Which family a checkpoint belongs to is read from ``model_type`` in its ``config.json``, so a fine-tuned copy under any
name or in any folder is loaded by the code of its architecture. No code from a checkpoint is ever run, and weights are
read from safetensors only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import Future
from difflib import get_close_matches
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from echo_agent.errors import EchoAgentError, ModelError
from echo_agent.families.architectures import family_class, family_kind
from echo_agent.families.checkpoint import check_parameters, check_sizes
from echo_agent.families.known import BYTES, KnownModel, known_models
from echo_agent.families.placement import Placement
from echo_agent.shipped import DEFAULT, SHIPPED

__all__ = ["KnownModel", "bases_of_adapters", "known_models", "load_family", "resolve_device"]

if TYPE_CHECKING:
    import torch

    from echo_agent.families.base import Family

SMALL_ENOUGH = tuple(SHIPPED)
"""Families that are loaded in full precision on a GPU too."""


def load_family(
    name: str = DEFAULT,
    device: str = "auto",
    dtype: str = "auto",
    *,
    weights: bool = True,
    quantise: str = "",
    device_map: str = "",
) -> Family:
    """Load a model by name.

    Args:
        name: ``echo-nano``, ``echo-small``, a hub id (``Qwen/Qwen2.5-Omni-7B``) or a folder with a checkpoint in it.
        device: ``auto`` (CUDA, else Apple's MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        dtype: ``auto`` (bfloat16 on a GPU, float32 on the CPU and for the embedded models), ``float32``, ``bfloat16``
            or ``float16``.
        weights: False leaves the weights where they are: tokenizer, template and sizes alone, for a model that a
            server runs.
        quantise: Hold the decoder in fewer bits: ``4bit`` or ``8bit`` (bitsandbytes), or ``int8`` (torchao).
        device_map: Put weights that do not fit on the device into other memory: ``auto`` and others that transformers
            knows.

    Raises:
        MissingExtraError: The package that holds weights in fewer bits is not installed.
        ModelError: The name is unknown, the checkpoint is of no supported architecture or cannot be read, or the
            device does not exist.
    """
    if bases := bases_of_adapters(name):
        base = bases[0]
        try:
            if quantise:
                raise ModelError(
                    "adapters are worked into weights of full precision: merge them (echo-agent finetune merge), then "
                    "quantise what comes of it"
                )
            family = load_family(base, device, dtype, device_map=device_map, weights=weights)
        except ModelError as error:
            raise ModelError(
                f"the adapters in {name} belong to {base}, which is needed too: {error}"
            ) from error
        if weights:
            return _with_adapters(name, family)
        family.name = name
        return family
    where = resolve_device(device) if weights else _nowhere()
    if name in SHIPPED:
        source, kind = str(SHIPPED[name]), name
    else:
        source = _source(name)
        kind = family_kind(name, _config(name, source))
    if not weights and kind in SMALL_ENOUGH:
        raise ModelError(
            f"{name} is an {kind}, which no server knows: it runs in this process (leave out the server)"
        )
    precision = _resolve_dtype(dtype, where, kind)
    family = family_class(kind)
    placed: dict[str, str] = {}
    if quantise or device_map:
        if kind in SMALL_ENOUGH:
            raise ModelError(f"{name} is an {kind}: it is small, and is held whole, in float32")
        Placement(where, precision, quantise, device_map).check()
        placed = {"quantise": quantise, "device_map": device_map}
    try:
        if weights and Path(source).is_dir():
            check_parameters(name, Path(source), family.model_class)
        return _in_a_thread(lambda: family.load(source, name=name, device=where, dtype=precision, **placed))
    except EchoAgentError:
        raise
    except (
        Exception
    ) as error:  # over a damaged file the libraries raise errors of every kind, plain ones included
        raise ModelError(_why(name, error)) from error


def _in_a_thread(load: Callable[[], Family]) -> Family:
    """Load in a thread that ends, and that nobody waits for after an interrupt.

    On a CPU every thread that computes keeps worker threads of its own (OpenMP); where there are more of them than
    cores they sleep instead of waiting for work, and small operations take ten times as long. So the workers of loading
    must be gone when the engine's thread begins.
    """
    loaded: Future[Family] = Future()

    def run() -> None:
        try:
            loaded.set_result(load())
        except BaseException as error:  # it belongs to the one who waits
            loaded.set_exception(error)

    thread = Thread(target=run, name="echo-agent-load", daemon=True)
    thread.start()
    error = loaded.exception()
    thread.join()
    if error is not None:
        raise error
    return loaded.result()


def bases_of_adapters(name: str) -> list[str]:
    """What the adapters in a folder were trained on, and what that was, if it is adapters too; empty for other models.

    Raises:
        ModelError: Adapters do not name their base, or come back to themselves.
    """
    passed, bases = [os.path.realpath(_folder(name))], list[str]()
    while base := _base_of_adapters(bases[-1] if bases else name):
        bases.append(base)
        place = os.path.realpath(_folder(base))
        if place in passed:
            circle = " -> ".join(Path(path).name for path in (*passed, place))
            raise ModelError(
                f"the adapters in {name} come to no model: each names the next as its base (base_model_name_or_path), "
                f"in a circle ({circle})"
            )
        passed.append(place)
    return bases


def _base_of_adapters(name: str) -> str:
    """What the adapters in a folder were trained on; empty where the folder holds none, or a whole model too."""
    folder = _folder(name)
    path = folder / "adapter_config.json"
    if not name or not path.exists() or (folder / "config.json").exists():
        return ""
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if isinstance(base, str) and base.startswith("."):  # the way there from the adapters
        base = str((folder / base).resolve())
    if not base or not isinstance(base, str) or Path(base).resolve() == folder.resolve():
        raise ModelError(f"{path} does not say which model its adapters belong to (base_model_name_or_path)")
    return base


def _with_adapters(name: str, family: Family) -> Family:
    """A family with adapters (PEFT) worked into its weights."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = _folder(name)
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


def _nowhere() -> torch.device:
    """The device of models that hold no weights."""
    import torch

    return torch.device("meta")


def _resolve_dtype(dtype: str, device: torch.device, kind: str) -> torch.dtype:
    """The precision to load in."""
    import torch

    if dtype == "auto":
        dtype = "float32" if device.type == "cpu" or kind in SMALL_ENOUGH else "bfloat16"
    if dtype not in BYTES:
        raise ModelError(f"dtype {dtype!r} is not one of auto, {', '.join(BYTES)}")
    return getattr(torch, dtype)


def _source(name: str) -> str:
    """What to hand to transformers: an existing folder, or something that can be a hub id."""
    if "://" in name:
        raise ModelError(
            f"{name} is an address: name the model, on the hub (owner/name) or in a folder, and give the address of "
            "its server besides (--server URL), or name both (--model openai:NAME@URL) where it is a chat server: see "
            "docs/servers.md"
        )
    folder = _folder(name)
    if name and folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(f"{name} is a folder without a config.json: it holds no model")
        return str(folder)
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1:
        raise ModelError(f"there is no folder {name}")
    if name.count("/") != 1:
        raise ModelError(f"there is no model {name!r}{_nearest(name)}")
    return name


def _folder(name: str) -> Path:
    """The folder of that name, which may begin with ``~``."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # this user has no home, or there is no such user
        return Path(name)


def _config(name: str, source: str) -> dict[str, Any]:
    """The checkpoint's configuration, its sizes and its ``model_type`` checked."""
    from transformers import PreTrainedConfig

    try:
        config, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(_why(name, error)) from error
    except TypeError:  # it is JSON, but no object
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"{name}: its config.json holds no JSON object")
    if not config:  # transformers gives an empty one where the hub knows the name but not the file
        raise ModelError(f"{name} has no config.json that can be read{_nearest(name)}")
    model_type = config.get("model_type") or "nameless"
    if not isinstance(model_type, str):
        raise ModelError(f"{name}: model_type in its config.json is {model_type!r}, which is no name")
    check_sizes(name, config)
    return config


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
            f"that it can be downloaded, or name a folder that holds it; {DEFAULT} needs no network"
        )
    return f"{name} cannot be loaded: {' '.join(str(chain[0]).split()) or type(chain[0]).__name__}"
