"""How long a recording a model can hear, without loading it, so that a longer one is refused before it is decoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from echo_agent.families.architectures import known_kind
from echo_agent.families.loading import known_models

__all__ = ["longest_recording"]

_MOST_LINKS = 8
"""Adapters on adapters that are followed; loading says what is wrong with more."""


def longest_recording(name: str) -> float | None:
    """Seconds that the model of that name hears at once; None where that shows only when it is loaded.

    Whatever is wrong with the name or with a folder is no business of this: loading says it.
    """
    for _ in range(_MOST_LINKS):
        for model in known_models():
            if model.name == name:
                return model.longest_recording
        config = _read(name, "config.json")
        if _text(config, "model_type"):
            kind = known_kind(name, config)
            longest = (model.longest_recording for model in known_models() if model.kind == kind)
            return next(longest, None)
        base = _text(_read(name, "adapter_config.json"), "base_model_name_or_path")
        if not base:
            return None
        name = str(Path(name).expanduser() / base) if base.startswith(".") else base
    return None


def _read(name: str, file: str) -> dict[str, Any]:
    """What stands in a JSON file of a model's folder; nothing where it cannot be read."""
    try:
        given = json.loads((Path(name).expanduser() / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def _text(given: dict[str, Any], key: str) -> str:
    """One text of it, or an empty one."""
    value = given.get(key)
    return value if isinstance(value, str) else ""
