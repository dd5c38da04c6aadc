"""The servers of one model: which of them a run goes to, and what becomes of one that fails.

A recording stays on one server, whose prefix cache then serves all runs about it: servers are ranked by a hash of their
address and the recording, and the first that is up is taken. So where one goes down its runs move to the next of their
ranking, and those of others stay where they are. One that failed rests, and is asked who it is before it is used again:
a server that was started anew knows no audio, and has the weights that it was started with.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from echo_agent.engine.connections import answered
from echo_agent.engine.wire import FLAG, GENERATE, Chunk, explained
from echo_agent.errors import QuestionError, ServerError

KEY = "VLLM_API_KEY"
"""Environment variable that holds the servers' key, if they ask for one: the one that ``vllm serve`` itself reads."""
REST = (1.0, 30.0)
"""Seconds that a server rests after its first failure, and at most; each further one doubles them."""
MOST_NAMES = 4096
"""Names of audio that are remembered for one server."""
ADAPTERS_FLAG = "--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment"
WEIGHTS_FLAG = "VLLM_SERVER_DEV_MODE=1 in its environment"
"""With what a server is started that takes new weights."""


@dataclass(frozen=True)
class Version:
    """Weights that requests are to be answered with, in place of those that the servers were started with."""

    name: str
    folder: str
    """Where they are, as the servers see it."""
    whole: bool
    """All weights; else adapters (LoRA)."""


