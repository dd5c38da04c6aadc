"""Tiny models with recordings to ask about; one family per kind is shared by the tests that leave its weights alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch

from echo_agent.audio.recording import Recording
from echo_agent.audio.references import AudioRef
from echo_agent.engine import Generation, SamplingParams, TorchEngine
from echo_agent.families.base import Family
from echo_agent.stores import RecordingStore
from tests.tiny import KINDS, sounds, tiny_family

QUESTIONS = (
    "Which sound comes after the dog?",
    "How many times does the bell ring?",
    "Which sound comes after the bell, the second time that it rings?",
    "How many?",
)


@cache
def shared_family(kind: str) -> Family:
    return tiny_family(kind)


@dataclass
class World:
    """A family, a store with three recordings, and whatever engines the test makes."""

    family: Family
    store: RecordingStore = field(default_factory=RecordingStore)
    engines: list[TorchEngine] = field(default_factory=list)
    reference: TorchEngine | None = None

    def __post_init__(self) -> None:
        self.whole = self.store.add(Recording.from_array(sounds(3.0), 16000))
        self.other = self.store.add(Recording.from_array(sounds(2.0, seed=1), 16000))
        self.twin = self.store.add(Recording.from_array(sounds(3.0, seed=2), 16000))  # as long as the first

    def engine(self, **options: Any) -> TorchEngine:
        self.engines.append(TorchEngine(self.family, self.store, **options))
        return self.engines[-1]

    def prompt(
        self, question: str | int = 0, ref: AudioRef | None = None
    ) -> tuple[list[int], list[AudioRef]]:
        text = QUESTIONS[question] if isinstance(question, int) else question
        return self.family.render(self.family.question_pieces([ref or self.whole], text, None))

    def alone(self, ids: list[int], audio: list[AudioRef], params: SamplingParams) -> Generation:
        """What an engine gives that keeps no keys and values and runs one context at a time."""
        if self.reference is None:
            self.reference = self.engine(kv_bytes=0, max_batch=1)
        return self.reference.generate(ids, audio, params)

    def forward(
        self, ids: list[int], audio: list[AudioRef], sampled: tuple[int, ...], temperature: float = 1.0
    ) -> list[float]:
        """Log-probabilities of ``sampled`` after ``ids`` from one pass through the model's own forward."""
        crops = [(ref, self.store.crop(ref, self.family.sample_rate)) for ref in audio]
        with torch.no_grad():
            scores = self.family.model(**self.family.forward_inputs([*ids, *sampled], crops)).logits[0]
        logprobs = (scores.float() / temperature).log_softmax(-1)
        return [logprobs[len(ids) + i - 1, token].item() for i, token in enumerate(sampled)]

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


@pytest.fixture(scope="session")
def references() -> Iterator[dict[str, TorchEngine]]:
    """One engine per kind to compare with, whose audio features are kept from test to test."""
    references: dict[str, TorchEngine] = {}
    yield references
    for engine in references.values():
        engine.close()


def shared_world(kind: str, references: dict[str, TorchEngine]) -> Iterator[World]:
    try:
        world = World(shared_family(kind))
    except ValueError as error:
        pytest.skip(str(error))
    if kind not in references:
        references[kind] = TorchEngine(world.family, world.store, kv_bytes=0, max_batch=1)
    world.reference = references[kind]
    yield world
    world.close()


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, references: dict[str, TorchEngine]) -> Iterator[World]:
    yield from shared_world(request.param, references)


@pytest.fixture
def qwen(references: dict[str, TorchEngine]) -> Iterator[World]:
    """One kind only, for what does not depend on the architecture."""
    yield from shared_world("qwen2.5-omni", references)


def same(first: Generation, second: Generation, tolerance: float = 1e-4) -> None:
    """Same tokens, same log-probabilities."""
    assert first.ids == second.ids
    assert first.logprobs == pytest.approx(second.logprobs, abs=tolerance)
    assert (first.text, first.finish, first.stop) == (second.text, second.finish, second.stop)


class Pause:
    """Keeps an engine's thread busy in a callback, from where it begins until it is let go."""

    def __init__(self, when: Callable[[], bool] = lambda: True) -> None:
        """Begin at the first token at which ``when`` holds."""
        self._when = when
        self._begun, self._go = threading.Event(), threading.Event()

    def __call__(self, ids: list[int], text: str) -> None:
        """The callback."""
        if self._when():
            self._begun.set()
            self._go.wait()

    def wait_until_it_begins(self) -> None:
        """Return once the engine is in the callback."""
        self._begun.wait()

    def let_go(self) -> None:
        """Let the engine go on."""
        self._go.set()


@contextmanager
def held(engine: TorchEngine, world: World) -> Iterator[None]:
    """Keep the engine's thread busy, so that what is submitted meanwhile is let in together."""
    pause = Pause()
    prompt = world.prompt("?", world.whole.span(0.0, 0.3))
    future = engine.submit(*prompt, SamplingParams(max_new_tokens=1), pause)
    pause.wait_until_it_begins()
    try:
        yield
    finally:
        pause.let_go()
        future.result()
