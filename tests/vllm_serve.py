"""A real ``vllm serve`` on this machine's CPU, and models that it reads; ``benchmarks/engines.py`` uses them too."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from safetensors.torch import load_file, save_file
from transformers import (
    Qwen2_5OmniConfig,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
)

from echo_agent.conformance.sounds import randomise
from echo_agent.families.base import Family
from echo_agent.families.qwen2_audio import Qwen2AudioFamily
from echo_agent.families.qwen25_omni import Qwen25OmniFamily
from echo_agent.finetune.served_policy import named_as_published
from tests.tiny import qwen2_audio_config, thinker_sizes, tiny_extractor, tiny_tokenizer

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "build" / "vllm-venv" / "bin" / "vllm"
PATIENCE = 3600.0
"""Seconds for what takes one minute where nothing else runs, and a quarter of an hour on a busy machine."""
FLAGS = (
    "--dtype=float32",
    "--enforce-eager",
    "--enable-scale-out",
    "--enable-prompt-tokens-details",
)
PICTURES = {
    **{"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5OmniProcessor"},
    **{
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": 3136,
        "max_pixels": 12845056,
    },
    **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
}
"""How Qwen2.5-Omni sees: vLLM reads it, whether there are pictures or not."""

Sizes = Mapping[str, int]


def family_of(kind: str, folder: Path, text: Sizes, tower: Sizes, std: float) -> Family:
    """A model with random weights and heads of 64, with which vLLM can compute; named by the folder it will be in."""
    tokenizer, extractor = tiny_tokenizer(kind), tiny_extractor(kind)
    if kind == "qwen2-audio":
        model: Any = Qwen2AudioForConditionalGeneration(qwen2_audio_config(text, tower))
        family: Family = Qwen2AudioFamily(str(folder), model, tokenizer, extractor)
    else:
        sizes = thinker_sizes(text, tower)
        model = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**sizes))
        family = Qwen25OmniFamily(str(folder), model, tokenizer, extractor)
    randomise(model, 0, std)
    return family


def write(family: Family, folder: Path) -> None:
    """Save a model so that vLLM, with its older transformers, can read it too."""
    family.save(folder)
    if family.kind == "qwen2-audio":
        # With the family's own tokenizer: by another the server would not know its stop strings.
        Qwen2AudioProcessor(tiny_extractor(family.kind), family.tokenizer).save_pretrained(folder)
    else:  # it knows full checkpoints only
        path = folder / "model.safetensors"
        weights = load_file(path)
        thinker: Any = family.model.config
        full = Qwen2_5OmniConfig(thinker_config=thinker.to_dict(), enable_audio_output=False)
        full.architectures = ["Qwen2_5OmniModel"]
        full.save_pretrained(folder)
        about = folder / "preprocessor_config.json"
        about.write_text(
            json.dumps(json.loads(about.read_text(encoding="utf-8")) | PICTURES), encoding="utf-8"
        )
        save_file(named_as_published(family.kind, weights), path, {"format": "pt"})


@dataclass
class Serve:
    """A ``vllm serve`` of a folder."""

    folder: Path
    log: Path
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Path = PROGRAM
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {
            **os.environ,
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            # Even with --enforce-eager vLLM compiles some of its functions to C++, when they are first called and for
            # minutes each. This has it compute them as they are written.
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(round(PATIENCE)),
            **self.environment,
        }
        place = [f"--port={self.port}", "--host=127.0.0.1"]
        command = [str(self.program), "serve", str(self.folder), *place, *FLAGS, *self.flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )

    def wait(self) -> None:
        """Until it answers; RuntimeError where it does not, with the end of its log."""
        assert self.process is not None
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=30).status_code == 200:
                    return
            time.sleep(1)
        self.kill()
        raise RuntimeError(
            f"vllm serve did not start:\n{self.log.read_text(encoding='utf-8', errors='replace')[-3000:]}"
        )

    def kill(self) -> None:
        """End it, and all that it started."""
        assert self.process is not None
        with suppress(ProcessLookupError):  # where it ended by itself, what it started may go on
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
