"""Plain JSON lines: one record per line, as people write them by hand and as this package writes them.

    {"audio": "kitchen.wav", "events": [{"label": "dog", "onset": 1.2, "offset": 2.0}]}

Keys are those of :class:`Record`. Audio is relative to the file; ``duration`` is read from the audio where it is left
out, ``id`` is the path without its ending, and the ``kind`` of an event is ``sound``. A key that a record does not have
is a mistake, not an extra, so that a typing error does not lose events silently. Labels are kept as they are written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from echo_agent.finetune.data.corpora.audio import length_of, plain
from echo_agent.finetune.data.corpora.sourced import (
    END,
    Gathering,
    RowError,
    Sourced,
    check_end,
    make_event,
    make_record,
)
from echo_agent.finetune.data.corpora.texts import finite, json_lines, json_object, near, write_text
from echo_agent.finetune.data.records import Event, Record
from echo_agent.paths import as_on_disk

WHAT = "a file of records (JSON lines)"


def read_jsonl(path: str | Path) -> Sourced:
    """Read the records of a file; their audio comes out as absolute paths.

    Raises:
        DataError: The file cannot be read, or holds no record at all.
    """
    path = Path(path)
    found = Gathering()
    for number, line in json_lines(path, WHAT, "audio"):
        with found.row(f"{path}:{number}"):
            found.add(_record(json_object(line), path.parent))
    return found.done()


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Write records as JSON lines, in order; what has its default is left out.

    Reading them gives the same records: audio below the file's folder is written relative to it.

    Raises:
        DataError: The file cannot be written.
    """
    path = Path(path)
    lines = []
    for record in records:
        data = record.model_dump(mode="json", exclude_defaults=True)
        data["audio"] = near(record.audio, path.parent)
        lines.append(json.dumps(data, ensure_ascii=False))
    write_text(path, "".join(f"{line}\n" for line in lines))


def _record(data: dict[str, Any], folder: Path) -> Record:
    """One line as a record; raises RowError."""
    name = data.get("audio")
    if not isinstance(name, str) or not name:
        raise RowError("that name no audio")
    audio = as_on_disk(Path(os.path.abspath(folder / name)))
    length = length_of(audio)
    duration = finite(data.get("duration", length))
    if duration is None or abs(duration - length) > END:
        said = repr(data["duration"])[:80]
        raise RowError("with a duration that is not that of the audio", f"{said}, but it has {length:g} s")
    events = data.get("events", [])
    if not isinstance(events, list):
        raise RowError("with values that do not fit", "events: a list is expected")
    made = [_event(event) for event in events]
    check_end(made, duration)
    return make_record(
        **{"id": plain(name), **data, "audio": str(audio), "duration": duration, "events": made}
    )


def _event(data: object) -> Event:
    """One event of a line; raises RowError."""
    if not isinstance(data, dict):
        raise RowError("with values that do not fit", f"events: an object is expected, not {data!r:.80}")
    return make_event(**{"kind": "sound", **data})
