"""A run of ours inside somebody else's graph: no part of it, with a configuration of its own.

LangGraph hands the configuration of the graph that is running to whatever runs inside its nodes: its checkpointer (so
our steps would be written into their thread), its callbacks and streams, and its limit of steps (so a small limit there
would end our run). :meth:`EchoAgent.ask <echo_agent.agent.EchoAgent.ask>` is a function like any other: what it does
inside is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from langchain_core.runnables.config import var_child_runnable_config


class Isolation:
    """Inside, no configuration is inherited; :meth:`caller` is for calls back into the caller's code."""

    def __enter__(self) -> Self:
        """Put the caller's configuration aside."""
        self._callers: Any = var_child_runnable_config.get()
        self._token = var_child_runnable_config.set(None)
        return self

    def __exit__(self, *exc: object) -> None:
        """Give it back."""
        var_child_runnable_config.reset(self._token)

    @contextmanager
    def caller(self) -> Iterator[None]:
        """As it was outside."""
        token = var_child_runnable_config.set(self._callers)
        try:
            yield
        finally:
            var_child_runnable_config.reset(token)
