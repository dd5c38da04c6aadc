"""Recipes as they are written: YAML files, those that ship with the package, and ``--set key=value`` over them.

Plain values come out of here; :mod:`echo_agent.finetune.config` checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from echo_agent.errors import DataError
from echo_agent.finetune.recipes.recipe_faults import plain

RECIPES = Path(__file__).parent
"""Folder of the recipes that ship with the package."""
RENAMED = {("optimiser", "rate"): "learning_rate", ("data", "families"): "categories"}
"""Keys of older recipes, with what they are called today; they are still read."""
LARGEST = 1 << 20
"""Bytes of a recipe."""
MOST_VALUES = 10_000
"""Values of a recipe, each counted as often as its aliases name it: a few lines could stand for billions."""


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_values(name: str | Path) -> dict[str, Any]:
    """The values of a recipe that ships, or of a YAML file.

    Raises:
        DataError: There is no such recipe, or it is no YAML mapping.
    """
    path = RECIPES / f"{name}.yaml" if str(name) in recipe_names() else Path(name)
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        near = get_close_matches(str(name), recipe_names(), n=1)
        meant = f"did you mean {near[0]}? There are" if near else "name a YAML file or one of"
        raise DataError(
            f"there is no recipe {plain(str(name))} ({reason}); {meant} {', '.join(recipe_names())}"
        ) from None
    if len(text) > LARGEST:
        raise DataError(f"{path} is no recipe: it is larger than a megabyte")
    data = _parse(text, str(path))
    if not isinstance(data, dict):
        raise DataError(f"{path} is no recipe: a mapping with a key 'stage' is expected")
    return with_todays_keys(data)


def with_todays_keys(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, older keys renamed."""
    renamed: dict[str, Any] = {}
    for part, values in data.items():
        if isinstance(values, Mapping):
            values = {RENAMED.get((part, key), key): value for key, value in values.items()}
        renamed[part] = values
    return renamed


def set_value(data: dict[str, Any], text: str) -> None:
    """Set one value, given as ``key=value``, such as ``optimiser.steps=100`` or ``lora=null``; values are YAML.

    Raises:
        DataError: It is not of that form.
    """
    key, equals, value = text.partition("=")
    said = f"--set {plain(text)}"
    if not equals or not key:
        raise DataError(f"{said}: write key=value, such as optimiser.steps=100")
    *parents, last = key.split(".")
    last = RENAMED.get((".".join(parents), last), last)
    for parent in parents:
        inner = data.get(parent)
        if inner is None:
            inner = data[parent] = {}
        if not isinstance(inner, dict):
            raise DataError(f"{said}: {plain(parent)} holds a value, and no keys")
        data = inner
    data[last] = _parse(value, said)


def _parse(text: str, where: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise DataError(f"{where} is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError is of a date such as 2024-02-30
        reason = plain(" ".join(str(error).split()), 300)
        if "integer string conversion" in reason:
            reason = "it holds a number of thousands of digits"
        raise DataError(f"{where} is not YAML: {reason}") from None
    _count(value, where)
    return value


def _count(value: Any, where: str) -> None:
    """Raises DataError where there are too many values, or aliases in a circle."""
    seen, left = 0, [value]
    while left:
        seen += 1
        if seen > MOST_VALUES:
            raise DataError(f"{where} is no recipe: it holds more than {MOST_VALUES} values")
        inner = left.pop()
        if isinstance(inner, dict):
            left += inner.values()
        elif isinstance(inner, list | tuple | set):
            left += inner
