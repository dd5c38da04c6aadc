"""One request inside the engine: a context, what has been sampled after it, and the caller who waits for it.

Checking a context happens in the caller's thread, everything else in the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_agent.engine.generation import Finish, Generation, SamplingParams, Timings
from echo_agent.engine.prefix_cache import Symbols, symbols_of
from echo_agent.engine.stops import StopStrings, TextStream, is_loop
from echo_agent.errors import ContextError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from echo_agent.audio.recording import AudioRef
    from echo_agent.engine.guides import Guides
    from echo_agent.families.base import Family

OnToken = Callable[[list[int], str], None]
"""Called in the engine's thread with newly sampled ids and their text, whole characters only."""


SampledToken = tuple[int, float, bool, bool]
"""A sampled token: id, log-probability, near tie, and whether the choices left less than half of the probability."""


class Request:
    """A context that is being continued."""

    def __init__(
        self,
        ids: Sequence[int],
        audio: Sequence[AudioRef],
        params: SamplingParams,
        on_token: OnToken | None,
        family: Family,
        stops: StopStrings,
        guides: Guides,
    ) -> None:
        """Check the context against the family.

        Raises:
            ContextError: The context is empty, too long, or holds ids that the model does not have.
            PlaceholderError: Placeholders and audio do not agree.
            RecordingTooLongError: Some audio is longer than the model can hear.
        """
        self.ids = tuple(ids)
        if not self.ids:
            raise ContextError("the context is empty: there is nothing to continue")
        if len(self.ids) >= family.context_length:
            raise ContextError(
                f"the context has {len(self.ids)} tokens, but {family.name} can take {family.context_length} including "
                "what it samples: use a shorter recording, fewer or shorter crops, or a model with a longer context"
            )
        embedding: Any = family.model.get_input_embeddings()
        vocabulary = embedding.weight.shape[0]
        if min(self.ids) < 0 or max(self.ids) >= vocabulary:
            raise ContextError(
                f"the context holds ids from {min(self.ids)} to {max(self.ids)}, but {family.name} knows 0 to "
                f"{vocabulary - 1}: it was made with another tokenizer"
            )
        for ref in audio:
            family.check_length(ref)
        self.placeholders = family.check_placeholders(self.ids, audio)
        """Where placeholders stand."""
        self.audio = tuple(audio)
        self.keys = tuple(ref.key() for ref in audio)
        self.params = params
        self.limit = min(params.max_new_tokens, family.context_length - len(self.ids))
        """Most tokens to sample."""
        self.prompt_symbols = symbols_of(self.ids, self.placeholders, self.keys)
        self.future: Future[Generation] = Future()
        self.dead = False
        """It failed, or its caller has gone: nothing more is done for it."""
        self.embeds: dict[str, Tensor] = {}
        """Embeddings of the audio whose placeholders are about to be computed, by key."""
        self.sampled: list[int] = []
        self.logprobs: list[float] = []
        self.near_ties = 0
        self.steered = 0
        self.cached_tokens = 0
        self.weights: set[str] = set()
        """What servers call the model that they sampled with."""
        self.versions: set[str] = set()
        """What they say of the versions of its weights."""
        self.encode = self.prefill = self.decode = 0.0
        """Seconds of work so far."""
        self.joined_at = 0.0
        """The scheduler's count of decoding seconds when the request joined the live batch."""
        self._lock = Lock()
        self._resolved = False
        self._eos = frozenset(family.eos_ids)
        self._stops = stops
        self._detokenize = family.detokenize
        self._on_token = on_token
        self._stream = TextStream(family.detokenize) if on_token else None
        self._cursor = guides.cursor(params.choices, self.ids)
        self._finish: Finish | None = None
        self._stop: str | None = None

    @property
    def length(self) -> int:
        """Tokens of the context as it stands: what was handed in, and what was sampled."""
        return len(self.ids) + len(self.sampled)

    @property
    def ended(self) -> bool:
        """Whether its last token was sampled."""
        return self._finish is not None

    @property
    def kept(self) -> Sequence[int]:
        """Ids of which the next is sampled, inside a guided answer; none where any may be."""
        return () if self._cursor is None else self._cursor.kept

    def context(self) -> tuple[int, ...]:
        """The ids as they stand."""
        return (*self.ids, *self.sampled)

    def symbols(self) -> Symbols:
        """The symbols as they stand."""
        if not self.sampled:
            return self.prompt_symbols
        return np.concatenate([self.prompt_symbols, np.array(self.sampled, dtype=np.int64)])

    def audio_after(self, start: int) -> list[AudioRef]:
        """Audio of which some placeholder stands at ``start`` or later."""
        return [
            ref
            for (first, count), ref in zip(self.placeholders, self.audio, strict=True)
            if first + count > start
        ]

    def accept(self, choice: SampledToken) -> bool:
        """Take a sampled token; says whether the request has ended with it. The stream's callback may raise."""
        token, logprob, near_tie, steered = choice
        if math.isnan(logprob):
            raise ModelError(
                "the model's scores are not numbers: its weights or its precision (dtype) are broken"
            )
        self.sampled.append(token)
        self.logprobs.append(logprob)
        self.near_ties += near_tie
        self.steered += steered
        if self._cursor is not None:
            self._cursor.push(token)
        if token in self._eos:
            self._finish = "eos"
        else:
            self._stop = self._stops.found(self.sampled)
            if self._stop is not None:
                self._finish = "stop"
            elif self._in_loop():
                self._finish = "loop"
            elif len(self.sampled) >= self.limit:
                self._finish = "length"
        if self._stream is not None:
            self._emit(token, self._stream)
        return self._finish is not None

    def _in_loop(self) -> bool:
        """Whether the request goes round in a loop; what a guide spells may repeat itself."""
        return (
            bool(self.params.max_repeats) and not self.kept and is_loop(self.sampled, self.params.max_repeats)
        )

    def _emit(self, token: int, stream: TextStream) -> None:
        """Hand new text to the callback; an end-of-turn id has none."""
        assert self._on_token is not None
        if self._finish != "eos":
            ready = stream.push(token)
            if ready is not None:
                self._on_token(*ready)
        if self._finish is not None:
            ids, text = stream.rest()
            if self._finish == "eos":
                ids = [*ids, token]
            if ids:
                self._on_token(ids, text)

    def generation(self) -> Generation:
        """The result of a request that has ended."""
        assert self._finish is not None
        said = self.sampled[:-1] if self._finish == "eos" else self.sampled
        return Generation(
            ids=tuple(self.sampled),
            logprobs=tuple(self.logprobs),
            text=self._detokenize(said),
            finish=self._finish,
            stop=self._stop,
            timings=Timings(encode=self.encode, prefill=self.prefill, decode=self.decode),
            prompt_tokens=len(self.ids),
            cached_tokens=self.cached_tokens,
            audio_tokens=sum(count for _, count in self.placeholders),
            steered=self.steered,
            near_ties=self.near_ties,
            weights=tuple(sorted(self.weights)),
            versions=tuple(sorted(self.versions)),
        )

    def resolve(self, outcome: Generation | BaseException) -> None:
        """Wake the caller, unless the caller has gone."""
        with self._lock:
            if self._resolved:
                return
            self._resolved = True
            wanted = self.future.set_running_or_notify_cancel()
        if not wanted:
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    def abandon(self) -> None:
        """Tell those who watch the future that it was cancelled."""
        with self._lock:
            if not self._resolved:
                self._resolved = True
                self.future.set_running_or_notify_cancel()


class StopStringsCache:
    """One :class:`StopStrings` per set of strings, so that what is known of the tokens is kept between requests."""

    def __init__(self, family: Family) -> None:
        """Texts come from the family's tokenizer."""
        self.of = lru_cache(maxsize=64)(lambda strings: StopStrings(strings, family.detokenize))
