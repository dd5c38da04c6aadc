"""What goes into the engine with a context, and what comes out: plain frozen data, without torch.

A context is token ids (audio placeholders included) and one audio reference per run of placeholders. The engine keeps
nothing for its callers between two calls: the whole context is handed in each time, and what the engine has computed of
it before is found again by its exact ids and audio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from echo_agent.errors import QuestionError

Finish = Literal["stop", "eos", "loop", "length"]
"""Why a generation ended: a stop string, an end-of-turn id, a loop, or no room for more tokens."""


@dataclass(frozen=True)
class SamplingParams:
    """How the next tokens of one run are chosen."""

    temperature: float = 0.0
    """0 takes the likeliest token (greedy); otherwise scores are divided by it before the softmax."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens that holds this much probability; 1 is all of them."""
    seed: int = 0
    """Seed of the noise."""
    run: int = 0
    """Which run of that seed this is: the noise is a function of (seed, run, position in the context) alone."""
    max_new_tokens: int = 256
    """Most tokens to sample; fewer where the model's context ends before."""
    stop: tuple[str, ...] = ()
    """Strings that end the generation as soon as the sampled text holds one; the token that ends it is kept whole."""
    max_repeats: int = 0
    """End the generation once the sampled ids end with one block and so many repeats of it
    (:func:`~echo_agent.engine.stops.is_loop`); 0 lets loops run. Guided answers do not count."""
    choices: tuple[str, ...] = ()
    """Between ``<answer>`` and ``</answer>`` only one of these is written (:mod:`echo_agent.engine.guides`); empty
    leaves the policy free."""

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled with."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise QuestionError(f"temperature must be a number from 0 (greedy) up, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise QuestionError(f"top_p must lie in (0, 1], not {self.top_p}")
        if self.max_new_tokens < 1:
            raise QuestionError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.max_repeats < 0:
            raise QuestionError(f"max_repeats must be 0 (no limit) or more, not {self.max_repeats}")
        if isinstance(self.stop, str) or "" in self.stop:
            raise QuestionError(f"stop must be a tuple of strings that are not empty, not {self.stop!r}")
        if isinstance(self.choices, str) or not all(choice.strip() for choice in self.choices):
            raise QuestionError(f"choices must be a tuple of texts that are not empty, not {self.choices!r}")
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "choices", tuple(self.choices))


@dataclass(frozen=True)
class Timings:
    """Seconds of work that one generation cost; work on a batch is divided evenly among the runs in it."""

    encode: float = 0.0
    """Reading crops and running the audio encoder."""
    prefill: float = 0.0
    """Running the text model over the part of the context that was not cached."""
    decode: float = 0.0
    """Sampling one token after another."""


@dataclass(frozen=True)
class Generation:
    """What was sampled after one context."""

    ids: tuple[int, ...]
    """Sampled ids, exactly as sampled; the end-of-turn id is among them where ``finish`` is ``eos``."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each id: the full softmax at the sampling temperature (1 where greedy), before bans,
    guided choices and top-p."""
    text: str
    """Text of the ids without the end-of-turn id; the stop string is part of it."""
    finish: Finish
    """Why it ended."""
    stop: str | None = None
    """The stop string that ended it."""
    timings: Timings = Timings()
    """What it cost."""
    prompt_tokens: int = 0
    """Length of the context that was handed in."""
    cached_tokens: int = 0
    """How many of them were not computed for this run: cached, or shared with a run of the same batch."""
    audio_tokens: int = 0
    """How many of them are audio placeholders."""
    steered: int = 0
    """At how many sampled tokens the choices left over less than half of the policy's probability: there it would
    rather have written something that is none of them."""
    near_ties: int = 0
    """How many sampled tokens another token came so close to that batching may turn the choice (1e-4)."""
    weights: tuple[str, ...] = ()
    """What servers call the model, or its adapters, that sampled; empty for a model in this process. Several names:
    they were exchanged meanwhile."""
    versions: tuple[str, ...] = ()
    """What servers say of the versions of its weights, where they do."""
