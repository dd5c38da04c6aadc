"""Ask a recording a question: the whole agent behind one object.

    from echo_agent import EchoAgent

    with EchoAgent.from_pretrained("echo-nano") as agent:
        result = agent.ask("kitchen.flac", "What rings after the door?", ["a bell", "a phone"])
        print(result.answer, [(r.start, r.end) for r in result.relistens])

It owns a model, an engine and a store of recordings, and runs the listening graph on them. Any number of threads and
event loops may ask at once: the engine decodes whatever runs are waiting as one batch. Times are seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine
from echo_agent.errors import QuestionError
from echo_agent.families.base import weights_hash
from echo_agent.families.loading import EMBEDDED, load_family
from echo_agent.feature_files import FeatureFiles
from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state
from echo_agent.graphs.calls import MARGIN
from echo_agent.graphs.state import Control
from echo_agent.recording import AudioRef, Recording
from echo_agent.results import EchoResult, RelistenRecord, result_of
from echo_agent.stores import RecordingStore
from echo_agent.threads import Threads

__all__ = ["EchoAgent", "EchoResult", "RelistenRecord"]

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from langgraph.graph.state import CompiledStateGraph

    from echo_agent.families.base import Family

Audio = str | os.PathLike[str] | tuple[Any, int] | Recording
"""What can be asked about: a path, samples with their rate in Hz, or an open recording."""

OnEvent = Callable[[dict[str, Any]], None]
"""Takes the events of a run as they happen: see :mod:`echo_agent.graphs.listening`."""


@dataclass(frozen=True)
class _Ask:
    """One question, checked."""

    state: dict[str, Any]
    context: ListeningContext
    thread: str | None
    on_event: OnEvent | None


class EchoAgent:
    """A model that listens again before it answers; see the module."""

    def __init__(
        self,
        family: Family,
        *,
        dialect: str | None = None,
        checkpoints: str | os.PathLike[str] | None = None,
        features: str | os.PathLike[str] | None = None,
        load_seconds: float = 0.0,
        **engine: Any,
    ) -> None:
        """Make an agent of a loaded model.

        Args:
            family: The model.
            dialect: ``inline`` or ``turns``; the family's own by default.
            checkpoints: SQLite file that threads are kept in; ``threads.sqlite`` in ``$ECHO_AGENT_HOME`` or in
                ``~/.echo-agent`` by default. It is made when the first thread is named.
            features: Folder in which what the encoder makes of whole recordings is kept, for whatever asks about the
                same recordings later with the same encoder; nowhere by default.
            load_seconds: How long loading the model took, for the results.
            **engine: Settings of :class:`~echo_agent.engine.TorchEngine`.
        """
        self.family = family
        self.recordings = RecordingStore()
        files = FeatureFiles(Path(features), family) if features is not None else None
        self.engine = TorchEngine(family, self.recordings, files=files, **engine)
        self.model = ChatLALM(self.engine, dialect=dialect)
        self.threads = Threads(checkpoints)
        self._load_seconds = load_seconds
        self._graph = build_listening_graph()
        self._in_use: Counter[str] = Counter()
        self._lock = Lock()

    @classmethod
    def from_pretrained(
        cls, name: str = EMBEDDED, device: str = "auto", dtype: str = "auto", **settings: Any
    ) -> EchoAgent:
        """Load a model by name: ``echo-nano``, a hub id, or a folder.

        Args:
            name: What to load; ``echo-agent models`` lists what is known.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
            **settings: As for the class.

        Raises:
            ModelError: There is no such model, or it cannot be loaded.
        """
        began = time.perf_counter()
        family = load_family(name, device, dtype)
        return cls(family, load_seconds=time.perf_counter() - began, **settings)

    # --- asking -------------------------------------------------------------------------------------------------

    def ask(
        self,
        audio: Audio,
        question: str,
        choices: Sequence[str] | None = None,
        *,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> EchoResult:
        """Ask about a recording.

        Args:
            audio: A path, a pair of samples and their rate in Hz, or a :class:`~echo_agent.recording.Recording`.
            question: What to ask.
            choices: What to choose from, at least two; None for an open question.
            on_event: Takes pieces of text, re-listens and the answer as they happen.
            **options: Any of

                - ``max_relistens`` (8), ``max_seconds`` (None), ``max_new_tokens`` (1024): the budget;
                - ``relisten`` (True): False answers from the first listen alone (the control ``off``);
                - ``temperature`` (0, greedy), ``top_p`` (1), ``seed`` (0), ``run`` (0): sampling. Runs of one seed need
                  numbers of their own to differ;
                - ``guided`` (True): with choices, nothing else may be written as the answer; False leaves the policy
                  free;
                - ``control`` (``on``), ``gold_spans``: see :class:`~echo_agent.graphs.ListeningContext`;
                - ``thread``: a name under which every step is saved. Asked again with the same name, question and
                  settings, a run that was stopped goes on, and one that ended gives its result again.

        Raises:
            QuestionError: Question, choices or an option are unusable, or the thread belongs to another question.
            RecordingError: The recording cannot be opened or heard.
        """
        with self._held(_recording(audio)) as refs:
            ask = self._prepare(refs, question, choices, on_event, options)
            if ask.thread is None:
                return self._run(self._graph, ask, {})
            with self.threads.saver(ask.thread) as saver:
                graph = build_listening_graph(checkpointer=saver)
                return self._run(graph, ask, _config(ask.thread), graph.get_state(_config(ask.thread)))

    async def aask(
        self,
        audio: Audio,
        question: str,
        choices: Sequence[str] | None = None,
        *,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> EchoResult:
        """The async twin of :meth:`ask`; runs that are awaited together are decoded as one batch."""
        recording = await asyncio.to_thread(_recording, audio)
        with self._held(recording) as refs:
            ask = self._prepare(refs, question, choices, on_event, options)
            if ask.thread is None:
                return await self._arun(self._graph, ask, {})
            async with self.threads.asaver(ask.thread) as saver:
                graph = build_listening_graph(checkpointer=saver)
                return await self._arun(
                    graph, ask, _config(ask.thread), await graph.aget_state(_config(ask.thread))
                )

    def batch(
        self, asks: Iterable[Mapping[str, Any]], *, concurrency: int = 32, **shared: Any
    ) -> list[EchoResult]:
        """Ask many questions at once; see :meth:`abatch`."""
        numbered = [{"run": i, **shared, **ask} for i, ask in enumerate(asks)]
        if not numbered:
            return []
        with ThreadPoolExecutor(min(concurrency, len(numbered)), thread_name_prefix="echo-agent-ask") as pool:
            return list(pool.map(lambda ask: self.ask(**ask), numbered))

    async def abatch(
        self, asks: Iterable[Mapping[str, Any]], *, concurrency: int = 32, **shared: Any
    ) -> list[EchoResult]:
        """Ask many questions at once.

        Args:
            asks: Arguments of :meth:`ask`, one mapping per question. Each run gets its place in the list as its
                ``run`` number, so equal questions are sampled differently; ``ask`` with that number gives the same.
            concurrency: Most runs at once.
            **shared: Arguments for all of them.

        Returns:
            Results, in order. The first error ends the batch.
        """
        gate = asyncio.Semaphore(concurrency)

        async def one(ask: dict[str, Any]) -> EchoResult:
            async with gate:
                return await self.aask(**ask)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one({"run": i, **shared, **ask})) for i, ask in enumerate(asks)]
        return [task.result() for task in tasks]

    # --- one run ------------------------------------------------------------------------------------------------

    def _prepare(
        self,
        refs: Sequence[AudioRef],
        question: str,
        choices: Sequence[str] | None,
        on_event: OnEvent | None,
        options: dict[str, Any],
    ) -> _Ask:
        """Check everything that can be checked before the model runs."""
        settings = _Options.read(options)
        state = initial_state(question, refs, choices, run=settings.run)
        context = ListeningContext(
            model=self.model,
            recordings=self.recordings,
            budget=settings.budget(),
            control=settings.control if settings.relisten else "off",
            gold_spans=settings.gold_spans,
            seed=settings.seed,
            temperature=settings.temperature,
            top_p=settings.top_p,
            guided=settings.guided,
            stream_tokens=on_event is not None,
        )
        head, _ = self.family.render(self.model.dialect.head(self.family, refs, question, choices))
        needed = len(head) + context.budget.answer_tokens + MARGIN
        if needed >= self.family.context_length:
            raise QuestionError(
                f"the question ({len(question)} characters) and its recording take {len(head)} tokens; "
                f"{self.family.name} holds {self.family.context_length}, the answer included: shorten the question"
            )
        return _Ask(state, context, settings.thread, on_event)

    def _run(
        self,
        graph: CompiledStateGraph[Any, Any, Any, Any],
        ask: _Ask,
        config: RunnableConfig,
        saved: Any = None,
    ) -> EchoResult:
        given, done = self.threads.begin(ask.thread, ask.state, ask.context.settings(), saved)
        if done is None:
            arguments: dict[str, Any] = {"context": ask.context} | _durability(ask)
            if ask.on_event is None:
                done = graph.invoke(given, config, **arguments)
            else:
                stream: Any = graph.stream(given, config, stream_mode=["custom", "values"], **arguments)
                with closing(
                    stream
                ) as events:  # an error of the caller's ends the run, and not some time later
                    for mode, data in events:
                        if mode == "custom":
                            ask.on_event(data)
                        else:
                            done = data
        return result_of(done, self.family.name, self._load_seconds)

    async def _arun(
        self,
        graph: CompiledStateGraph[Any, Any, Any, Any],
        ask: _Ask,
        config: RunnableConfig,
        saved: Any = None,
    ) -> EchoResult:
        given, done = self.threads.begin(ask.thread, ask.state, ask.context.settings(), saved)
        if done is None:
            arguments: dict[str, Any] = {"context": ask.context} | _durability(ask)
            if ask.on_event is None:
                done = await graph.ainvoke(given, config, **arguments)
            else:
                stream: Any = graph.astream(given, config, stream_mode=["custom", "values"], **arguments)
                async with aclosing(stream) as events:
                    async for mode, data in events:
                        if mode == "custom":
                            ask.on_event(data)
                        else:
                            done = data
        return result_of(done, self.family.name, self._load_seconds)

    # --- recordings --------------------------------------------------------------------------------------------

    @contextmanager
    def _held(self, recording: Recording) -> Iterator[list[AudioRef]]:
        """The reference to a recording; samples in memory are let go of when the last run that uses them ends."""
        with self._lock:
            ref = self.recordings.add(recording)
            self._in_use[ref.sha256] += 1
        try:
            yield [ref]
        finally:
            with self._lock:
                self._in_use[ref.sha256] -= 1
                if not self._in_use[ref.sha256]:
                    del self._in_use[ref.sha256]
                    if ref.in_memory:
                        self.recordings.discard(ref)

    # --- the rest -----------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Name and a hash of the weights (of a few hundred values of each tensor), to tell one model from another."""
        weights = weights_hash(self.family.model.state_dict())
        digest = hashlib.sha256(f"{self.model.dialect.name} {weights}".encode())
        return f"{self.family.name}@{digest.hexdigest()[:12]}"

    def close(self) -> None:
        """End the engine; runs that have not ended fail."""
        self.engine.close()

    def __enter__(self) -> Self:
        """The agent itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close it."""
        self.close()


