"""The listening graph as a server of LangGraph loads it: what ``langgraph.json`` names.

    {"dependencies": ["."], "graphs": {"listening": "echo_agent.langgraph_server:graph"}}

``langgraph dev`` then serves it, and Studio shows its schemas: give it a ``question`` and, in ``recordings``, names of
files. The server saves threads itself. The model is loaded once, when the graph is first asked for, and in a thread:
such a server refuses what keeps its event loop waiting.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

from echo_agent.folder import Folder
from echo_agent.shipped import DEFAULT

if TYPE_CHECKING:
    from echo_agent.one_run import Graph

MODEL = "ECHO_AGENT_MODEL"
"""Environment variable that names the model; echo-small without it."""
RECORDINGS = "ECHO_AGENT_RECORDINGS"
"""Environment variable that names the folder of recordings; ``examples`` without it."""

_LOADING = Lock()


async def graph() -> Graph:
    """The listening graph of the model and the folder that the environment names.

    Raises:
        ModelError: There is no such model, or it cannot be loaded.
        RecordingError: There is no such folder.
    """
    return await asyncio.to_thread(_named)


def _named() -> Graph:
    folder = Folder(os.environ.get(RECORDINGS, "examples"))
    with _LOADING:  # who asks while it loads waits for it
        return _graph(os.environ.get(MODEL, DEFAULT), str(folder.root))


@cache
def _graph(model: str, folder: str) -> Graph:
    from echo_agent.agent import EchoAgent

    return EchoAgent.from_pretrained(model).graph(folder=folder)
