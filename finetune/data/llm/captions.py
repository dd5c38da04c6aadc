"""Descriptions: what a listening model hears in a recording, in its own words.

A model that the agent can drive is asked three open questions about every record: what is heard, what is said, what is
played. Its notes help a language model, which hears nothing, to ask about more than labels. What the model answers is
stored as it is; where it answers nothing that can be read, the field is empty and counted, never filled in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from echo_agent.errors import ContextError, QuestionError, RecordingError
from echo_agent.finetune.data.llm.prompts import load_prompt
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.stages import Progress, Rows, content_hash, read_rows, run_stage

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent

FIELDS = ("heard", "said", "played")
"""What is asked about; the prompts are ``describe-<field>.txt``."""


@dataclass(frozen=True)
class Descriptions:
    """What was written about a set of records."""

    notes: dict[str, dict[str, str]]
    """By record: ``heard``, ``said``, ``played``; empty where nothing could be read."""
    problems: dict[str, str]
    """Records that could not be heard, and why."""

    def report(self) -> str:
        """One line per kind of gap, with the first of those that could not be heard."""
        lines = [f"{len(self.notes)} records described"]
        for field in FIELDS:
            empty = sum(not notes[field] for name, notes in self.notes.items() if name not in self.problems)
            lines += [f"  {empty} without a readable answer to {field!r}"] * bool(empty)
        if self.problems:
            name, why = next(iter(self.problems.items()))
            lines.append(f"  {len(self.problems)} could not be heard (first: {name}: {why})")
        return "\n".join(lines)


def describe(
    records: Sequence[Record],
    folder: Path,
    agent: EchoAgent,
    *,
    home: Path | None = None,
    prompts: Path | None = None,
    max_new_tokens: int = 256,
    workers: int = 8,
    progress: Progress | None = None,
) -> Descriptions:
    """Describe records; resumes where it was stopped.

    Args:
        records: What to listen to.
        folder: Of the build; gets ``described.parquet``.
        agent: The model. Questions that wait at the same time are decoded as one batch.
        home: What the records' audio is relative to; ``folder`` where None.
        prompts: Folder of the caller's own ``describe-heard.txt``, ``describe-said.txt``, ``describe-played.txt``.
        max_new_tokens: Of each answer, listening again included.
        workers: Records at once.
        progress: Told how many records are done.

    Raises:
        DataError: A prompt cannot be used, the stage was begun with other settings, or the disk is full.
    """
    questions = {field: load_prompt(f"describe-{field}", folder=prompts) for field in FIELDS}
    parts = {f"{number:07d}": record for number, record in enumerate(records)}
    where = home or folder
    blank: dict[str, str] = dict.fromkeys(FIELDS, "")

    def work(part: str) -> Rows:
        record, row = parts[part], blank.copy()
        problem = ""
        try:
            for field, prompt in questions.items():
                result = agent.ask(where / record.audio, prompt.fill(), max_new_tokens=max_new_tokens)
                row[field] = result.answer or ""
        except (RecordingError, QuestionError, ContextError) as error:  # of this recording; the others go on
            row, problem = blank.copy(), str(error)
        return [{"record": record.id, **row, "problem": problem}]

    settings = {
        "model": agent.fingerprint,
        "prompts": [prompt.version for prompt in questions.values()],
        "tokens": max_new_tokens,
        "records": content_hash(record.model_dump_json() for record in records),
    }
    path = run_stage(
        folder,
        "described",
        list(parts),
        work,
        settings=settings,
        workers=workers,
        pool="thread",
        progress=progress,
    )
    return read_descriptions(path)


def read_descriptions(path: Path) -> Descriptions:
    """The descriptions of a finished stage; raises DataError where the file cannot be read."""
    rows = read_rows(path)
    return Descriptions(
        {row["record"]: {field: row[field] for field in FIELDS} for row in rows},
        {row["record"]: row["problem"] for row in rows if row["problem"]},
    )
