"""Runs that servers decode: one thread with an event loop, in which each run asks, reads, and asks again.

A run is a :class:`~echo_agent.engine.request.Request`, as in this process: it takes the tokens as they come and decides
itself when it has ended (end of turn, stop string, loop, length). What a server thinks of that only saves tokens. So a
stream that breaks off costs nothing: the next request, here or on another server, continues after the tokens that came,
and nothing is sampled, sent on or counted twice.

Inside a guided answer (:mod:`~echo_agent.engine.guides`) each token is a request of its own, limited to the ids that
may come next.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import threading
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from echo_agent.answers import ANSWER
from echo_agent.engine import wire
from echo_agent.engine.connections import answered
from echo_agent.engine.generation import Generation, SamplingParams
from echo_agent.engine.inbox import CLOSED
from echo_agent.engine.replicas import Again, Replica, Replicas, Version
from echo_agent.engine.request import Request, SampledToken
from echo_agent.engine.served_audio import ServedAudio
from echo_agent.errors import ContextError, EchoAgentError, QuestionError, ServerError
from echo_agent.forks import Birthplace

if TYPE_CHECKING:
    from echo_agent.families.base import Family
    from echo_agent.stores import RecordingStore

T = TypeVar("T")

LEAST_LOGPROB = -9000.0
"""Servers write less than this where they know none."""
NEAR = 1e-4
"""Two log-probabilities closer than this nearly tie, as in :mod:`~echo_agent.engine.sampling`."""
PAUSE = (0.25, 10.0)
"""Seconds between two attempts where no server is up: at first, and at most; each further one doubles them."""


class TokenClient:
    """See the module."""

    def __init__(
        self, family: Family, recordings: RecordingStore, replicas: Replicas, patience: float
    ) -> None:
        """Begin the thread.

        Args:
            family: The model, whose weights are not needed.
            recordings: Where the samples of audio references come from.
            replicas: The servers.
            patience: Seconds that a run goes on trying while no server takes it further.
        """
        self.home = Birthplace()
        self.replicas = replicas
        self.counts = {
            "runs": 0,
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "decoded_tokens": 0,
            "requests": 0,
            "attempts_lost": 0,
            "audio_sent": 0,
            "audio_by_name": 0,
        }
        self._family, self._audio, self._patience = family, ServedAudio(family, recordings), patience
        embedding: Any = family.model.get_input_embeddings()
        self._vocabulary, self._banned = embedding.weight.shape[0], frozenset(family.banned_ids)
        self._bias = wire.bias(family)
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="echo-agent-servers", daemon=True)
        self._thread.start()

    # --- called from any thread -----------------------------------------------------------------------------------

    @property
    def in_thread(self) -> bool:
        """Whether the caller is the client's own thread (a callback)."""
        return threading.current_thread() is self._thread

    @property
    def running(self) -> int:
        """Runs that have not ended."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have the loop do something; cancelling the future ends it."""
        if self._closed:
            work.close()
            raise EchoAgentError(CLOSED)
        return asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop do something, and wait for it."""
        future = self.start(work)
        try:
            return future.result()
        except BaseException:  # an interrupt of the caller
            future.cancel()
            raise

    def close(self) -> None:
        """End all runs and the thread; in a forked process there is no thread to end."""
        if self.home.forked or self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if not self.in_thread:
            self._thread.join()
            self._loop.close()

    async def _tracked(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            if self._closed:
                raise EchoAgentError(CLOSED) from None
            raise
        finally:
            self._tasks.discard(task)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.replicas.http.aclose()
        # A stream that was left early closes in tasks that the loop has only noted so far.
        await asyncio.sleep(0)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        self._loop.stop()

    # --- servers --------------------------------------------------------------------------------------------------

    async def introduce(self) -> list[Replica]:
        """Ask all servers who they are; those that are up.

        Raises:
            ServerError: None is, or one is not to be used.
        """
        await asyncio.gather(*map(self._introduced, self.replicas.all))
        up = [replica for replica in self.replicas.all if replica.introduced]
        if not up:
            raise ServerError(
                f"no server answers ({self.replicas.troubles()}): is it running, and at this address?"
            )
        return up

    async def _introduced(self, replica: Replica) -> None:
        try:
            await self.replicas.introduce(replica)
        except Again as again:
            replica.failed(str(again))

    async def use(self, version: Version) -> None:
        """Have requests answered with these weights; adapters before them are dropped.

        Raises:
            ServerError: A server cannot load them, or none is up.
        """
        before, self.replicas.version = self.replicas.version, version
        for replica in await self.introduce():
            try:
                await self.replicas.bring(replica)
                if before is not None:
                    await self.replicas.drop(replica, before.name)
            except Again as again:
                replica.failed(str(again))
        if not any(replica.introduced for replica in self.replicas.all):
            what = "weights" if version.whole else "adapters"
            raise ServerError(f"no server has loaded the {what} {version.name} ({self.replicas.troubles()})")

    # --- one run --------------------------------------------------------------------------------------------------

    async def run(self, request: Request) -> Generation:
        """Continue a context until it ends.

        Raises:
            ServerError: No server takes it further, or one gave back what it should not.
            ContextError: The servers refuse it.
            RecordingError: Its audio cannot be read.
        """
        self.counts["runs"] += 1
        self.counts["prompt_tokens"] += len(request.ids)
        home = request.audio[0].sha256 if request.audio else ""
        hope, sampled = _Hope(self._patience), 0
        while not request.ended:
            if len(request.sampled) > sampled:
                hope, sampled = _Hope(self._patience), len(request.sampled)
            replica = self.replicas.choose(home)
            try:
                await self.replicas.introduce(replica)
                await self._stretch(request, replica)
            except AudioForgotten:
                self.counts["attempts_lost"] += 1
            except Again as again:
                self.counts["attempts_lost"] += 1
                if again.rest:
                    replica.failed(str(again))
                if not request.ended:
                    await hope.pause(replica, again, self.replicas)
            else:
                replica.failures, replica.trouble = 0, ""
        return request.generation()

    async def _stretch(self, request: Request, replica: Replica) -> None:
        """One request to one server, until the run ends, or the server has no more to give.

        Raises:
            Again: The server does not answer, or broke off: what came before is kept.
        """
        kept = request.kept
        settings = self._settings(request, replica)
        parts = await self._audio.parts(request.audio, replica.names)
        by_name = [part["uuid"] for part in parts if part["url"] is None]
        version = self.replicas.version
        brought = version.name if version is not None and version.whole else None
        model = replica.model if version is None or version.whole else version.name
        # What was sampled holds no placeholders, so those of the prompt are all there are.
        ids, ranges = request.context(), request.placeholders
        body = wire.body(wire.unexpanded(ids, ranges), parts, settings, model)
        replica.requests += 1
        self.counts["requests"] += 1
        self.counts["audio_by_name"] += len(by_name)
        self.counts["audio_sent"] += len(parts) - len(by_name)
        began, first, came = time.perf_counter(), 0.0, 0
        try:
            async with (
                answered(self.replicas.http, "POST", f"{replica.url}{wire.GENERATE}", body) as response,
                aclosing(self._chunks(response, replica, by_name)) as chunks,
            ):
                async for chunk in chunks:
                    if not first:
                        wire.check_context(chunk, ids, ranges, replica.url)
                        replica.given([part["uuid"] for part in parts])
                        request.weights.add(model)
                        if brought is not None:
                            request.versions.add(brought)
                        first = time.perf_counter()
                    for choice in chunk.choices:
                        request.versions.update(choice.versions)
                        if brought is not None and {*choice.versions} - {brought}:
                            replica.introduced = False  # started anew without our noticing
                        for token in self._sampled(choice, kept, request.params, replica):
                            came += 1
                            if not request.ended:
                                request.accept(token)
                        if request.ended and choice.finish_reason is None:
                            return  # in a loop, for one: the server does not know, and is left alone
                    if chunk.usage is not None and len(ids) == len(request.ids):
                        self._cached(chunk.usage, request)
        except httpx.TransportError as error:
            raise Again(self.replicas.why(error)) from error
        finally:
            self.counts["decoded_tokens"] += came
            now = time.perf_counter()
            request.prefill += (first or now) - began
            request.decode += now - (first or now)
        if not came:
            raise Again("it gave no token")

    def _settings(self, request: Request, replica: Replica) -> dict[str, Any]:
        """How the next stretch is sampled.

        Raises:
            QuestionError: The temperature is one that servers change.
            ServerError: The server's log-probabilities would not be those of the model at this temperature.
        """
        params, kept = request.params, request.kept
        if 0 < params.temperature < wire.LEAST_TEMPERATURE:
            raise QuestionError(
                f"servers take no temperature between 0 and {wire.LEAST_TEMPERATURE:g}, such as {params.temperature:g}"
            )
        if replica.raw and params.temperature not in (0, 1):
            raise ServerError(
                f"log-probabilities at temperature {params.temperature:g} are wanted, but {replica.url} gives those at "
                "1: start it with --logprobs-mode processed_logprobs, or sample at temperature 0 or 1"
            )
        if not replica.raw and (kept or (params.temperature and params.top_p < 1)):
            what = "an answer that is held to choices" if kept else f"top_p {params.top_p:g}"
            way = "leave the answer free (--free)" if kept else "use top_p 1"
            raise ServerError(
                f"log-probabilities of all tokens are wanted, but {replica.url} gives those of {what}: start it "
                f"without --logprobs-mode processed_logprobs, or {way}"
            )
        place = f"{params.seed}/{params.run}/{request.length}"
        seed = int.from_bytes(hashlib.blake2b(place.encode(), digest_size=7).digest(), "little")
        stop = (*params.stop, ANSWER) if params.choices else params.stop
        tokens = request.limit - len(request.sampled)
        settings = wire.sampling(
            params, seed=seed, tokens=tokens, stop=stop, ends=self._family.eos_ids, bans=self._bias
        )
        return settings | wire.limited_to(kept) if kept else settings

    async def _chunks(
        self, response: httpx.Response, replica: Replica, by_name: Sequence[str]
    ) -> AsyncGenerator[wire.Chunk, None]:
        """The pieces of an answer; raises what its status means, and Again where it breaks off."""
        if response.status_code != 200:
            await response.aread()
            raise self._refusal(response, replica, by_name)
        lines = response.aiter_lines()
        async for line in lines:
            kind, _, data = line.partition(":")
            if kind != "data":
                continue
            if data.strip() == "[DONE]":
                with suppress(httpx.TransportError):  # read to its end, a connection serves again
                    async for _ in lines:
                        continue
                return
            chunk = wire.Chunk.read(data, replica.url)
            if chunk.error is not None:
                raise Again(f"it failed in the middle of an answer ({wire.explained(data)})")
            yield chunk
        raise Again("it broke off in the middle of an answer")

    def _refusal(self, response: httpx.Response, replica: Replica, by_name: Sequence[str]) -> Exception:
        """What a status other than 200 means."""
        status, said = response.status_code, wire.explained(response.text)
        if by_name and status in (400, 404, 422, 500):
            replica.forget(by_name)
            return AudioForgotten(f"it refused audio by its name ({said})", rest=False)
        if status == 404 and self.replicas.version is not None and self.replicas.version.name in said:
            replica.introduced = False
            replica.adapters.clear()
            return Again(f"it has lost its adapters ({said})", rest=False)
        if status == 400 and _TOO_LONG.search(said):
            return ContextError(f"the context is too long for the server {replica.url}: {said}")
        return self.replicas.refusal(replica, status, response.text, response.headers, wire.GENERATE)

    def _sampled(
        self, choice: wire.Choice, kept: Sequence[int], params: SamplingParams, replica: Replica
    ) -> Iterator[SampledToken]:
        """The tokens of one piece.

        Raises:
            ServerError: One of them must not come, or its log-probability is none.
        """
        ids = choice.token_ids or []
        entries = (choice.logprobs.content if choice.logprobs is not None else None) or []
        if len(ids) != len(entries) or any(e.id not in (None, i) for e, i in zip(entries, ids, strict=False)):
            raise ServerError(
                f"the server {replica.url} gave {len(ids)} tokens with {len(entries)} log-probabilities"
            )
        for token, entry in zip(ids, entries, strict=True):
            if token in self._banned or not 0 <= token < self._vocabulary or (kept and token not in kept):
                why = (
                    "none of the choices goes on with it"
                    if kept
                    else "it is banned, or no token of the model"
                )
                raise ServerError(
                    f"the server {replica.url} sampled token {token} ({self._family.detokenize([token])!r}), but {why}"
                )
            if not LEAST_LOGPROB < entry.logprob < NEAR:
                raise ServerError(
                    f"the server {replica.url} gave {entry.logprob:g} as the log-probability of token {token}: start "
                    "it with --logprobs-mode raw_logprobs (the default)"
                )
            likely = {other.id: other.logprob for other in entry.top_logprobs}
            rivals = [
                value
                for other, value in likely.items()
                if other != token and other not in self._banned and (not kept or other in kept)
            ]
            near = not params.temperature and bool(rivals) and max(rivals) >= entry.logprob - NEAR
            share = sum(
                math.exp(value) for other, value in {**likely, token: entry.logprob}.items() if other in kept
            )
            yield token, min(0.0, entry.logprob), near, bool(kept) and share < 0.5

    def _cached(self, usage: wire.Usage, request: Request) -> None:
        """Note how much of the context the server knew, if it says so (--enable-prompt-tokens-details)."""
        details = usage.prompt_tokens_details
        request.cached_tokens = (details.cached_tokens if details is not None else None) or 0
        self.counts["cached_tokens"] += request.cached_tokens


class AudioForgotten(Again):
    """The server does not have audio that it was given: it is sent again, at once."""


class _Hope:
    """How long a run goes on trying without getting any further."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until: float | None = None
        self._tried: set[str] = set()
        self._pauses = 0

    async def pause(self, replica: Replica, again: Again, replicas: Replicas) -> None:
        """Wait for the next attempt; not at all where there is a server that was not tried.

        Raises:
            ServerError: It has taken too long.
        """
        now = time.monotonic()
        self._until = now + self._patience if self._until is None else self._until
        self._tried.add(replica.url)
        if again.rest and any(other.url not in self._tried and not other.rests for other in replicas.all):
            return
        if now >= self._until:
            troubles = replicas.troubles() or f"{replica.url}: {again}"
            raise ServerError(f"no server continues the run ({troubles}); tried for {self._patience:g} s")
        seconds = again.wait or min(PAUSE[1], PAUSE[0] * 2**self._pauses)
        self._pauses += 1
        await asyncio.sleep(min(seconds, self._until - now))


_TOO_LONG = re.compile(
    r"context length|max_model_len|max model len|maximum .*(length|tokens)|too long", re.IGNORECASE
)
"""How servers say that a context is too long."""
