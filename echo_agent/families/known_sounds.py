"""The sounds that an echo-nano knows by name, read without loading it, or transformers, as its own package does."""

from __future__ import annotations

import json
from pathlib import Path

from echo_agent.shipped import NANO, SHIPPED


def known_sounds(folder: Path = SHIPPED[NANO]) -> list[str]:
    """Names of the sounds that the sound branch of a model folder hears, a voice among them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    names = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    return [names[number].lstrip("Ġ") for number in config["label_token_ids"]]  # Ġ is the space before a word
