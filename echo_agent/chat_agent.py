"""Ask a recording a question by way of a chat server: an OpenAI-compatible API, here or in a cloud.

    from echo_agent import ChatAgent

    with ChatAgent.from_pretrained("openai:Qwen/Qwen2.5-Omni-7B@http://localhost:8000/v1") as agent:
        print(agent.ask("kitchen.flac", "What rings after the door?").answer)

It is asked like :class:`~echo_agent.agent.EchoAgent`, whose graph, tool, budgets and threads it has. What it has not,
since a chat server shows no tokens: answers that are held to their choices, confidences, trajectories, and training.
Keys come from the environment, and stand in no argument, trace or log.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from echo_agent.agent import EchoAgent
from echo_agent.answers import check_question
from echo_agent.asked import AskOptions, Audios
from echo_agent.controls import Control
from echo_agent.engine.replicas import checked_url
from echo_agent.errors import MissingExtraError, ModelError, QuestionError, ServerError
from echo_agent.graphs import ListeningContext, build_listening_graph, initial_state
from echo_agent.one_run import Ask
from echo_agent.results import EchoResult, result_of
from echo_agent.stores import RecordingStore
from echo_agent.threads import Threads
from echo_agent.turns_chat import TurnsChat

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from echo_agent.audio.recording import AudioRef

PREFIX = "openai:"
"""What such names begin with: ``openai:NAME@URL``, or ``openai:NAME`` for OpenAI's own server."""
KEY = "OPENAI_API_KEY"
LONGEST = 600.0
"""Seconds of the longest recording that is sent, by default: a minute is a wav file of 2 MB."""
TRIES = 5
"""Times that a request is made again where a server is busy or fails."""


