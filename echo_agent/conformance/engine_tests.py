"""A family in the engine: what it samples on a live cache is what one full pass of the model scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.conformance.claims import Made, claim
from echo_agent.conformance.sounds import lively
from echo_agent.conformance.story import SAME
from echo_agent.engine import Generation, SamplingParams, TorchEngine
from echo_agent.engine.engine import Engine
from echo_agent.families.base import Family, Piece
from echo_agent.stores import RecordingStore

ONE = SamplingParams(max_new_tokens=1)


@dataclass
class Place:
    """A family, its engine, and a recording to ask about."""

    family: Family
    engine: Engine
    store: RecordingStore
    whole: AudioRef

    def prompt(self, question: str) -> tuple[list[int], list[AudioRef]]:
        """A context that ends where the assistant begins."""
        return self.family.render(self.family.question_pieces([self.whole], question, None))

    def listen(
        self, ids: list[int], audio: list[AudioRef], sampled: Generation, start: float, end: float
    ) -> tuple[list[int], list[AudioRef]]:
        """The context after what was sampled and a crop."""
        crop = self.whole.span(start, end)
        heard, _ = self.family.render([Piece(audio=crop)])
        return [*ids, *sampled.ids, *heard], [*audio, crop]

    def scored(self, ids: list[int], audio: list[AudioRef], sampled: Generation) -> torch.Tensor:
        """Log-probabilities ``[sampled, vocabulary]`` by one full pass, where each token was sampled."""
        crops = [(ref, self.store.crop(ref, self.family.sample_rate)) for ref in audio]
        with torch.no_grad():
            out = self.family.model(**self.family.forward_inputs([*ids, *sampled.ids], crops))
        return out.logits[0, len(ids) - 1 : -1].float().log_softmax(-1)


class EngineTests(Made):
    """Contexts on a live cache, in company; see the module."""

    hottest: ClassVar[float] = 50.0
    """A temperature at which anything may be sampled."""

    @classmethod
    @contextmanager
    def opened(cls, family: Family, store: RecordingStore) -> Iterator[Engine]:
        """The engine that is tested; another one than the package's own is opened here."""
        with TorchEngine(family, store) as engine:
            yield engine

    @classmethod
    @contextmanager
    def opened_alone(cls, family: Family, store: RecordingStore) -> Iterator[Engine]:
        """One that keeps nothing and runs one context at a time, to compare with."""
        with TorchEngine(family, store, kv_bytes=0, max_batch=1) as engine:
            yield engine

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, family: Family) -> Iterator[Place]:
        """An engine for all tests."""
        store = RecordingStore()
        whole = store.add(Recording.from_array(lively(4.0, 20), 16000))
        with cls.opened(family, store) as engine:
            yield Place(family, engine, store, whole)

    @claim("engine = one full pass")
    def test_what_is_sampled_around_crops_is_scored_alike_by_one_full_pass(self, place: Place) -> None:
        ids, audio = place.prompt("Which sound comes first?")
        for number, (start, end) in enumerate([(0.5, 1.3), (2.0, 3.5), (1.0, 1.2)]):
            params = SamplingParams(temperature=1.0, run=number, max_new_tokens=6)
            sampled = place.engine.generate(ids, audio, params)
            expected = place.scored(ids, audio, sampled)[range(len(sampled.ids)), list(sampled.ids)]
            assert list(sampled.logprobs) == pytest.approx(expected.tolist(), abs=SAME)
            if number:
                assert sampled.cached_tokens > sampled.prompt_tokens / 2, (
                    "what was computed is not computed again"
                )
            ids, audio = place.listen(ids, audio, sampled, start, end)

    @claim("engine = one full pass")
    def test_a_greedy_run_samples_what_is_likeliest_by_one_full_pass(self, place: Place) -> None:
        ids, audio = place.prompt("Which sound comes last?")
        ids, audio = place.listen(ids, audio, place.engine.generate(ids, audio, ONE), 0.5, 1.5)
        sampled = place.engine.generate(ids, audio, SamplingParams(max_new_tokens=12))
        scores = place.scored(ids, audio, sampled)
        scores[:, list(place.family.banned_ids)] = float("-inf")
        lost = scores.max(-1).values - scores[range(len(sampled.ids)), list(sampled.ids)]
        assert lost.max() < SAME

    @claim("engine = one full pass")
    def test_runs_at_once_sample_what_they_sample_alone(self, place: Place) -> None:
        contexts = [place.prompt(f"Which sound is number {number}?") for number in range(4)]
        sampled = place.engine.generate(*contexts[0], SamplingParams(max_new_tokens=4))
        contexts.append(place.listen(*contexts[0], sampled, 1.0, 2.5))
        params = [SamplingParams(temperature=1.0, run=run, max_new_tokens=8) for run in range(len(contexts))]
        futures = [
            place.engine.submit(ids, audio, one) for (ids, audio), one in zip(contexts, params, strict=True)
        ]
        together = [future.result() for future in futures]
        with self.opened_alone(place.family, place.store) as alone:
            for (ids, audio), one, beside in zip(contexts, params, together, strict=True):
                single = alone.generate(ids, audio, one)
                assert single.ids == beside.ids
                assert single.logprobs == pytest.approx(beside.logprobs, abs=SAME)

    @claim("token accounting")
    def test_placeholders_are_never_sampled(self, place: Place) -> None:
        ids, audio = place.prompt("How many?")
        for run in range(3):
            params = SamplingParams(temperature=self.hottest, run=run, max_new_tokens=64)
            sampled = place.engine.generate(ids, audio, params)
            assert not set(sampled.ids) & set(place.family.banned_ids)
