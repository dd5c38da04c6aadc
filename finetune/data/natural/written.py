"""What the authors have written, in YAML files beside the code."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def read_yaml(name: str) -> Any:
    """One of the files, as it stands there."""
    import yaml

    return yaml.safe_load(files("echo_agent.finetune.data.natural").joinpath(name).read_text("utf-8"))