class ChatAgent(EchoAgent):
    """An agent whose model is a chat server's; see the module."""

    def __init__(
        self,
        model: BaseChatModel,
        name: str,
        *,
        checkpoints: str | os.PathLike[str] | None = None,
        longest: float = LONGEST,
    ) -> None:
        """Make an agent of a LangChain chat model.

        Args:
            model: It takes audio in user messages; that it calls tools is not needed.
            name: What results call it.
            checkpoints: As for :class:`~echo_agent.agent.EchoAgent`.
            longest: Seconds of the longest recording that it is given.
        """
        self.recordings = RecordingStore()
        self.name = name
        self.model = TurnsChat(inner=model, recordings=self.recordings, name_of_model=name)
        self.threads = Threads(checkpoints)
        self._load_seconds, self._longest = 0.0, longest
        self._graph = build_listening_graph()
        self._in_use: Counter[str] = Counter()
        self._lock = Lock()

    @classmethod
    def from_pretrained(cls, name: str, timeout: float = 600.0, **settings: Any) -> ChatAgent:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Name a model behind a server.

        Args:
            name: ``openai:NAME@URL`` (``openai:Qwen/Qwen2.5-Omni-7B@http://localhost:8000/v1``), or ``openai:NAME`` for
                OpenAI's own. The environment variable ``OPENAI_API_KEY`` holds the key, where one is asked for.
            timeout: Seconds that the server may take for one answer.
            **settings: As for the class.

        Raises:
            ModelError: The name cannot be read, or there is no key.
            MissingExtraError: The client is not installed.
        """
        model, url = named(name)
        try:
            from langchain_openai import ChatOpenAI
        except ImportError:
            raise MissingExtraError(f"{name} needs: pip install 'echo-agent[api]'") from None
        key = os.environ.get(KEY)
        if url is None and not key:
            raise ModelError(f"{name} is OpenAI's own: put your key into the environment variable {KEY}")
        options: dict[str, Any] = {"model": model, "base_url": url, "api_key": key or "none"}
        return cls(ChatOpenAI(**options, timeout=timeout, max_retries=TRIES), name, **settings)

    def ask(
        self, audio: Audios, question: str, choices: Sequence[str] | None = None, **options: Any
    ) -> EchoResult:
        """Ask about a recording, as :meth:`EchoAgent.ask <echo_agent.agent.EchoAgent.ask>` does.

        Raises:
            ServerError: The server cannot be reached, or refuses.
        """
        with self._plainly():
            return super().ask(audio, question, choices, **options)

    async def aask(
        self, audio: Audios, question: str, choices: Sequence[str] | None = None, **options: Any
    ) -> EchoResult:
        """The async twin of :meth:`ask`."""
        with self._plainly():
            return await super().aask(audio, question, choices, **options)

    async def acontrols(
        self,
        audio: Audios,
        question: str,
        choices: Sequence[str] | None = None,
        *,
        controls: Sequence[Control],
        **options: Any,
    ) -> dict[Control, EchoResult]:
        """One run for each control: what a server has computed cannot be shared between them."""
        runs = [self.aask(audio, question, choices, control=control, **options) for control in controls]
        return dict(zip(controls, await asyncio.gather(*runs), strict=True))

    def _doubt(self, question: str, choices: Sequence[str] | None) -> None:
        """What such a model does not understand is not known."""

    @property
    def fingerprint(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Its name and a hash of it: the weights behind it are not seen."""
        return f"{self.name}@{hashlib.sha256(self.name.encode()).hexdigest()[:12]}"

    def close(self) -> None:
        """Nothing is open."""

    def _check_process(self) -> None:
        """Any process may ask a server."""

    def _context(self, settings: AskOptions, *, stream_tokens: bool = True) -> ListeningContext:
        return replace(
            super()._context(settings, stream_tokens=stream_tokens),
            guided=False,
            deliver="reference",
            options={"max_tokens": settings.max_new_tokens},
        )

    def _prepare(
        self,
        refs: Sequence[AudioRef],
        question: str,
        choices: Sequence[str] | None,
        on_event: Callable[[dict[str, Any]], None] | None,
        options: dict[str, Any],
    ) -> Ask:
        settings = AskOptions.read(options)
        check_question(question, choices)
        context = self._context(settings, stream_tokens=on_event is not None)
        return Ask(
            initial_state(question, refs, choices, run=settings.run),
            context,
            settings.thread,
            on_event,
            False,
        )

    def _result(self, ask: Ask, done: Any) -> EchoResult:
        return result_of(done, None, name=self.name)

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """What the client raises, as an error of ours."""
        try:
            import openai
        except ImportError:  # then the model is of another maker
            yield
            return
        try:
            yield
        except openai.AuthenticationError as error:
            raise ServerError(
                f"{self.name}: the server refuses the key; it is read from the environment variable {KEY}"
            ) from error
        except openai.NotFoundError as error:
            raise ServerError(
                f"{self.name}: there is no such model, or no such address: {_said(error)}"
            ) from error
        except openai.RateLimitError as error:
            raise ServerError(
                f"{self.name}: the server has too much to do, or your quota is used up: {_said(error)}"
            ) from error
        except openai.APITimeoutError as error:
            raise ServerError(
                f"{self.name}: the server gave no answer in time; asked {TRIES + 1} times"
            ) from error
        except openai.APIConnectionError as error:
            raise ServerError(
                f"{self.name}: the server cannot be reached: is it running, and at this address?"
            ) from error
        except openai.OpenAIError as error:
            raise ServerError(f"{self.name}: the server failed or refused: {_said(error)}") from error


def named(name: str) -> tuple[str, str | None]:
    """Model and address of ``openai:NAME@URL``; the address is None for OpenAI's own.

    Raises:
        ModelError: It cannot be read.
    """
    found = re.fullmatch(rf"{PREFIX}(?P<model>[^@\s]+)(?:@(?P<url>\S+))?", name)
    if found is None:
        raise ModelError(
            f"{name!r} is not the name of a model behind a server: write {PREFIX}NAME@http://host:port/v1"
        )
    url = found["url"]
    if url is None:
        return found["model"], None
    try:
        bare = checked_url(url)
    except QuestionError as error:
        raise ModelError(f"{name}: {error}".replace("VLLM_API_KEY", KEY)) from None
    return found["model"], bare + "/v1" if bare.count("/") == 2 else url


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
