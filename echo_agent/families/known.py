"""Models that are known to work, and what each needs: read without torch, so that a list of them is there at once.

Any other checkpoint of their architectures can be named too; these are the ones whose sizes are written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from echo_agent.shipped import NANO, SMALL

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""The precisions that weights can be loaded in, and bytes per weight."""

Place = Literal["here", "vLLM", "API"]
"""In this process; behind a vLLM server with the token endpoint; behind a chat server or a cloud."""

PLACES: dict[Place, tuple[str, str]] = {
    "here": ("--model NAME", "in this process"),
    "vLLM": (
        "--model NAME --server URL",
        "where `vllm serve --enable-scale-out` runs it, with the same guarantees",
    ),
    "API": ("--model openai:NAME@URL", "any chat server or cloud that takes audio, without those of tokens"),
}
"""For each place, how a model there is named on the command line, and what that means."""


@dataclass(frozen=True)
class KnownModel:
    """A model that is known to work, and what it takes to run it."""

    name: str
    """What to write after ``--model``."""
    kind: str
    """Its family."""
    parameters: int
    """Weights that are loaded (of the Omni models: the thinker, pictures included)."""
    cache_values: int
    """Numbers that one token leaves in the KV cache: 2 x layers that keep any x key-value heads x head size."""
    longest_recording: float
    """Seconds of audio that it can hear at once."""
    licence: str
    """As its card states it."""
    note: str
    """One sentence for the list."""
    places: tuple[Place, ...] = ("here",)
    """Where it can be run; see :data:`PLACES`."""

    def memory(self, dtype: str = "bfloat16", tokens: int = 2000) -> float:
        """Gigabytes (10^9 bytes) for weights and the KV cache of one run of ``tokens`` tokens.

        Activations come on top: count on another 1 to 2 GB for a large model.
        """
        return (self.parameters + tokens * self.cache_values) * BYTES[dtype] / 1e9


NVIDIA = "NVIDIA OneWay Noncommercial"
ON_CARD = "see its card"
SERVED: tuple[Place, ...] = ("here", "vLLM", "API")


def known_models() -> list[KnownModel]:
    """The models that are known to work, smallest first."""
    known = [
        KnownModel(
            NANO, "echo-nano", 11_600_000, 1_920, 600.0, "Apache-2.0",
            "comes with echo-agent, runs on any CPU; knows little",
        ),
        KnownModel(
            SMALL, "echo-small", 171_015_508, 11_520, 600.0, "Apache-2.0 and MIT",
            "comes with echo-agent, runs on any CPU; understands plain English, and is often wrong",
        ),
        KnownModel(
            "Qwen/Qwen2.5-Omni-3B", "qwen2.5-omni", 4_703_464_448, 18_432, 600.0, "Qwen Research",
            "for a GPU of 16 GB; up to ten minutes", SERVED,
        ),
        KnownModel(
            "Qwen/Qwen2-Audio-7B-Instruct", "qwen2-audio", 8_397_094_912, 262_144, 30.0, "Apache-2.0",
            "for a GPU of 24 GB; 30 s at most", SERVED,
        ),
        KnownModel(
            "Qwen/Qwen2.5-Omni-7B", "qwen2.5-omni", 8_931_813_888, 28_672, 600.0, "Apache-2.0",
            "for a GPU of 24 GB; up to ten minutes", SERVED,
        ),
        KnownModel(
            "Qwen/Qwen3-Omni-30B-A3B-Instruct", "qwen3-omni", 31_719_205_488, 49_152, 1800.0, "Apache-2.0",
            "for a GPU of 80 GB; half an hour", SERVED,
        ),
        KnownModel(
            "mcshao/LAT-Audio", "lat-audio", 31_719_205_488, 49_152, 1800.0, ON_CARD,
            "taught to listen again by its own makers; half an hour", ("here",),
        ),
        KnownModel(
            "nvidia/audio-flamingo-3-hf", "audio-flamingo-3", 8_267_215_360, 28_672, 600.0, NVIDIA,
            "for a GPU of 24 GB; up to ten minutes",
        ),
        KnownModel(
            "nvidia/music-flamingo-2601-hf", "music-flamingo", 8_267_215_360, 28_672, 1200.0, NVIDIA,
            "music above all; up to twenty minutes",
        ),
        KnownModel(
            "nvidia/audio-flamingo-next-hf", "music-flamingo", 8_267_215_360, 28_672, 1200.0, ON_CARD,
            "taught to reason with time stamps; up to twenty minutes",
        ),
        KnownModel(
            "google/gemma-4-E2B-it", "gemma4", 5_104_297_504, 9_216, 30.0, "Apache-2.0",
            "for a GPU of 16 GB; 30 s at most",
        ),
        KnownModel(
            "google/gemma-4-E4B-it", "gemma4", 7_941_100_832, 28_672, 30.0, "Apache-2.0",
            "for a GPU of 24 GB; 30 s at most",
        ),
        KnownModel(
            "google/gemma-4-12B-it", "gemma4-unified", 11_959_730_176, 172_032, 30.0, "Apache-2.0",
            "for a GPU of 40 GB; 30 s at most",
        ),
        KnownModel(
            "ibm-granite/granite-speech-3.3-2b", "granite-speech", 3_009_408_348, 40_960, 600.0, "Apache-2.0",
            "speech; made to transcribe and to translate",
        ),
        KnownModel(
            "microsoft/Phi-4-multimodal-instruct", "phi4-multimodal", 4_693_672_384, 49_152, 240.0, "MIT",
            "speech; four minutes; its checkpoint for transformers",
        ),
        KnownModel(
            "mistralai/Voxtral-Mini-3B-2507", "voxtral", 4_676_271_104, 61_440, 1800.0, "Apache-2.0",
            "speech; every listen costs 375 tokens per 30 s begun",
        ),
        KnownModel(
            "mistralai/Voxtral-Small-24B-2507", "voxtral", 24_261_800_960, 81_920, 1800.0, "Apache-2.0",
            "speech; every listen costs 375 tokens per 30 s begun",
        ),
    ]  # fmt: skip
    return sorted(known, key=lambda model: model.parameters)
