"""Engines: what turns a context of token ids and audio into sampled tokens.

``TorchEngine`` runs a family's transformers model in this process: it batches whatever runs are waiting, keeps the KV
cache of what was computed for the continuation, and encodes crops once. ``VLLMEngine`` asks ``vllm serve``, on this
machine or many others. Importing this package loads no torch; naming an engine does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from echo_agent.engine.generation import Finish, Generation, SamplingParams, Timings

if TYPE_CHECKING:
    from echo_agent.engine.torch_engine import TorchEngine
    from echo_agent.engine.vllm_engine import VLLMEngine

__all__ = ["Finish", "Generation", "SamplingParams", "Timings", "TorchEngine", "VLLMEngine"]


def __getattr__(name: str) -> Any:
    """Load torch only when an engine itself is asked for."""
    if name == "TorchEngine":
        from echo_agent.engine.torch_engine import TorchEngine

        return TorchEngine
    if name == "VLLMEngine":
        from echo_agent.engine.vllm_engine import VLLMEngine

        return VLLMEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
