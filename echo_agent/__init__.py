"""Ask a recording a question: an audio language model as an agent that listens again before it answers.

What is named here is loaded when it is first used: importing the package loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent, EchoResult, RelistenRecord
    from echo_agent.chat import ChatLALM
    from echo_agent.engine import SamplingParams, TorchEngine
    from echo_agent.errors import EchoAgentError
    from echo_agent.families.loading import load_family
    from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state
    from echo_agent.recording import AudioRef, Recording, Transform
    from echo_agent.stores import RecordingStore
    from echo_agent.tools import make_relisten
    from echo_agent.trajectory import Trajectory

__all__ = [
    "AudioRef",
    "Budget",
    "ChatLALM",
    "EchoAgent",
    "EchoAgentError",
    "EchoResult",
    "ListeningContext",
    "Recording",
    "RecordingStore",
    "RelistenRecord",
    "SamplingParams",
    "TorchEngine",
    "Trajectory",
    "Transform",
    "build_listening_graph",
    "initial_state",
    "load_family",
    "make_relisten",
]

_HOMES = {
    "agent": ("EchoAgent", "EchoResult", "RelistenRecord"),
    "chat": ("ChatLALM",),
    "engine": ("SamplingParams", "TorchEngine"),
    "errors": ("EchoAgentError",),
    "families.loading": ("load_family",),
    "graphs": ("Budget", "ListeningContext", "build_listening_graph", "initial_state"),
    "recording": ("AudioRef", "Recording", "Transform"),
    "stores": ("RecordingStore",),
    "tools": ("make_relisten",),
    "trajectory": ("Trajectory",),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for from the module where it lives."""
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
