"""Ask a recording a question: the whole agent behind one object.

    from echo_agent import EchoAgent

    with EchoAgent.from_pretrained("echo-nano") as agent:
        result = agent.ask("kitchen.flac", "What rings after the door?", ["a bell", "a phone"])
        print(result.answer, [(r.start, r.end) for r in result.relistens])

It owns a model, an engine and a store of recordings, and runs the listening graph on them. Any number of threads and
event loops may ask at once: the engine decodes whatever runs are waiting as one batch. A process that is forked from
this one loads a model of its own: threads do not come along. Times are seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self

from echo_agent.answers import check_question
from echo_agent.asked import AskOptions, Audio, Audios, opened, opened_all
from echo_agent.asking_tool import DESCRIPTION, asking_tool
from echo_agent.asking_tool import NAME as TOOL
from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.chat import ChatLALM
from echo_agent.controls import Control
from echo_agent.engine import TorchEngine, VLLMEngine
from echo_agent.engine.feature_files import FeatureFiles
from echo_agent.errors import QuestionError
from echo_agent.families.base import weights_hash
from echo_agent.families.loading import load_family
from echo_agent.families.understanding import Doubt, doubt
from echo_agent.folder import Folder
from echo_agent.graphs import ListeningContext, build_listening_graph, initial_state
from echo_agent.graphs.calls import MARGIN
from echo_agent.graphs.search import too_long
from echo_agent.isolation import Isolation
from echo_agent.one_run import Ask, Branches, Graph, OnEvent, arun, run
from echo_agent.results import EchoResult, RelistenRecord, not_understood, result_of
from echo_agent.shipped import DEFAULT
from echo_agent.stores import RecordingStore
from echo_agent.threads import Threads

__all__ = ["EchoAgent", "EchoResult", "RelistenRecord"]

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool
    from langgraph.checkpoint.base import BaseCheckpointSaver

    from echo_agent.families.base import Family

SILENT = "it is silent: nothing can be heard in it"
"""What is said of a recording beside an answer that was made of nothing."""
REPEATS = 3
"""So many repeats of the same words in a row are a loop: decoding ends there."""


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
        server: str | Sequence[str] = (),
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
            server: Address of a ``vllm serve`` that runs the model, or several; none runs it here.
            **engine: Settings of :class:`~echo_agent.engine.TorchEngine`, or with servers of
                :class:`~echo_agent.engine.VLLMEngine`.

        Raises:
            ServerError: No server answers, or one cannot be used.
        """
        self.family = family
        self.recordings = RecordingStore()
        self.engine: TorchEngine | VLLMEngine
        if server:
            if features is not None:
                raise QuestionError(
                    "features are kept where audio is encoded, which is on the server: leave them out"
                )
            self.engine = VLLMEngine(family, self.recordings, server, **engine)
        else:
            files = FeatureFiles(Path(features), family) if features is not None else None
            self.engine = TorchEngine(family, self.recordings, files=files, **engine)
        self.model = ChatLALM(self.engine, dialect=dialect)
        self.threads = Threads(checkpoints)
        self._load_seconds = load_seconds
        self._longest: float | None = None  # no recording is too long: it is searched
        self._graph = build_listening_graph()
        self._in_use: Counter[str] = Counter()
        self._lock = Lock()

    @classmethod
    def from_pretrained(
        cls,
        name: str = DEFAULT,
        device: str = "auto",
        dtype: str = "auto",
        *,
        server: str | Sequence[str] = (),
        quantise: str = "",
        device_map: str = "",
        **settings: Any,
    ) -> EchoAgent:
        """Load a model by name: ``echo-small``, ``echo-nano``, a hub id, or a folder.

        Args:
            name: What to load; ``echo-agent models`` lists what is known.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
            server: Where a ``vllm serve`` runs the model, such as ``http://localhost:8000``, or several addresses.
                Then only its tokenizer and configuration are loaded here.
            quantise: Hold the decoder in fewer bits: ``4bit``, ``8bit`` or ``int8``.
            device_map: Put weights that do not fit on the device into other memory: ``auto``.
            **settings: As for the class.

        Raises:
            ModelError: There is no such model, or it cannot be loaded.
            ServerError: No server answers, or one cannot be used.
        """
        began = time.perf_counter()
        family = load_family(
            name, device, dtype, weights=not server, quantise=quantise, device_map=device_map
        )
        return cls(family, load_seconds=time.perf_counter() - began, server=server, **settings)

    # --- asking -------------------------------------------------------------------------------------------------

    def ask(
        self,
        audio: Audios,
        question: str,
        choices: Sequence[str] | None = None,
        *,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> EchoResult:
        """Ask about a recording.

        A question that the model does not understand (echo-nano knows few words, echo-small English alone) is not put
        to it: the result says so (``not_understood``).

        Args:
            audio: A path, a pair of samples and their rate in Hz, or a :class:`~echo_agent.audio.recording.Recording`;
                or a list of these, where a question is about several.
            question: What to ask.
            choices: What to choose from, at least two; None for an open question. (echo-nano, which can give an open
                question nothing but sounds, is held to yes or no, or to a whole second, where that is what is asked.)
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
            EchoAgentError: This process was forked after the model was loaded.
        """
        self._check_process()
        recordings = opened_all(audio, self._longest)
        with self._held(recordings) as refs:
            ask = self._prepare(refs, question, choices, on_event, options)
            doubt = self._doubt(question, choices)
            if doubt is not None and not doubt.asked:
                return _noted(not_understood(self.family.name, doubt.note), recordings)
            if ask.thread is None:
                with Isolation() as isolation:
                    return _noted(self._run(self._graph, ask, isolation), recordings, doubt)
            with Isolation() as isolation, self.threads.saver(ask.thread) as saver:
                graph = build_listening_graph(checkpointer=saver)
                with self.threads.reading(ask.thread):
                    saved = graph.get_state(ask.config)
                return _noted(self._run(graph, ask, isolation, saved), recordings, doubt)

    async def aask(
        self,
        audio: Audios,
        question: str,
        choices: Sequence[str] | None = None,
        *,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> EchoResult:
        """The async twin of :meth:`ask`; runs that are awaited together are decoded as one batch."""
        self._check_process()
        recordings = await asyncio.to_thread(opened_all, audio, self._longest)
        with self._held(recordings) as refs:
            ask = self._prepare(refs, question, choices, on_event, options)
            doubt = await asyncio.to_thread(self._doubt, question, choices)
            if doubt is not None and not doubt.asked:
                return _noted(not_understood(self.family.name, doubt.note), recordings)
            with Isolation() as isolation:
                if ask.thread is None:
                    return _noted(await self._arun(self._graph, ask, isolation), recordings, doubt)
                async with self.threads.asaver(ask.thread) as saver:
                    graph = build_listening_graph(checkpointer=saver)
                    with self.threads.reading(ask.thread):
                        saved = await graph.aget_state(ask.config)
                    return _noted(await self._arun(graph, ask, isolation, saved), recordings, doubt)

    async def acontrols(
        self,
        audio: Audios,
        question: str,
        choices: Sequence[str] | None = None,
        *,
        controls: Sequence[Control],
        **options: Any,
    ) -> dict[Control, EchoResult]:
        """Ask about a recording under several controls; each result is that of :meth:`aask` with that ``control``.

        Until the policy first listens again they are one run, which is made once; where it never does, they stay one.
        Nothing keeps a question from the model here: what it makes of one is what is measured.

        Args:
            audio: As for :meth:`ask`, and so are ``question``, ``choices`` and ``options``, ``thread`` apart.
            question: What to ask.
            choices: What to choose from.
            controls: Under which conditions; at least one.
            **options: As for :meth:`ask`.
        """
        self._check_process()
        recordings = await asyncio.to_thread(opened_all, audio, self._longest)
        with self._held(recordings) as refs:
            asks = [
                self._prepare(refs, question, choices, None, options | {"control": control})
                for control in controls
            ]
            with Isolation():
                states = await self._branches.arun(asks)
            return {
                control: _noted(self._result(ask, state), recordings)
                for control, ask, state in zip(controls, asks, states, strict=True)
            }

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

    # --- in other people's agents -------------------------------------------------------------------------------

    def ref(self, audio: Audio) -> AudioRef:
        """Take a recording, for a graph or a message: the reference that stands for it there.

        Raises:
            RecordingError: It cannot be opened.
        """
        return self.recordings.add(opened(audio, self._longest))

    def graph(
        self,
        checkpointer: BaseCheckpointSaver[Any] | bool | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        interrupt_before_tool: bool = False,
        **options: Any,
    ) -> Graph:
        """The listening graph with this agent's model bound to it: a node for any graph.

        It asks as :meth:`ask` does. What it is asked about comes in messages, as ``audio_block(agent.ref(path))``, or
        in ``recordings``.

        Args:
            checkpointer: As for :func:`~echo_agent.graphs.build_listening_graph`.
            folder: ``recordings`` may name files in it, and none outside; without it, they are references.
            interrupt_before_tool: Stop before each call is answered, for a person to decide.
            **options: As for :meth:`ask`, ``thread`` and ``run`` apart: a graph has them in its own ways.

        Raises:
            QuestionError: An option is unusable.
            RecordingError: There is no such folder.
        """
        settings = AskOptions.read(options)
        if stated := sorted({"thread", "run"} & options.keys()):
            raise QuestionError(f"{stated[0]}: a graph takes it from its state or its configuration")
        named = None if folder is None else Folder(folder)
        context = replace(self._context(settings), folder=named, implied=True)
        return build_listening_graph(context, checkpointer, interrupt_before_tool=interrupt_before_tool)

    def as_tool(
        self,
        folder: str | os.PathLike[str],
        *,
        name: str = TOOL,
        description: str = DESCRIPTION,
        **options: Any,
    ) -> BaseTool:
        """The tool ``ask_recording(path, question, choices=None, max_relistens=None)`` for agents that cannot hear.

        It answers with the answer and the spans that were heard again, and with the whole :class:`EchoResult` as plain
        JSON in the message's artifact. A run is no part of the graph around it: that graph's checkpointer and its limit
        of steps are not the run's.

        Args:
            folder: ``path`` is the name of a file in it; nothing outside is opened.
            name: What the tool is called, where an agent has several.
            description: What the model that calls it is told about it.
            **options: As for :meth:`ask`; what a call names itself comes first.

        Raises:
            RecordingError: There is no such folder.
            QuestionError: An option is unusable.
        """
        AskOptions.read(options)
        tool = asking_tool(self.ask, self.aask, folder, options)
        return tool.model_copy(update={"name": name, "description": description})

    # --- one run ------------------------------------------------------------------------------------------------

    def _check_process(self) -> None:
        """Refuse a process that was forked after the model was loaded; raises EchoAgentError there."""
        self.engine.check_process()

    def _context(self, settings: AskOptions, *, stream_tokens: bool = True) -> ListeningContext:
        """What runs with these settings need."""
        return ListeningContext(
            model=self.model,
            recordings=self.recordings,
            budget=settings.budget(),
            control=settings.control if settings.relisten else "off",
            gold_spans=settings.gold_spans,
            seed=settings.seed,
            temperature=settings.temperature,
            top_p=settings.top_p,
            guided=settings.guided,
            stream_tokens=stream_tokens,
            options={"max_repeats": REPEATS},
        )

    def _prepare(
        self,
        refs: Sequence[AudioRef],
        question: str,
        choices: Sequence[str] | None,
        on_event: OnEvent | None,
        options: dict[str, Any],
    ) -> Ask:
        """Check everything that can be checked before the model runs."""
        settings = AskOptions.read(options)
        check_question(question, choices)
        implied = self.family.implied_choices(question, refs) if choices is None else None
        choices = implied or choices
        state = initial_state(question, refs, choices, run=settings.run)
        context = self._context(settings, stream_tokens=on_event is not None)
        if too_long(refs, self.family) and not self.family.streams:  # what will be asked is not known yet
            return Ask(state, context, settings.thread, on_event, bool(implied))
        head = self.model.head(refs, question, choices)
        needed = len(head.ids) + context.budget.answer_tokens + MARGIN
        if needed >= self.family.context_length:
            raise QuestionError(
                f"the question ({len(question)} characters) and its recording take {len(head.ids)} tokens; "
                f"{self.family.name} holds {self.family.context_length}, the answer included: shorten the question"
            )
        return Ask(state, context, settings.thread, on_event, bool(implied))

    def _doubt(self, question: str, choices: Sequence[str] | None) -> Doubt | None:
        """What the model does not understand of a question."""
        return doubt(self.family.name, self.family.kind, question, choices)

    def _run(self, graph: Graph, ask: Ask, isolation: Isolation, saved: Any = None) -> EchoResult:
        given, done = self.threads.begin(ask.thread, ask.state, ask.context.settings(), saved)
        return self._result(ask, run(graph, given, ask, isolation) if done is None else done)

    async def _arun(self, graph: Graph, ask: Ask, isolation: Isolation, saved: Any = None) -> EchoResult:
        given, done = self.threads.begin(ask.thread, ask.state, ask.context.settings(), saved)
        return self._result(ask, await arun(graph, given, ask, isolation) if done is None else done)

    def _result(self, ask: Ask, done: Any) -> EchoResult:
        """What came of a run; an answer is none of the caller's choices where the caller gave none."""
        result = result_of(done, self.family, self._load_seconds)
        return result.model_copy(update={"choice_index": None}) if ask.implied else result

    @cached_property
    def _branches(self) -> Branches:
        """What runs one question under several controls."""
        return Branches()

    # --- recordings --------------------------------------------------------------------------------------------

    @contextmanager
    def _held(self, recordings: Sequence[Recording]) -> Iterator[list[AudioRef]]:
        """The references to recordings; samples in memory are let go of when the last run that uses them ends."""
        with self._lock:
            refs = [self.recordings.add(recording) for recording in recordings]
            self._in_use.update(ref.sha256 for ref in refs)
        try:
            yield refs
        finally:
            with self._lock:
                for ref in refs:
                    self._in_use[ref.sha256] -= 1
                    if not self._in_use[ref.sha256]:
                        del self._in_use[ref.sha256]
                        if ref.in_memory:
                            self.recordings.discard(ref)

    # --- the rest -----------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Name and a hash of the weights (of a few hundred values of each tensor), to tell one model from another.

        Of a model on a server, whose weights cannot be seen, the name that it has there is hashed.
        """
        if isinstance(self.engine, VLLMEngine):
            weights = self.engine.fingerprint
        else:
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


def _noted(result: EchoResult, recordings: Sequence[Recording], doubt: Doubt | None = None) -> EchoResult:
    """The result, with what speaks against the question, and what was found about the recordings."""
    several = len(recordings) > 1
    result.notes += () if doubt is None else (doubt.note,)
    result.notes += tuple(
        f"{recording.name}: {note}" if several else note
        for recording in recordings
        for note in (*recording.notes, *((SILENT,) if recording.is_silent else ()))
    )
    if result.search is not None:
        result.notes += result.search.notes(result.model)
    return result