class _Card(BaseModel):
    """One entry of ``/v1/models``."""

    model_config = ConfigDict(extra="ignore")

    id: str
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class _Cards(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: list[_Card]


class _Weights(BaseModel):
    """The answer of ``/weight_info``."""

    model_config = ConfigDict(extra="ignore")

    weight_version: str


class Again(Exception):
    """A request can be made again: here, elsewhere, or later."""

    def __init__(self, why: str, *, rest: bool = True, wait: float = 0.0) -> None:
        """Say why.

        Args:
            why: In words.
            rest: The server is to rest.
            wait: Seconds that it asked for.
        """
        super().__init__(why)
        self.rest, self.wait = rest, wait


@dataclass(eq=False)
class Replica:
    """One server."""

    url: str
    model: str = ""
    """The name under which it serves the model."""
    context_length: int | None = None
    """Most tokens that it takes."""
    raw: bool = True
    """Log-probabilities are those of the model, before temperature, bans and choices (``raw_logprobs``)."""
    introduced: bool = False
    """It has said who it is, and has not failed since."""
    names: OrderedDict[str, None] = field(default_factory=OrderedDict)
    """Audio that it has been given, by name."""
    adapters: set[str] = field(default_factory=set)
    exchange: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while its weights are exchanged: of several runs that find it started anew, one brings them."""
    rests_until: float = 0.0
    failures: int = 0
    """In a row."""
    trouble: str = ""
    """Why it failed last."""
    requests: int = 0

    def given(self, names: Sequence[str]) -> None:
        """Note audio that it has."""
        for name in names:
            self.names[name] = None
            self.names.move_to_end(name)
        while len(self.names) > MOST_NAMES:
            self.names.popitem(last=False)

    def forget(self, names: Sequence[str]) -> None:
        """Note audio that it does not have after all."""
        for name in names:
            self.names.pop(name, None)

    def failed(self, why: str) -> None:
        """Let it rest."""
        self.rests_until = time.monotonic() + min(REST[1], REST[0] * 2**self.failures)
        self.failures += 1
        self.trouble = why
        self.introduced = False
        self.names.clear()
        self.adapters.clear()

    @property
    def rests(self) -> bool:
        """Whether it failed a short while ago."""
        return time.monotonic() < self.rests_until


def checked_url(url: str) -> str:
    """An address of a server, without what does not belong to it; raises QuestionError where it is none."""
    parts = urlsplit(url.strip())
    try:
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number
        fits = False
    if not fits or parts.query or parts.fragment:
        raise QuestionError(f"{url!r} is not the address of a server, such as http://localhost:8000")
    if parts.username or parts.password:
        raise QuestionError(
            f"the address of a server holds no key: put it into the environment variable {KEY}"
        )
    return url.strip().rstrip("/").removesuffix("/v1")


class Replicas:
    """The servers of a model; used from one event loop."""

    def __init__(self, urls: Sequence[str], name: str, served_as: str | None, timeout: float) -> None:
        """Know servers by their addresses.

        Args:
            urls: Addresses, such as ``http://localhost:8000``.
            name: The model.
            served_as: The name that it has there, if that is another.
            timeout: Seconds that a server may take to answer, and between two pieces of its answer.
        """
        found = list(dict.fromkeys(map(checked_url, urls)))
        if not found:
            raise QuestionError(
                "no server is named: give at least one address, such as http://localhost:8000"
            )
        self.all = [Replica(url) for url in found]
        self.version: Version | None = None
        """What requests are to be answered with."""
        self._name, self._served_as = name, served_as
        self._timeout = timeout
        key = os.environ.get(KEY)
        self.http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        )

    def choose(self, home: str) -> Replica:
        """The server for a run about the recording ``home``; where all rest, the one that rests least."""
        up = [replica for replica in self.all if not replica.rests]
        if not up:
            return min(self.all, key=lambda replica: replica.rests_until)
        return max(up, key=lambda replica: hashlib.sha256(f"{replica.url} {home}".encode()).digest())

    def troubles(self) -> str:
        """What is wrong with each server that failed."""
        return "; ".join(f"{replica.url}: {replica.trouble}" for replica in self.all if replica.trouble)

    async def introduce(self, replica: Replica) -> None:
        """Ask a server who it is, unless it has said so.

        Raises:
            Again: It does not answer.
            ServerError: It is not one that can be used.
        """
        if replica.introduced:
            return
        answer = await self.call("GET", replica, "/v1/models", flag="`vllm serve`")
        try:
            cards = _Cards.model_validate_json(answer).data
        except ValidationError:
            raise ServerError(
                f"{replica.url} is no server of a model: /v1/models gives no list of models"
            ) from None
        card = self._served(replica, cards)
        replica.model, replica.context_length = card.id, card.max_model_len
        replica.adapters.update(card.id for card in cards if card.parent)
        replica.raw = await self._raw(replica)
        replica.introduced = True
        await self.bring(replica)

    def _served(self, replica: Replica, cards: Sequence[_Card]) -> _Card:
        """The entry of our model."""
        wanted = self._served_as or self._name
        for card in cards:
            if card.id == wanted or (not self._served_as and card.root and _same_place(card.root, wanted)):
                return card
        served = ", ".join(card.id for card in cards) or "nothing"
        raise ServerError(
            f"{replica.url} serves {served}, not {wanted}: name the model that it serves, or say under which name it "
            "serves this one (--served-as; served_as in Python)"
        )

    async def _raw(self, replica: Replica) -> bool:
        """Whether log-probabilities are the model's own: one token is all that may come, and how likely is it?"""
        settings = {"max_tokens": 1, "temperature": 0.0, "logprobs": 1, "allowed_token_ids": [0]}
        probe = {"model": replica.model, "token_ids": [0], "sampling_params": settings}
        answer = await self.call("POST", replica, GENERATE, probe)
        choices = Chunk.read(answer, replica.url).choices
        logprobs = choices[0].logprobs if choices else None
        content = logprobs.content if logprobs is not None else None
        if not content:
            raise ServerError(f"the server {replica.url} gives no log-probabilities (--max-logprobs)")
        if content[0].logprob > 1e-6:
            raise ServerError(
                f"the server {replica.url} gives scores in place of log-probabilities: start it with --logprobs-mode "
                "raw_logprobs (the default), or processed_logprobs"
            )
        return content[0].logprob < -1e-9

    async def bring(self, replica: Replica) -> None:
        """Have a server take the weights that requests are to be answered with, if it does not have them.

        Raises:
            Again: It does not answer.
            ServerError: It cannot.
        """
        if self.version is None:
            return
        if self.version.whole:
            await self._reload(replica, self.version)
        elif self.version.name not in replica.adapters:
            await self._adapt(replica, self.version)

    async def _adapt(self, replica: Replica, version: Version) -> None:
        given = {"lora_name": version.name, "lora_path": version.folder}
        try:
            await self.call("POST", replica, "/v1/load_lora_adapter", given, flag=ADAPTERS_FLAG)
        except ServerError as error:
            if "already been loaded" not in str(error):  # by another client of the same training
                raise
        replica.adapters.add(version.name)

    async def _reload(self, replica: Replica, version: Version) -> None:
        """Exchange all weights, when what is under way has ended; what the server has computed goes with them."""
        async with replica.exchange:
            said = await self.call("GET", replica, "/weight_info", flag=WEIGHTS_FLAG)
            try:
                if _Weights.model_validate_json(said).weight_version == version.name:
                    return
            except ValidationError:
                raise ServerError(f"{replica.url} does not say of which version its weights are") from None
            work = {"method": "reload_weights", "kwargs": {"weights_path": version.folder}}
            try:
                await self.call("POST", replica, "/pause?mode=wait", flag=WEIGHTS_FLAG)
                await self.call("POST", replica, "/collective_rpc", work, flag=WEIGHTS_FLAG)
                await self.call("POST", replica, "/update_weight_version", {"new_version": version.name})
            finally:
                await self.call("POST", replica, "/resume")
            replica.names.clear()

    async def drop(self, replica: Replica, name: str) -> None:
        """Have a server let go of adapters; one that does not know them any more has done so."""
        if name in replica.adapters:
            replica.adapters.discard(name)
            try:
                await self.call("POST", replica, "/v1/unload_lora_adapter", {"lora_name": name})
            except (Again, ServerError):
                return

    async def call(
        self, method: str, replica: Replica, path: str, given: Any = None, *, flag: str = FLAG
    ) -> str:
        """One request in one piece; the text of the answer.

        Args:
            method: ``GET`` or ``POST``.
            replica: Where to.
            path: Of the route.
            given: JSON.
            flag: With what a server that has no such route has to be started.

        Raises:
            Again: The server does not answer, or not now.
            ServerError: It refuses.
        """
        try:
            async with answered(self.http, method, f"{replica.url}{path}", given) as response:
                await response.aread()
        except httpx.TransportError as error:
            raise Again(self.why(error)) from error
        if response.status_code != 200:
            raise self.refusal(replica, response.status_code, response.text, response.headers, path, flag)
        return response.text

    def why(self, error: httpx.TransportError) -> str:
        """What is wrong with a connection, in words."""
        if isinstance(error, httpx.TimeoutException):
            if isinstance(error, httpx.ConnectTimeout):
                return "it cannot be reached"
            return f"it gave no answer for {self._timeout:g} s"
        return " ".join(str(error).split()) or "the connection was lost"

    def refusal(
        self, replica: Replica, status: int, text: str, headers: Any, path: str, flag: str = FLAG
    ) -> Exception:
        """What a status other than 200 means."""
        said = explained(text)
        if status == 429:
            wait = headers.get("retry-after", "")
            return Again(
                f"it has too much to do ({said})", rest=False, wait=float(wait) if wait.isdigit() else 0.0
            )
        if status >= 500:
            return Again(f"it failed with {status} ({said})")
        if status in (401, 403):
            return ServerError(
                f"the server {replica.url} asks for a key: put it into the environment variable {KEY}"
            )
        if status in (404, 405) and "model" not in said.lower():
            return ServerError(f"the server {replica.url} has no {path}: start it with {flag}")
        return ServerError(f"the server {replica.url} refused {path} with {status}: {said}")


def _same_place(root: str, name: str) -> bool:
    """Whether a server's path of a model and ours are one: the same text, or folders of the same name."""
    return root == name or (
        Path(root).is_absolute() and Path(root).name == Path(name).expanduser().resolve().name
    )
