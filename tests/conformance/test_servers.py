"""The tests of engines hold for the engine over servers: each family is served by the server of ours.

What such an engine samples with is behind a socket; the family that it holds itself has no weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from echo_agent.conformance import EngineTests
from echo_agent.engine import VLLMEngine
from echo_agent.engine.engine import Engine
from echo_agent.families.base import Family
from echo_agent.families.loading import load_family
from echo_agent.stores import RecordingStore
from tests.tiny import tiny_family
from tests.token_server import token_server


class Served(EngineTests):
    """A tiny model of one kind on a server."""

    model: ClassVar[str]
    kind: ClassVar[str]
    hottest = 1.0
    """Where a server's log-probabilities are those of the model."""

    @classmethod
    def make(cls) -> Family:
        return tiny_family(cls.model)

    @classmethod
    @contextmanager
    def opened(cls, family: Family, store: RecordingStore) -> Iterator[Engine]:
        with TemporaryDirectory() as place:
            folder = str(Path(place, "model"))
            family.save(Path(folder))
            with token_server(family, name=folder) as server:
                client = load_family(folder, weights=False)
                assert not client.has_weights
                with VLLMEngine(client, store, server.url) as engine:
                    yield engine

    @classmethod
    @contextmanager
    def opened_alone(cls, family: Family, store: RecordingStore) -> Iterator[Engine]:
        """Another server, which is asked one thing at a time."""
        with cls.opened(family, store) as engine:
            yield engine


class TestServedQwen2Audio(Served):
    model, kind = "qwen2-audio", "qwen2-audio, served"


class TestServedQwen25Omni(Served):
    model, kind = "qwen2.5-omni", "qwen2.5-omni, served"


class TestServedQwen3Omni(Served):
    model, kind = "qwen3-omni", "qwen3-omni, served"
