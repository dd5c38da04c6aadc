"""The LangGraph state machines."""

from echo_agent.graphs.listening import build_listening_graph
from echo_agent.graphs.state import Budget, ListeningContext, ListeningState, initial_state

__all__ = ["Budget", "ListeningContext", "ListeningState", "build_listening_graph", "initial_state"]
