"""The engine whose model runs on servers: the interface of ``TorchEngine`` over the token endpoint of ``vllm serve``.

Tokens go in and tokens come out, as in this process: a server is sent the ids of the context as they are, and what it
made of them is compared with ours on every call. The family takes part without its weights. Nothing is kept on a server
for a run: its prefix cache finds what it has computed before, and audio that it was given once is spoken of by name.

Any number of servers of one model stand side by side; see :mod:`~echo_agent.engine.replicas` for which of them a run
goes to, and :mod:`~echo_agent.engine.token_client` for what happens where one fails.

What differs from ``TorchEngine``: sampling noise is the server's (its seed follows from seed, run and position, so a
run is repeated alike on one server, as far as its batches do not change it); timings are what was waited for, queue
included; ``cached_tokens`` is 0 unless the servers say it (``--enable-prompt-tokens-details``), which they do at the
end of an answer: of a run that ended in a loop, which only this side notices, it stays 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from echo_agent.engine.engine import Engine
from echo_agent.engine.replicas import Replicas, Version
from echo_agent.engine.token_client import TokenClient
from echo_agent.errors import QuestionError

if TYPE_CHECKING:
    from echo_agent.engine.generation import Generation
    from echo_agent.engine.request import Request
    from echo_agent.families.base import Family
    from echo_agent.stores import RecordingStore


class VLLMEngine(Engine):
    """Continues contexts on servers; see the module's docstring.

    Example:
        >>> family = load_family("Qwen/Qwen2-Audio-7B-Instruct", weights=False)  # doctest: +SKIP
        >>> with VLLMEngine(family, recordings, "http://localhost:8000") as engine:  # doctest: +SKIP
        ...     ids, audio = family.render(family.question_pieces([ref], "What rings?", None))
        ...     engine.generate(ids, audio, SamplingParams(stop=("</seg>", "</answer>"))).text
    """

    def __init__(
        self,
        family: Family,
        recordings: RecordingStore,
        servers: str | Sequence[str],
        *,
        served_as: str | None = None,
        timeout: float = 600.0,
        patience: float = 120.0,
    ) -> None:
        """Ask the servers who they are.

        Args:
            family: The model; its weights are not used. Its context is shortened to that of the servers.
            recordings: Where the samples of audio references come from.
            servers: Address of a ``vllm serve --enable-scale-out``, or several of the same model. A key, if they ask
                for one, stands in the environment variable ``VLLM_API_KEY``.
            served_as: The name of the model there, where it is neither its own nor that of its folder.
            timeout: Seconds that a server may take to begin its answer, and between two pieces of it.
            patience: Seconds that a run goes on trying while no server takes it further, because it is started anew,
                for one.

        Raises:
            ServerError: No server answers, or one cannot be used: it has no token endpoint, or serves another model.
            QuestionError: An address or a number is unusable.
        """
        for name, value in (("timeout", timeout), ("patience", patience)):
            if not value >= 0 or (name == "timeout" and value == 0):
                raise QuestionError(f"{name} must be a number of seconds above 0, not {value}")
        urls = [servers] if isinstance(servers, str) else list(servers)
        replicas = Replicas(urls, family.name, served_as, timeout)
        self._client = TokenClient(family, recordings, replicas, patience)
        super().__init__(family, recordings, self._client.close)
        try:
            up = self._client.wait(self._client.introduce())
        except BaseException:
            self.close()
            raise
        family.context_length = min(
            [family.context_length, *(replica.context_length for replica in up if replica.context_length)]
        )
        self._model = up[0].model

    def _start(self, request: Request) -> Future[Generation]:
        return self._client.start(self._client.run(request))

    @property
    def _in_thread(self) -> bool:
        return self._client.in_thread

    def check_process(self) -> None:
        """Refuse to work in a process that was forked after the engine was made; raises EchoAgentError there."""
        self._client.home.check()

    def use_adapters(self, name: str, folder: str) -> None:
        """Have all further requests answered with adapters (LoRA) that the servers load now, in place of any before.

        Servers find prefixes again by the name of the adapters, so each version of them needs a name of its own.

        Args:
            name: A new name.
            folder: Where they are, as the servers see it.

        Raises:
            ServerError: A server cannot load them, or none is up.
        """
        self._use(Version(name, folder, whole=False))

    def use_weights(self, name: str, folder: str) -> None:
        """Have all further requests, whoever makes them, answered with other weights of the same model.

        The servers end what is under way, and forget what they have computed. One that is started anew later is given
        the weights again. They stay when the engine is closed.

        Args:
            name: A new name.
            folder: Where they are, as the servers see it: safetensors, named as in the model's published checkpoint.

        Raises:
            ServerError: A server cannot load them, or none is up.
        """
        self._use(Version(name, folder, whole=True))

    def _use(self, version: Version) -> None:
        self.check_process()
        self._client.wait(self._client.use(version))

    def weights_changed(self) -> None:
        """Nothing is kept here of any weights, and a server keeps what it has computed under their name."""

    @property
    def fingerprint(self) -> str:
        """What tells the served model from others: the name that the servers have for it, not its weights."""
        version = self._client.replicas.version
        said = f"{self._model} {version.name if version else ''}"
        return hashlib.sha256(said.encode()).hexdigest()

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and how the servers do; plain JSON."""
        client = self._client
        return {
            **client.counts,
            "live_runs": client.running,
            "servers": [
                {
                    "url": replica.url,
                    "model": replica.model,
                    "up": replica.introduced and not replica.rests,
                    "requests": replica.requests,
                    "audio": len(replica.names),
                    "trouble": replica.trouble,
                }
                for replica in client.replicas.all
            ],
        }
