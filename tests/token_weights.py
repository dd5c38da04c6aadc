"""The weights that a server of tokens (``tests/token_server.py``) samples with: whole ones, and adapters by name."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file

from echo_agent.families.base import Family
from echo_agent.families.loading import load_family
from echo_agent.finetune.served_policy import BEFORE, DECODERS

STARTED = "default"
"""What it calls the weights that it was started with."""


class ServedWeights:
    """Those of a model, which can be exchanged, and adapters beside them."""

    def __init__(self, family: Family) -> None:
        """Start with the weights of ``family``."""
        self._family = family
        self.whole = family
        """What is sampled with where no adapter is named."""
        self.version = STARTED
        self.reloads = 0
        self.adapters: dict[str, Family] = {}

    def forget(self) -> None:
        """Be as it was started."""
        self.whole, self.version = self._family, STARTED
        self.adapters.clear()

    def of(self, model: str) -> Family:
        """What a request that names ``model`` is sampled with."""
        return self.adapters.get(model, self.whole)

    def load(self, name: str, folder: Path) -> None:
        """Take an adapter, whose layers are called as vLLM calls them."""
        theirs = f"base_model.model.{DECODERS[self._family.kind]}"
        ours = f"base_model.model.{self._family.decoder_module}."
        weights = load_file(folder / "adapter_model.safetensors")
        assert all(key.startswith(theirs) for key in weights)
        about = json.loads((folder / "adapter_config.json").read_text())
        about["base_model_name_or_path"] = str((folder / about["base_model_name_or_path"]).resolve())
        with TemporaryDirectory() as place:
            Path(place, "adapter_config.json").write_text(json.dumps(about))
            renamed = {key.replace(theirs, ours): weight for key, weight in weights.items()}
            save_file(renamed, f"{place}/adapter_model.safetensors")
            self.adapters[name] = load_family(place, "cpu", "float32")

    def reload(self, folder: Path) -> None:
        """Take the whole weights in a folder."""
        self.whole = self.read(folder)
        self.reloads += 1

    def read(self, folder: Path) -> Family:
        """The family with weights named as in published checkpoints; all have to be there, and no others."""
        before = BEFORE[self._family.kind]
        weights = load_file(folder / "model.safetensors")
        with TemporaryDirectory() as place:
            self._family.save(Path(place))
            path = Path(place, "model.safetensors")
            named = {name.removeprefix(before): weight for name, weight in weights.items()}
            assert named.keys() == load_file(path).keys() and all(name.startswith(before) for name in weights)
            save_file(named, path, {"format": "pt"})
            return load_family(place, "cpu", "float32")
