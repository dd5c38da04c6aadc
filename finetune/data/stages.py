"""Stages: long work on many parts, resumable and parallel, whose output is one Parquet file that can be looked at.

A stage has a name, settings, and parts (names in order). Each part gives some rows and is written to a file of its own
as soon as it is done; when all are there, they are joined into ``<name>.parquet``. A file appears under its name only
when it is whole, so a kill at any point loses the part in work and nothing else. Running again resumes; running with
other settings, on other data or with another version of the program is refused, since half of one and half of another
is nothing that anybody asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from echo_agent.disk import GO_ON, whole, write_whole, writing
from echo_agent.errors import DataError
from echo_agent.text import parse_json

Rows = list[dict[str, Any]]
Work = Callable[[str], Rows]
"""Does one part; called in a worker, so it must be picklable where workers are processes."""
Progress = Callable[[int, int], None]
"""Told how many parts are done, and how many there are."""
Report = Callable[[str], None]
"""Told what is being done, line by line."""

SETTINGS = b"echo-agent"
"""Key of the settings in a Parquet file's metadata."""


def run_stage(
    folder: Path,
    name: str,
    parts: Sequence[str],
    work: Work,
    *,
    settings: Mapping[str, Any],
    workers: int = 1,
    pool: Literal["process", "thread"] = "process",
    progress: Progress | None = None,
) -> Path:
    """Do what is left of a stage; returns the path of ``<name>.parquet``.

    Args:
        folder: Of the build.
        name: Of the stage.
        parts: Names of the parts, in the order in which their rows are joined; letters, digits, ``-`` and ``_``.
        work: Makes the rows of one part; all parts' rows have the same keys.
        settings: What the output depends on, as JSON.
        workers: How many parts are worked on at once; 1 works in this thread.
        pool: Processes for what computes, threads for what waits for a network.
        progress: Called after each part, and once at the start.

    Raises:
        DataError: The stage was begun with other settings, or the disk is full; finished parts are kept.
        Exception: What ``work`` raises; parts that were done before stay done.
    """
    path = folder / f"{name}.parquet"
    begun = folder / f".{name}"
    mark = _mark(name, parts, settings)
    if path.exists():
        if stage_settings(path) != mark:
            raise DataError(
                f"{path} was made with other settings, of other data or by another version; "
                "remove it, or name another folder"
            )
        shutil.rmtree(begun, ignore_errors=True)  # the process may have ended between the file and the parts
        if progress:
            progress(len(parts), len(parts))
        return path
    with writing(path, GO_ON):
        begun.mkdir(parents=True, exist_ok=True)
        note = begun / "settings.json"
        if note.exists() and note.read_text() != mark:
            raise DataError(
                f"{folder}: the stage {name!r} was begun with other settings; "
                f"remove {begun}, or name another folder"
            )
        write_whole(note, mark.encode(), GO_ON)
    todo = [part for part in parts if not (begun / f"{part}.parquet").exists()]
    if progress:
        progress(len(parts) - len(todo), len(parts))
    for done, (part, rows) in enumerate(
        _results(todo, work, workers, pool), start=1 + len(parts) - len(todo)
    ):
        with writing(path, GO_ON):
            _write_rows(begun / f"{part}.parquet", rows)
        if progress:
            progress(done, len(parts))
    with writing(path, GO_ON):
        _write_rows(path, [row for part in parts for row in read_rows(begun / f"{part}.parquet")], mark)
    shutil.rmtree(begun)
    return path


def read_rows(path: Path) -> Rows:
    """The rows of a stage's file.

    Raises:
        DataError: It is none, or its column ``json`` is not one of JSON objects.
    """
    import pyarrow.parquet as parquet

    with _readable(path):
        rows = []
        for text in parquet.read_table(path, columns=["json"])["json"].to_pylist():
            row = parse_json(text)
            if not isinstance(row, dict):
                raise TypeError(f"a row is no JSON object but {text[:40]!r}")
            rows.append(row)
        return rows


def columns_of(path: Path) -> set[str]:
    """Names of the columns of a Parquet file; raises DataError where it is none."""
    import pyarrow.parquet as parquet

    with _readable(path):
        return set(parquet.read_schema(path).names)


def stage_settings(path: Path) -> str:
    """What a finished stage was made with; raises DataError where it is none."""
    import pyarrow.parquet as parquet

    with _readable(path):
        return (parquet.read_schema(path).metadata or {}).get(SETTINGS, b"").decode()


def content_hash(texts: Iterable[str]) -> str:
    """One hash for many texts, in their order: for settings that depend on a whole list."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in one line which file is none of a stage."""
    import pyarrow as arrow

    try:
        yield
    except (OSError, arrow.ArrowException, KeyError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read; remove it, and it is made again: {reason}") from error


def _mark(name: str, parts: Sequence[str], settings: Mapping[str, Any]) -> str:
    """One text for all that the output depends on, the program that makes it included."""
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    made_by = version("echo-agent")
    return json.dumps({"stage": name, "parts": digest, "version": made_by, **settings}, sort_keys=True)


def _results(todo: Sequence[str], work: Work, workers: int, pool: str) -> Iterator[tuple[str, Rows]]:
    """Parts with their rows as they are done; only a few more are begun than there are workers."""
    if workers <= 1:
        for part in todo:
            yield part, work(part)
        return
    executor: Executor = (
        ThreadPoolExecutor(workers)
        if pool == "thread"
        else ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    )
    left = iter(todo)
    running: dict[Future[Rows], str] = {}
    patient = True
    try:
        while True:
            for part in islice(left, 2 * workers - len(running)):
                running[executor.submit(work, part)] = part
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()
    except KeyboardInterrupt:
        patient = False  # the command ends, and its workers with it
        raise
    finally:
        executor.shutdown(wait=patient, cancel_futures=True)


def _end_with_parent() -> None:
    """In a worker: end when the process that gives it work has ended, in whatever way; it would wait for ever."""

    def watch(parent: Any) -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, args=(parent_process(),), daemon=True).start()


def _write_rows(path: Path, rows: Rows, mark: str = "") -> None:
    """Rows as Parquet: each whole as JSON, and its plain fields as columns, so that any reader shows them."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    plain = {key for row in rows for key, value in row.items() if isinstance(value, str | int | float)}
    columns: dict[str, Any] = {
        key: arrow.array([row.get(key) for row in rows]) for key in sorted(plain - {"json"})
    }
    columns["json"] = arrow.array([json.dumps(row) for row in rows], arrow.string())
    table = arrow.table(columns).replace_schema_metadata({SETTINGS: mark.encode()})
    with whole(path) as partial:
        parquet.write_table(table, partial)
