"""Whether what was read of a checkpoint is the model that its configuration describes.

The libraries that read checkpoints draw at random what is missing and leave out what is too much, with a warning that
is easily missed. Such a model answers, and its answers mean nothing; so it is refused here, with a weight by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from echo_agent.errors import EchoAgentError, ModelError

_DERIVED = ("rotary_emb.inv_freq",)
"""Ends of names that older versions of the library saved, and that follow from the configuration."""

_WEIGHT = re.compile(r"\.(weight|bias)$")
"""Ends of the names of what is no whole number in any model."""

_LAYERS, _WIDTH = 1000, 10_000_000
_LARGEST = {
    "num_hidden_layers": _LAYERS,
    "encoder_layers": _LAYERS,
    "num_attention_heads": _LAYERS,
    "num_key_value_heads": _LAYERS,
    "hidden_size": _WIDTH,
    "d_model": _WIDTH,
    "intermediate_size": _WIDTH,
    "vocab_size": _WIDTH,
    "max_position_embeddings": _WIDTH,
}
"""Entries of a configuration that are counts, and the most that any model will have."""
_COUNTS = (
    (re.compile(r".*(layers|heads|depth|blocks)"), _LAYERS),
    (re.compile(r".*(size|dim|ffn|bins|labels|tokens|positions|embeddings|width|channels)"), _WIDTH),
)
"""The same for entries of other names, where they are numbers: what they mean differs, and 0 may have a meaning."""
_NO_CHUNKS = ("chunk_size", -1)
"""How Phi-4-multimodal says that its encoder is not cut into chunks."""


@contextmanager
def reading(name: str, what: str) -> Iterator[None]:
    """Say which part of a checkpoint could not be read; what the hub or the disk has against it goes through.

    Raises:
        ModelError: Naming the part.
    """
    try:
        yield
    except (OSError, EchoAgentError):
        raise
    except (
        Exception
    ) as error:  # over a damaged file the libraries raise errors of every kind, plain ones included
        reason = " ".join(str(error).split())
        raise ModelError(f"{name}: its {what} is damaged: {type(error).__name__}: {reason}") from error


def check_weights(name: str, report: Mapping[str, Any]) -> None:
    """Refuse weights that are missing, too many or of another size.

    Args:
        name: The model, for the message.
        report: What ``from_pretrained(..., ignore_mismatched_sizes=True, output_loading_info=True)`` says.

    Raises:
        ModelError: Naming a weight.
    """
    missing = sorted(report["missing_keys"])
    extra = sorted(key for key in report["unexpected_keys"] if not key.endswith(_DERIVED))
    other = sorted(report["mismatched_keys"])
    if other:
        key, found, wanted = other[0]
        raise ModelError(
            f"{name}: the weight {key} is {list(found)} in the checkpoint, but {list(wanted)} by its config.json "
            f"({len(other)} such): the two do not belong together"
        )
    if missing:
        raise ModelError(f"{name}: the checkpoint lacks {len(missing)} weights, among them {missing[0]}")
    if extra:
        raise ModelError(
            f"{name}: the checkpoint holds {len(extra)} weights that the model of its config.json does not have, among "
            f"them {extra[0]}"
        )


def check_sizes(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a configuration whose sizes are no sizes, before anything is built from them.

    Raises:
        ModelError: Naming the entry.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            check_sizes(name, value)
        elif key in _LARGEST and value is not None:
            number = int(value) if isinstance(value, float) and value.is_integer() else value
            if isinstance(number, bool) or not isinstance(number, int) or not 0 < number <= _LARGEST[key]:
                raise ModelError(
                    f"{name}: {key} in its config.json is {value!r}: a number from 1 to {_LARGEST[key]} is expected"
                )
        elif isinstance(value, (int, float)):
            for names, most in _COUNTS:
                if (key, value) != _NO_CHUNKS and names.fullmatch(key) and not 0 <= value <= most:
                    raise ModelError(
                        f"{name}: {key} in its config.json is {value!r}: a number up to {most} is expected"
                    )


def check_parameters(name: str, folder: Path, model_class: Any) -> None:
    """Refuse files that cannot hold what their configuration describes, before memory is taken for it.

    What a damaged ``config.json`` leaves out has a default, which may be a model of billions of weights.

    Raises:
        ModelError: A file is damaged or holds integers for weights, or the files hold less than half of the weights.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    held = 0
    for path in sorted(folder.glob("*.safetensors")):
        if not path.is_file():
            continue
        try:
            with safe_open(path, "pt") as file:
                parts = {key: file.get_slice(key) for key in file.keys()}
                held += sum(prod(part.get_shape()) for part in parts.values())
                whole = [
                    key for key, part in parts.items() if _WEIGHT.search(key) and part.get_dtype()[0] in "IU"
                ]
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{name} cannot be loaded: {path.name} is damaged: {error}") from error
        if whole:
            raise ModelError(
                f"{name}: {path.name} holds {len(whole)} weights as whole numbers, among them {whole[0]}: it is "
                "damaged, or compressed in a way that echo-agent does not know"
            )
    config = model_class.config_class.from_pretrained(folder)
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in model_class(config).parameters())
    if 0 < held < wanted / 2:
        raise ModelError(
            f"{name}: its config.json describes a model of {wanted:,} weights, but its files hold {held:,}: the two do "
            "not belong together, or one of them is damaged"
        )


def without_weights(model_class: Any, source: str) -> Any:
    """A model that knows its configuration and the shapes of its weights, and holds none (torch's device ``meta``).

    Args:
        model_class: The transformers class.
        source: Hub id or folder; only its configuration is read.
    """
    import torch

    config = model_class.config_class.from_pretrained(source)
    with torch.device("meta"):
        return model_class(config)


def check_vocabulary(name: str, tokens: Sequence[str], vocabulary: Mapping[str, int], rows: int) -> None:
    """Refuse a tokenizer that lacks tokens which the family needs, or knows more than the model.

    Args:
        name: The model, for the message.
        tokens: Control tokens that must be there.
        vocabulary: Tokens and their ids.
        rows: Token embeddings of the model.

    Raises:
        ModelError: Naming what is wrong.
    """
    if missing := [token for token in tokens if token not in vocabulary]:
        raise ModelError(
            f"{name}: the tokenizer does not know {', '.join(missing[:5])}: it is another model's, or damaged"
        )
    last, number = max(vocabulary.items(), key=lambda entry: entry[1])
    if number >= rows:
        raise ModelError(
            f"{name}: {last!r} is token {number} for the tokenizer, but the model has {rows}: they do not belong "
            "together"
        )
