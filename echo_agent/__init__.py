"""Ask a recording a question: an audio language model as an agent that listens again before it answers.

What is named here is loaded when it is first used: importing the package loads neither torch nor transformers.

In a checkout, the folders ``tools``, ``graphs`` and ``finetune`` stand beside this one, and are subpackages all the
same: also where Python finds this folder because it was started in the checkout, in front of an installed copy.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from os.path import abspath, dirname, isdir, join
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent, EchoResult, RelistenRecord
    from echo_agent.audio.recording import AudioRef, Recording, Transform
    from echo_agent.chat import ChatLALM
    from echo_agent.chat_agent import ChatAgent
    from echo_agent.engine import SamplingParams, TorchEngine, VLLMEngine
    from echo_agent.errors import EchoAgentError
    from echo_agent.families.loading import load_family
    from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state
    from echo_agent.messages import audio_block
    from echo_agent.middleware import HearingMiddleware
    from echo_agent.stores import RecordingStore
    from echo_agent.tools import make_relisten
    from echo_agent.trajectory import Trajectory

__all__ = [
    "AudioRef",
    "Budget",
    "ChatAgent",
    "ChatLALM",
    "EchoAgent",
    "EchoAgentError",
    "EchoResult",
    "HearingMiddleware",
    "ListeningContext",
    "Recording",
    "RecordingStore",
    "RelistenRecord",
    "SamplingParams",
    "TorchEngine",
    "Trajectory",
    "Transform",
    "VLLMEngine",
    "audio_block",
    "build_listening_graph",
    "initial_state",
    "load_family",
    "make_relisten",
]

_BESIDE = ("tools", "graphs", "finetune")
"""Subpackages that stand beside this folder in a checkout, and inside it once it is installed."""


class _Checkout:
    """Finds the subpackages of a checkout beside this folder."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Where a subpackage is; None for every other module."""
        package, _, folder = name.rpartition(".")
        return PathFinder.find_spec(name, [_ROOT]) if package == __name__ and folder in _BESIDE else None


_ROOT = dirname(dirname(abspath(__file__)))
if not isdir(join(dirname(__file__), _BESIDE[0])) and isdir(join(_ROOT, _BESIDE[0])):
    sys.meta_path.append(_Checkout)

_HOMES = {
    "agent": ("EchoAgent", "EchoResult", "RelistenRecord"),
    "chat": ("ChatLALM",),
    "chat_agent": ("ChatAgent",),
    "engine": ("SamplingParams", "TorchEngine", "VLLMEngine"),
    "errors": ("EchoAgentError",),
    "families.loading": ("load_family",),
    "graphs": ("Budget", "ListeningContext", "build_listening_graph", "initial_state"),
    "audio.recording": ("AudioRef", "Recording", "Transform"),
    "messages": ("audio_block",),
    "middleware": ("HearingMiddleware",),
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
