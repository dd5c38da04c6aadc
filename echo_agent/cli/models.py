"""``echo-agent models``: what can be named, what is on this machine, what each needs, and what the small one knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from echo_agent.families.known import PLACES
from echo_agent.families.loading import known_models
from echo_agent.shipped import NANO, SHIPPED
from echo_agent.terminal import say_json


def run(*, as_json: bool) -> None:
    """Print the list, as a table or as JSON."""
    listed = [
        {
            "name": model.name,
            "family": model.kind,
            "here": on_this_machine(model.name),
            "parameters": model.parameters,
            "memory_gb": round(model.memory("float32" if model.name in SHIPPED else "bfloat16"), 1),
            "longest_recording": model.longest_recording,
            "runs": list(model.places),
            "licence": licence_of(model.name) or model.licence,
            "note": model.note,
            **(_knows() if model.name == NANO else {}),
        }
        for model in known_models()
    ]
    if as_json:
        runs = {place: {"options": options, "means": means} for place, (options, means) in PLACES.items()}
        say_json({"models": listed, "runs": runs})
    else:
        _print_table(listed)


def _knows() -> dict[str, list[str]]:
    """The sounds, and the words of speech, that echo-nano was taught."""
    from echo_agent.families.known_sounds import known_sounds
    from echo_agent.finetune.data.vocabulary import DIGITS, WORDS

    return {"sounds": known_sounds(), "words": [*DIGITS, *WORDS]}


def on_this_machine(name: str) -> bool:
    """Whether a model can be loaded without a network: one that is shipped, or a whole copy in the hub's cache."""
    if name in SHIPPED:
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


def licence_of(name: str) -> str | None:
    """The licence that the card of a model on this machine states; None where there is no card."""
    if name in SHIPPED:
        return None
    from huggingface_hub import ModelCard, try_to_load_from_cache
    from yaml import YAMLError

    card = try_to_load_from_cache(name, "README.md")
    if not isinstance(card, str):
        return None
    try:
        said: Any = ModelCard.load(card, ignore_metadata_errors=True).data  # what stands there is not typed
    except (OSError, ValueError, YAMLError):
        return None
    stated = said.license_name if said.license in (None, "other") else said.license
    return stated if isinstance(stated, str) else None


def _print_table(listed: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from echo_agent.console import console

    page = console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("model", "here", "memory", "hears", ""):
        right = title in ("memory", "hears")
        table.add_column(title, justify="right" if right else "left", no_wrap=title != "")
    for model in listed:
        hears = model["longest_recording"]
        table.add_row(
            model["name"],
            "yes" if model["here"] else "no",
            f"{model['memory_gb']:g} GB",
            f"{hears / 60:g} min" if hears >= 60 else f"{hears:g} s",
            f"{model['note']} ({model['licence']}; {', '.join(model['runs'])})",
        )
    page.print(table)
    for model in listed:
        for what in ("sounds", "words"):
            if what in model:
                page.print(f"\n{model['name']} knows the {what}: {', '.join(model[what])}")
    page.print(
        "\nAny folder or hub model of these families can be named too; it is downloaded once, and goes on where a "
        "download was broken off. In brackets: the licence that the model's card states, and where it runs:",
        style="dim",
    )
    for place, (options, means) in PLACES.items():
        page.print(f"  {place}: {options} ({means})", style="dim")
