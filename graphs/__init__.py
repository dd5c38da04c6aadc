"""The LangGraph state machines."""

from echo_agent.graphs.listening import build_listening_graph
from echo_agent.graphs.serializer import checkpoint_serializer
from echo_agent.graphs.state import (
    Budget,
    ListeningContext,
    ListeningInput,
    ListeningOutput,
    ListeningState,
    initial_state,
)

__all__ = [
    "Budget",
    "ListeningContext",
    "ListeningInput",
    "ListeningOutput",
    "ListeningState",
    "build_listening_graph",
    "checkpoint_serializer",
    "initial_state",
]
