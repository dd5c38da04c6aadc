"""Waiting for what happens in other threads, and making an engine wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from echo_agent import EchoAgent, Recording, SamplingParams
from tests.tiny import sounds

PATIENCE = 60
"""Seconds after which what is waited for does not happen any more."""


def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def held(agent: EchoAgent) -> Iterator[None]:
    """The engine is kept busy, so that every run waits."""
    ref = agent.recordings.add(Recording.from_array(sounds(2.0), 16000))
    head = agent.model.head([ref], "What?")
    begun, go_on = threading.Event(), threading.Event()

    def wait(ids: list[int], text: str) -> None:
        begun.set()
        go_on.wait(PATIENCE)

    future = agent.engine.submit(head.ids, head.audio, SamplingParams(max_new_tokens=2), on_token=wait)
    assert begun.wait(PATIENCE)
    try:
        yield
    finally:
        go_on.set()
        future.result(PATIENCE)
        agent.recordings.discard(ref)
