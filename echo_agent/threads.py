"""Runs under a name: every step is saved in a SQLite file, so that a run that was stopped can go on.

One run at a time goes on with a thread. The file may have been made by somebody else: what is read from it is data,
from which no code is run, and is checked before it is used.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage
from pydantic import BaseModel, InstanceOf, ValidationError

from echo_agent.audio.references import AudioRef
from echo_agent.controls import Status
from echo_agent.errors import QuestionError
from echo_agent.graphs.search_record import SearchRecord
from echo_agent.graphs.serializer import checkpoint_serializer
from echo_agent.graphs.state import ListeningOutput, Spent
from echo_agent.locks import Lock, lock_entry

HOME = "ECHO_AGENT_HOME"
"""Environment variable that names the folder of what is kept between commands; ``~/.echo-agent`` without it."""


def home(what: str) -> Path:
    """The folder of what is kept between commands; raises QuestionError, naming ``what``, where this user has none."""
    if named := os.environ.get(HOME):
        return Path(named)
    try:
        return Path.home() / ".echo-agent"
    except RuntimeError:  # no HOME, and a user whom the system does not know
        raise QuestionError(
            f"there is no home folder to keep {what} in: set {HOME} to a folder that can be written to"
        ) from None


class Threads:
    """The file that threads are kept in; it is made when the first thread is named."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Keep threads in ``path``; by default in ``threads.sqlite`` in the folder that ``HOME`` names."""
        self._path = None if path is None else Path(path)

    @property
    def path(self) -> Path:
        """The file; raises QuestionError where none is named and this user has no home."""
        if self._path is not None:
            return self._path
        return home("threads") / "threads.sqlite"

    @contextmanager
    def saver(self, thread: str) -> Iterator[Any]:
        """A LangGraph saver for sync runs; raises QuestionError where the file cannot be used."""
        from langgraph.checkpoint.sqlite import SqliteSaver

        lock = self._lock(thread)
        try:
            with self._checked(thread), SqliteSaver.from_conn_string(str(self.path)) as saver:
                saver.serde = checkpoint_serializer()
                yield saver
        finally:
            lock.release()

    @asynccontextmanager
    async def asaver(self, thread: str) -> AsyncIterator[Any]:
        """A LangGraph saver for async runs; raises QuestionError where the file cannot be used."""
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        lock = await asyncio.to_thread(self._lock, thread)
        try:
            with self._checked(thread):
                async with AsyncSqliteSaver.from_conn_string(str(self.path)) as saver:
                    saver.serde = checkpoint_serializer()
                    yield saver
        finally:
            await asyncio.to_thread(lock.release)

    @contextmanager
    def reading(self, thread: str) -> Iterator[None]:
        """Raises QuestionError in place of what comes of reading a state that is none."""
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise self._no_thread(thread) from error

    def begin(
        self, thread: str | None, given: Mapping[str, Any], settings: dict[str, Any], saved: Any
    ) -> tuple[Mapping[str, Any] | None, dict[str, Any] | None]:
        """Decide how to go on with a thread.

        Args:
            thread: Its name.
            given: The state in which this run would begin.
            settings: With what it would run.
            saved: The snapshot of the thread; None where nothing is saved.

        Returns:
            What goes into the graph (None to go on from what was saved), and the state of a run that has ended.

        Raises:
            QuestionError: The thread is that of another question, recording or settings, or what is saved is no run.
        """
        values: Mapping[str, Any] = saved.values if saved is not None else {}
        if "question" not in values:
            return given, None
        self._check(str(thread), values)
        wanted = {**given, "settings": settings}
        other = [
            key
            for key in ("question", "choices", "run", "settings")
            if values.get(key, wanted[key]) != wanted[key]
        ]
        if [ref["sha256"] for ref in values["recordings"]] != [ref["sha256"] for ref in given["recordings"]]:
            other.append("recording")
        if other:
            raise QuestionError(
                f"the thread {thread!r} in {self.path} was begun with another {', '.join(other)}: "
                "ask the same again to go on with it, or name another thread"
            )
        return None, dict(values) if values.get("status") else None

    def _check(self, thread: str, values: Mapping[str, Any]) -> None:
        """Raises QuestionError where what is saved is not the state of a run."""
        ended = values.get("status") is not None
        try:
            _Saved.model_validate(values)
        except ValidationError as error:
            raise self._no_thread(thread) from error
        needed = set(ListeningOutput.__annotations__) - {"search"}  # runs of earlier versions have none
        if ended and not needed <= set(values):
            raise self._no_thread(thread)

    def _no_thread(self, thread: str) -> QuestionError:
        return QuestionError(
            f"the thread {thread!r} in {self.path} is damaged, or was not written by echo-agent: name another thread"
        )

    def _lock(self, thread: str) -> Lock:
        """Make the folder of the file, and keep others from the thread; raises QuestionError where that cannot be."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            name = f"the thread {thread!r} in {self.path}"
            return lock_entry(self.path, thread, name, "another thread")
        except OSError as error:
            raise self._cannot_keep(thread, error) from error

    @contextmanager
    def _checked(self, thread: str) -> Iterator[None]:
        """Errors of the file, in words."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._cannot_keep(thread, error) from error

    def _cannot_keep(self, thread: str, problem: Exception) -> QuestionError:
        return QuestionError(
            f"cannot keep the thread {thread!r} in {self.path}: {problem}; set {HOME} to a folder that can be written "
            "to, or give `checkpoints`"
        )


class _Saved(BaseModel):
    """What a run may have saved by any of its steps."""

    question: str
    choices: list[str] | None = None
    recordings: list[AudioRef]
    run: int = 0
    messages: list[InstanceOf[BaseMessage]] = []
    settings: dict[str, Any] = {}
    spent: Spent | None = None
    budget_exhausted: bool = False
    answer: str | None = None
    status: Status | None = None
    choice_index: int | None = None
    search: SearchRecord | None = None
