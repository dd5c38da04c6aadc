"""``echo-agent models``: what can be named, what is on this machine, and what each needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from echo_agent.families.loading import EMBEDDED, known_models


def run(*, as_json: bool) -> None:
    """Print the list, as a table or as JSON."""
    listed = [
        {
            "name": model.name,
            "family": model.kind,
            "here": on_this_machine(model.name),
            "parameters": model.parameters,
            "memory_gb": round(model.memory("float32" if model.name == EMBEDDED else "bfloat16"), 1),
            "longest_recording": model.longest_recording,
            "note": model.note,
        }
        for model in known_models()
    ]
    if as_json:
        print(json.dumps({"models": listed}))
    else:
        _print_table(listed)


def on_this_machine(name: str) -> bool:
    """Whether a model can be loaded without a network: the embedded one, or a whole copy in the hub's cache."""
    if name == EMBEDDED:
        return True
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        return False
    folder = Path(config).parent
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return (folder / "model.safetensors").exists()
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return all((folder / shard).exists() for shard in shards)


def _print_table(listed: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=130)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("model", "family", "here", "memory", "hears", ""):
        table.add_column(title, justify="right" if title in ("memory", "hears") else "left")
    for model in listed:
        hears = model["longest_recording"]
        table.add_row(
            model["name"],
            model["family"],
            "yes" if model["here"] else "no",
            f"{model['memory_gb']:g} GB",
            f"{hears / 60:g} min" if hears >= 60 else f"{hears:g} s",
            model["note"],
        )
    console.print(table)
    console.print(
        "\nAny folder or hub model of these families can be named too; it is downloaded once.", style="dim"
    )