class _Options(BaseModel):
    """Options of :meth:`EchoAgent.ask`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_relistens: int = Field(default=8, ge=0)
    max_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_new_tokens: int = Field(default=1024, ge=1)
    relisten: bool = True
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    run: int = 0
    guided: bool = True
    control: Control = "on"
    gold_spans: tuple[tuple[float, float], ...] = ()
    thread: str | None = Field(default=None, min_length=1)

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> _Options:
        """Check options; raises QuestionError naming the first that is wrong."""
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                raise QuestionError(
                    f"there is no option {name!r}; there are {', '.join(cls.model_fields)}"
                ) from error
            raise QuestionError(f"{name}={options.get(name)!r}: {first['msg']}") from error

    def budget(self) -> Budget:
        """The budget of the run."""
        return Budget(
            max_relistens=self.max_relistens, max_seconds=self.max_seconds, max_new_tokens=self.max_new_tokens
        )


def _recording(audio: Any) -> Recording:
    """Open what was given, and hash it: both read the file, which must not happen in an event loop."""
    if isinstance(audio, tuple) and len(audio) == 2:
        return Recording.from_array(*audio)
    if not isinstance(audio, Recording | str | os.PathLike):
        raise QuestionError(
            f"audio must be a path, a pair (samples, rate) or a Recording, not {type(audio).__name__}: "
            "samples alone do not say at which rate they were taken"
        )
    recording = audio if isinstance(audio, Recording) else Recording.open(audio)
    recording.ref()
    return recording


def _config(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}}


def _durability(ask: _Ask) -> dict[str, Any]:
    """Every step is on disk before the next begins."""
    return {} if ask.thread is None else {"durability": "sync"}
