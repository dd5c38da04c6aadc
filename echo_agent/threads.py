"""Runs under a name: every step is saved in a SQLite file, so that a run that was stopped can go on."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from echo_agent.errors import QuestionError

HOME = "ECHO_AGENT_HOME"
"""Environment variable that names the folder of threads; ``~/.echo-agent`` without it."""


class Threads:
    """The file that threads are kept in; it is made when the first thread is named."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Keep threads in ``path``; by default in ``threads.sqlite`` in the folder that ``HOME`` names."""
        home = os.environ.get(HOME)
        folder = Path(home) if home else Path.home() / ".echo-agent"
        self.path = folder / "threads.sqlite" if path is None else Path(path)

    @contextmanager
    def saver(self, thread: str) -> Iterator[Any]:
        """A LangGraph saver for sync runs; raises QuestionError where the file cannot be used."""
        from langgraph.checkpoint.sqlite import SqliteSaver

        with self._checked(thread), SqliteSaver.from_conn_string(str(self.path)) as saver:
            yield saver

    @asynccontextmanager
    async def asaver(self, thread: str) -> AsyncIterator[Any]:
        """A LangGraph saver for async runs; raises QuestionError where the file cannot be used."""
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        with self._checked(thread):
            async with AsyncSqliteSaver.from_conn_string(str(self.path)) as saver:
                yield saver

    def begin(
        self, thread: str | None, given: dict[str, Any], settings: dict[str, Any], saved: Any
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Decide how to go on with a thread.

        Args:
            thread: Its name.
            given: The state in which this run would begin.
            settings: With what it would run.
            saved: The snapshot of the thread; None where nothing is saved.

        Returns:
            What goes into the graph (None to go on from what was saved), and the state of a run that has ended.

        Raises:
            QuestionError: The thread is that of another question, recording or settings.
        """
        values: Mapping[str, Any] = saved.values if saved is not None else {}
        if "question" not in values:
            return given, None
        wanted = given | {"settings": settings}
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

    @contextmanager
    def _checked(self, thread: str) -> Iterator[None]:
        """Errors of the file, in words."""
        problem: Exception
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = error
        else:
            try:
                yield
                return
            except sqlite3.Error as error:
                problem = error
        raise QuestionError(
            f"cannot keep the thread {thread!r} in {self.path}: {problem}; set {HOME} to a folder that can be written "
            "to, or give `checkpoints`"
        ) from problem
