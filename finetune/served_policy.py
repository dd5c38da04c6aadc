"""The policy in training, on the servers that sample its rollouts: adapters, loaded anew for each generation.

Each version of the adapters has a name of its own, made of its content, so that no server continues what it computed
with others, of this run or of one before it. They lie in the run's folder, which trainer and servers see under the same
path.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from safetensors.torch import load_file, save_file

from echo_agent.errors import DataError
from echo_agent.finetune.policy import save_policy

if TYPE_CHECKING:
    from echo_agent.engine import VLLMEngine
    from echo_agent.families.base import Family

DECODERS = {"qwen2.5-omni": "thinker.model."}
"""What adapters for vLLM call a model's decoder, by family: of Qwen2-Audio it loads none."""
WEIGHTS = "adapter_model.safetensors"
KEPT = 2
"""Versions whose files are kept: a server that is started anew reads the last one again."""


class ServedPolicy:
    """Brings the policy to the servers; see the module."""

    def __init__(self, engine: VLLMEngine, family: Family, run: Path) -> None:
        """Use ``run/adapters``.

        Raises:
            DataError: vLLM loads no adapters for this family.
        """
        if family.kind not in DECODERS:
            known = ", ".join(DECODERS)
            raise DataError(
                f"rollout.engine: {family.name} is a {family.kind}, for which vLLM loads no adapters; it does for "
                f"{known}"
            )
        self._engine, self._family = engine, family
        self._folder = run.resolve() / "adapters"

    def publish(self, model: Any, step: int) -> None:
        """Have all further requests answered with the adapters as they are.

        Raises:
            ServerError: A server cannot load them.
        """
        state = PartialState()
        folder = self._folder / f"step-{step:06d}"
        if state.is_main_process:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_policy(self._family, model, folder)
            path = folder / WEIGHTS
            ours = f"base_model.model.{self._family.decoder_module}."
            theirs = f"base_model.model.{DECODERS[self._family.kind]}"
            save_file({name.replace(ours, theirs): weight for name, weight in load_file(path).items()}, path)
            for old in sorted(self._folder.glob("step-*"))[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        state.wait_for_everyone()
        with (folder / WEIGHTS).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        self._engine.use_adapters(f"{folder.name}-{content}", str(folder))
