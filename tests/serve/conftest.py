"""A real server on a real socket, with a policy that follows a script, and the real client."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import uvicorn
from openai import OpenAI

from echo_agent import EchoAgent
from echo_agent.audio.recording import wav_bytes
from echo_agent.cli.serve import bind
from echo_agent.serve.app import Server, build_app
from echo_agent.serve.settings import Settings
from tests.scripted import ASK_ONCE, scripted_family
from tests.tiny import sounds
from tests.waiting import until

RATE = 16000
NAME = "tests"


def audio(samples: np.ndarray, rate: int = RATE) -> dict[str, Any]:
    """A part of a message with audio in it."""
    return part(wav_bytes(samples, rate))


def part(data: bytes) -> dict[str, Any]:
    """A part of a message with a file in it."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def asking(text: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


YARD = audio(sounds(10.0))


@dataclass
class Served:
    """A server that runs."""

    server: Server
    url: str
    uvicorn: uvicorn.Server
    thread: threading.Thread

    def client(self, key: str = "none", retries: int = 0, **options: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=retries, **options)


@contextmanager
def serving(agent: EchoAgent, **settings: Any) -> Iterator[Served]:
    """A server on a free port of this machine."""
    app = build_app(agent, Settings(NAME, **settings))
    with bind("127.0.0.1", 0) as socket:
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=10
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            until(lambda: server.started)
            yield Served(app.state.server, f"http://127.0.0.1:{socket.getsockname()[1]}", server, thread)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server ends"


@pytest.fixture(scope="package")
def agent() -> Iterator[EchoAgent]:
    with EchoAgent(scripted_family({**ASK_ONCE, "<think>": "<seg>2.0, 4.0; speed=0.5</seg>"})) as agent:
        yield agent


@pytest.fixture(scope="package")
def served(agent: EchoAgent) -> Iterator[Served]:
    with serving(agent, max_seconds=20.0) as served:
        yield served


@pytest.fixture(scope="package")
def client(served: Served) -> Iterator[OpenAI]:
    with served.client() as client:
        yield client
