"""``results.jsonl``: one line per row, control and seed, written as it goes, so that a killed evaluation resumes.

While questions are being asked, lines are in the order in which runs end. At the end they are put into the order of the
questions: evaluations that come to the same make the same file, broken off or not.

What a kill, a crash or a full disk left behind is mended: half a last line, and zeros where the disk never wrote what
it had made room for. The rows of such lines are asked again. A file that is none of results is never touched,
and one that another process writes to is left to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from echo_agent.controls import Condition
from echo_agent.disk import write_whole, writing
from echo_agent.errors import DataError
from echo_agent.locks import lock_output
from echo_agent.scores import Outcome

LINE_START = b'{"id":'
"""How each line of results begins: a torn line is known by it."""
ANOTHER = "name another file for --out"
Key = tuple[str, Condition, int]
"""Id of the question, control and seed: what tells one line from another."""
CONDITIONS = get_args(Condition)
GO_ON = "make room and run the same command again: what is there is not asked again"


class Results:
    """The outcomes of an evaluation, in memory and in a file."""

    def __init__(self, path: str | Path | None) -> None:
        """Open a file of results.

        Args:
            path: File to resume or to begin; None keeps them in memory only. What is no regular file (a pipe, a
                terminal) is written to and not read.

        Raises:
            DataError: The file is not one of results, is written to by another process, or cannot be written.
        """
        self.path = Path(path) if path is not None else None
        self.outcomes: dict[Key, Outcome] = {}
        self.dropped = 0
        """Lines that were damaged and are left out."""
        if self.path is None:
            return
        with writing(self._name, ANOTHER):
            self._lock = lock_output(self.path, str(self.path), "another file for --out")
            try:
                self._open(self.path)
            except BaseException:
                self._release()
                raise

    def _open(self, path: Path) -> None:
        self._size = self._mended(path) if path.is_file() else 0
        self._file = path.open("r+b" if path.is_file() else "wb", buffering=0)
        if path.is_file():
            self._file.truncate(self._size)
            self._file.seek(self._size)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def _name(self) -> str:
        return f"results to {self.path}"

    def _mended(self, path: Path) -> int:
        """Read the whole lines of a file, and leave nothing else in it before the end; returns where they end."""
        data = path.read_bytes()
        *lines, torn = data.split(b"\n")
        kept: list[bytes] = []
        for number, line in enumerate(lines, start=1):
            text = line.strip(b"\0")
            try:
                outcome = Outcome.model_validate_json(text)
            except ValidationError:
                if b"\0" not in line or not _begins(text):
                    raise DataError(f"{path}:{number}: not a line of results; {ANOTHER}") from None
                self.dropped += 1
                continue
            kept.append(text + b"\n")
            self.outcomes[key_of(outcome)] = outcome
        if not _begins(torn.strip(b"\0")) or _is_other(torn):
            raise DataError(f"{path} is not a file of results; {ANOTHER}")
        self.dropped += bool(torn)
        whole = b"".join(kept)
        if not data.startswith(whole):
            write_whole(path, whole)
        return len(whole)

    def has(self, key: Key, run: str) -> bool:
        """Whether this row has been run; raises DataError where it was, but with other settings."""
        known = self.outcomes.get(key)
        if known is not None and known.run != run:
            raise DataError(
                f"{self.path} holds results of another run (row {key[0]!r}: another question, recording, model, seed "
                f"or setting); {ANOTHER}, or remove this one"
            )
        return known is not None

    def add(self, outcome: Outcome) -> None:
        """Keep and write one outcome.

        Raises:
            DataError: It cannot be written; the file holds what was written before, and nothing else.
        """
        self.outcomes[key_of(outcome)] = outcome
        if self.path is None:
            return
        line = memoryview(line_of(outcome))
        with writing(self._name, GO_ON):
            try:
                written = 0
                while written < len(line):
                    written += self._file.write(line[written:])
            except OSError:
                with suppress(OSError):
                    self._file.truncate(self._size)
                raise
        self._size += len(line)

    def arrange(self) -> None:
        """Put the lines into the order of questions, controls and seeds.

        Raises:
            DataError: The file cannot be written; it holds the lines in the order in which they came.
        """
        arranged = in_order(self.outcomes.values())
        if arranged == list(self.outcomes.values()):
            return
        self.outcomes = {key_of(outcome): outcome for outcome in arranged}
        if self.path is None or not self.path.is_file():
            return
        self._file.close()
        try:
            write_whole(self.path, b"".join(map(line_of, arranged)), GO_ON)
        finally:
            self._file = self.path.open("r+b", buffering=0)
            self._size = self._file.seek(0, 2)

    def close(self) -> None:
        """Close the file."""
        if self.path is not None:
            self._file.close()
            self._release()


def key_of(outcome: Outcome) -> Key:
    """What tells one line from another."""
    return outcome.id, outcome.control, outcome.seed


def line_of(outcome: Outcome) -> bytes:
    """A line of the file."""
    return outcome.model_dump_json().encode() + b"\n"


def in_order(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Outcomes by question, control and seed."""
    return sorted(outcomes, key=lambda one: (one.line, one.id, CONDITIONS.index(one.control), one.seed))


def _is_other(torn: bytes) -> bool:
    """Whether a last line is a whole object, but none of results: a question whose line has no end, for one."""
    try:
        json.loads(torn)
        Outcome.model_validate_json(torn)
    except ValidationError:
        return True
    except (ValueError, RecursionError):
        return False
    return False


def _begins(text: bytes) -> bool:
    """Whether this can be the beginning of a line of results, which may be torn anywhere."""
    return text.startswith(LINE_START[: len(text)])
