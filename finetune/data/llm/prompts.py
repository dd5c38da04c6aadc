"""Prompts: texts in files, filled in, and a record as a text that a language model reads.

Placeholders are those of :class:`string.Template` (``$questions``): records and examples hold braces. A prompt is known
by its name and a hash of its text, so that what was made with it can always be told from what another wording made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from echo_agent.errors import DataError
from echo_agent.finetune.data.records import Event, Record


@dataclass(frozen=True)
class Prompt:
    """A text with placeholders."""

    name: str
    text: str

    @property
    def version(self) -> str:
        """``compose@1f2e3d4c``: name and hash of the text."""
        return f"{self.name}@{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    def fill(self, **values: str) -> str:
        """The text with its placeholders replaced."""
        return Template(self.text).substitute(values)


def load_prompt(name: str, slots: Sequence[str] = (), folder: Path | None = None) -> Prompt:
    """Read a prompt.

    Args:
        name: ``compose``, ``describe-heard``, ...: the file's name without ``.txt``.
        slots: The placeholders that it will be filled with.
        folder: Where the caller's own prompts are; ours where it is None or has no such file.

    Raises:
        DataError: The file cannot be read, is empty, or has other placeholders.
    """
    own = folder / f"{name}.txt" if folder else None
    if own and own.exists():
        try:
            text = own.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the prompt {own}: {error}") from None
        if not text:
            raise DataError(f"the prompt {own} is empty; write one, or remove the file to use ours")
    else:
        path = files("echo_agent.finetune.data.llm").joinpath("templates", f"{name}.txt")
        text = path.read_text(encoding="utf-8").strip()
    template = Template(text)
    others = [slot for slot in template.get_identifiers() if slot not in slots]
    if others or not template.is_valid():
        known = ", ".join(f"${slot}" for slot in slots) or "no placeholders"
        what = f"${others[0]}" if others else "a $ that begins no placeholder"
        raise DataError(f"the prompt {own or name} holds {what}; it is filled with {known}. Write $$ for a $")
    return Prompt(name, text)


def record_text(record: Record, notes: Mapping[str, str] | None = None) -> str:
    """What is known of a recording, in lines.

    Args:
        record: The record.
        notes: What somebody who heard it wrote: ``heard``, ``said``, ``played``.
    """
    lines = [f"Length: {record.duration:g} s"]
    if record.events:
        marked = (
            "every event is marked" if record.complete else "other events may be heard that are not marked"
        )
        lines.append(f"Events in order, from start to end in seconds ({marked}):")
        lines += [f"- {event.onset:g} to {event.offset:g}: {_event_text(event)}" for event in record.events]
    heard = {event.label for event in record.events}
    absent = sorted(set(record.labels) - heard)
    if absent and record.complete:
        lines.append(f"Not heard anywhere: {', '.join(absent)}")
    if record.tempo is not None:
        lines.append(f"Tempo: {record.tempo:g} beats per minute")
    if record.key:
        lines.append(f"Key: {record.key}")
    lines += [f"Caption: {caption}" for caption in record.captions]
    lines += [f"What a listener noted as {key}: {note}" for key, note in (notes or {}).items() if note]
    return "\n".join(lines)


def _event_text(event: Event) -> str:
    """One event in a line."""
    details = [event.gender] if event.gender else []
    if event.kind in ("digits", "words") and event.content:
        details.append(f"says {' '.join(event.content)!r}")
    elif event.content:
        details.append(" ".join(event.content))
    if event.hits > 1:
        details.append(f"{event.hits} times")
    if event.pitches:
        details.append(f"MIDI pitches {' '.join(map(str, event.pitches))}")
    if event.level_db is not None:
        details.append(f"{event.level_db:g} dB")
    return ", ".join([event.label, *details])
