"""A trajectory in steps, and two ways to score it: one pass through the model's own forward, or step by step.

Log-probabilities are natural, float32, ``[tokens, vocabulary]``; row i is what is expected after token i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.conformance.sounds import lively
from echo_agent.families.base import Family, Piece

SAME = 1e-4
"""Largest difference of log-probabilities that counts as equal (float32)."""
CHANGED = 10 * SAME
"""Smallest difference that counts as changed."""


@dataclass
class Story:
    """A trajectory: each step is appended to the cache in one forward pass."""

    recording: Recording
    rate: int
    """What the family hears, in Hz."""
    steps: list[list[int]]
    audio: list[AudioRef]

    @property
    def ids(self) -> list[int]:
        """The whole context."""
        return [token for step in self.steps for token in step]

    @property
    def crops(self) -> list[tuple[AudioRef, np.ndarray]]:
        """References and samples of all listens."""
        return [(ref, self.recording.crop(ref, self.rate)) for ref in self.audio]


def tell(
    family: Family,
    seed: int = 0,
    seconds: float = 6.0,
    spans: Sequence[tuple[float, float]] = ((1.5, 3.0),),
) -> Story:
    """Prompt with the whole recording; then, for each span, a call token by token and the crop at once; an answer."""
    recording = Recording.from_array(lively(seconds, seed), 16000)
    whole, crops = recording.ref(), [recording.ref(*span) for span in spans]
    asked = f"Which sound is number {' and '.join(map(str, range(seed + 1)))}?"  # of a length of its own
    question = family.question_pieces([whole], asked, ["bell", "dog"])
    steps = [family.render(question)[0]]
    for crop in crops:
        called = family.tokenize("<think>")[:8] + family.tokenize("bell dog bell")[:8]
        steps += [*([token] for token in called), family.render([Piece(audio=crop)])[0]]
    steps += [[token] for token in family.tokenize("dog bell dog dog bell")[:8]]
    return Story(recording, family.sample_rate, steps, [whole, *crops])


@torch.no_grad()
def encode(family: Family, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[torch.Tensor]:
    """Embeddings ``[tokens, hidden]`` of crops, encoded in one call."""
    return family.audio_embeds([ref for ref, _ in crops], family.frozen_features(crops))


@torch.no_grad()
def embed(family: Family, ids: Sequence[int], audio: Sequence[torch.Tensor]) -> torch.Tensor:
    """Embeddings ``[1, n, hidden]`` of ids, the runs of placeholders replaced by ``audio``, in order."""
    embeds = family.token_embeds(torch.tensor([list(ids)])).clone()
    for (first, count), features in zip(family.placeholder_ranges(ids), audio, strict=True):
        embeds[0, first : first + count, : features.shape[-1]] = features
    return embeds


@torch.no_grad()
def native(family: Family, told: Story) -> torch.Tensor:
    """Log-probabilities of one full pass through the model's own forward."""
    out = family.model(**family.forward_inputs(told.ids, told.crops))
    assert out.logits.shape[1] == len(told.ids), "the model's own forward changed the length of the sequence"
    return out.logits[0].float().log_softmax(-1)


@torch.no_grad()
def stepwise(
    family: Family,
    told: Story,
    *,
    audio: Sequence[torch.Tensor] | None = None,
    position: Callable[[int, int], int] = lambda step, at: at,
) -> Iterator[torch.Tensor]:
    """Log-probabilities of each step, computed from the cache of the ones before."""
    audio = list(encode(family, told.crops) if audio is None else audio)
    cache, done = None, 0
    for number, step in enumerate(told.steps):
        runs = len(family.placeholder_ranges(step))
        embeds = embed(family, step, audio[:runs])
        del audio[:runs]
        mask = torch.ones(1, done + len(step), dtype=torch.long)
        positions = torch.tensor([[position(number, done + i) for i in range(len(step))]])
        hidden, cache = family.forward_embeds(embeds, mask, positions, cache)
        assert cache.get_seq_length() == done + len(step)
        done += len(step)
        yield family.logits(hidden)[0].log_softmax(-1)


def by_steps(
    family: Family,
    told: Story,
    *,
    audio: Sequence[torch.Tensor] | None = None,
    position: Callable[[int, int], int] = lambda step, at: at,
) -> torch.Tensor:
    """Log-probabilities of all steps."""
    return torch.cat(list(stepwise(family, told, audio=audio, position=position)))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference; both must be finite."""
    assert one.shape == other.shape and bool(torch.isfinite(one).all() and torch.isfinite(other).all())
    return (one - other).abs().max().item()


def crop_step(family: Family, told: Story) -> int:
    """Number of the step that appends the first crop."""
    return next(i for i, step in enumerate(told.steps) if i and family.placeholder_ranges(step))


def after_crop(family: Family, told: Story) -> slice:
    """Positions whose predictions come after the first crop."""
    return slice(sum(map(len, told.steps[: crop_step(family, told) + 1])), None)
