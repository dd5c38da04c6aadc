"""JAMS: annotations of a recording as JSON, in and out.

Humphrey et al., "JAMS: a JSON annotated music specification for reproducible MIR research", ISMIR 2014; the schema of
version 0.3 is followed here without its package. Three namespaces hold events:

- ``scaper`` (Salamon et al., "Scaper: a library for soundscape synthesis and augmentation", WASPAA 2017): the value is
  an object with ``label``, ``role``, ``source_file``, ``snr`` and more. Foreground events are taken, with the
  observation's own time and duration: ``event_duration`` in the value is that before a time stretch. What a soundscape
  is mixed from is known, so its records are complete, and the labels it could have drawn are known to be absent.
- ``segment_open`` and ``tag_open``: the value is a label. A tag that lasts as long as the recording is a caption, since
  it does not say when. Whether all is marked is not known, so these records are not complete.

What is written is ``scaper``, so that tools for soundscapes read it. What a record or an event has beyond that stands
under ``echo_agent`` in the file's sandbox and in each value, and is read back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.audio import AudioFolder, bare, fit, length_of
from echo_agent.finetune.data.corpora.sourced import (
    END,
    Gathering,
    RowError,
    Sourced,
    check_end,
    make_event,
    make_record,
)
from echo_agent.finetune.data.corpora.texts import finite, near, read_text, speakable, write_text
from echo_agent.finetune.data.records import Event, Record
from echo_agent.paths import as_on_disk, walk_files
from echo_agent.text import parse_json

WHAT = "annotations in JAMS"
NAMESPACES = ("scaper", "segment_open", "tag_open")
OURS = "echo_agent"
VERSION = "0.3.4"

_EVENT = TypeAdapter(Event)


def read_jams(path: str | Path, audio: str | Path | None = None) -> Sourced:
    """Read one file, or all ``*.jams`` below a folder in order of their names.

    The audio has the name of the JAMS file and is next to it, or in ``audio``; or its path or name is in a
    sandbox, as scaper writes it.

    Raises:
        DataError: The file is not JAMS, or the folder has none, or a name could be either of two recordings. In a
            folder, single bad files are skipped.
    """
    path = Path(path)
    files = [file for file in walk_files(path) if file.suffix.lower() == ".jams"] if path.is_dir() else [path]
    if not files:
        raise DataError(f"there is no .jams file in {path}; name a JAMS file, or a folder of them")
    given = AudioFolder(audio) if audio else None
    beside: dict[Path, AudioFolder] = {}
    found = Gathering()
    for file in files:
        with found.row(str(file)):
            try:
                data = _load(file)
            except DataError as error:
                if file == path:
                    raise
                raise RowError("that are not JAMS", str(error)) from None
            name = file.name if file == path else file.relative_to(path).as_posix()
            folder = given or beside.setdefault(file.parent, AudioFolder(file.parent, below=False))
            found.add(_record(name[: -len(file.suffix)] if file.suffix else name, data, file, folder))
    return found.done()


def write_jams(path: str | Path, record: Record) -> None:
    """Write a record as a JAMS file; :func:`read_jams` gives the same record back.

    Raises:
        DataError: The file cannot be written.
    """
    path = Path(path)
    rest = record.model_dump(mode="json", exclude_defaults=True, exclude={"events", "duration"})
    rest["audio"] = near(record.audio, path.parent)
    annotation = {
        "namespace": "scaper",
        "annotation_metadata": {"corpus": record.corpus, "data_source": "echo-agent"},
        "data": [_observation(event) for event in record.events],
        "sandbox": {},
        "time": 0.0,
        "duration": record.duration,
    }
    data = {
        "annotations": [annotation],
        "file_metadata": {
            "title": bare(record.audio),
            "artist": "",
            "release": "",
            "duration": record.duration,
            "identifiers": {},
            "jams_version": VERSION,
        },
        "sandbox": {OURS: rest},
    }
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def _observation(event: Event) -> dict[str, Any]:
    """An event as scaper writes it, with all its fields added."""
    value = {
        "label": event.label,
        "event_time": event.onset,
        "event_duration": event.offset - event.onset,
        "role": "foreground",
        OURS: _EVENT.dump_python(event, mode="json", exclude_defaults=True),
    }
    return {"time": event.onset, "duration": event.offset - event.onset, "value": value, "confidence": 1.0}


def _load(path: Path) -> dict[str, Any]:
    """The object in a file; raises DataError where it is not one of JAMS."""
    try:
        data = parse_json(read_text(path, WHAT))
    except ValueError as error:
        raise DataError(f"{path} does not hold {WHAT}: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
        raise DataError(f'{path} does not hold {WHAT}: expected an object with a list of "annotations"')
    return data


def _record(name: str, data: dict[str, Any], path: Path, folder: AudioFolder) -> Record:
    """One file as a record; raises RowError."""
    ours = _dict(_dict(data.get("sandbox")).get(OURS))
    recording = _recording(name, ours, data, path, folder)
    duration = length_of(recording)
    stated = finite(_dict(data.get("file_metadata")).get("duration"))
    if ours and stated is not None and abs(stated - duration) <= END:
        duration = stated
    events: list[Event] = []
    captions: list[str] = []
    absent: set[str] = set()
    complete = True
    read = [part for part in data["annotations"] if _dict(part).get("namespace") in NAMESPACES]
    if not read:
        raise RowError("without events", f"no annotation of {', '.join(NAMESPACES)}")
    for part in read:
        if part["namespace"] == "scaper":
            mix = _dict(_dict(part.get("sandbox")).get("scaper"))
            events += _soundscape(part, mix)
            absent |= _drawn(mix) - _backgrounds(part)
            continue
        complete = False
        for onset, length, value in _observations(part):
            if not isinstance(value, str) or not value.strip():
                raise RowError("with a label that is no text", repr(value)[:80])
            if part["namespace"] == "tag_open" and onset == 0 and (length == 0 or length >= duration - END):
                captions.append(value.strip())
            else:
                events.append(
                    make_event(label=speakable(value), kind="sound", onset=onset, offset=onset + length)
                )
    heard = {event.label for event in events}
    known = {
        "id": name,
        "labels": tuple(sorted(absent | heard)) if complete and absent else (),
        "complete": complete,
        "captions": tuple(dict.fromkeys(captions)),
        "corpus": "jams",
    }
    if ours:
        check_end(events, duration)
    return make_record(
        **{**known, **(_defaults(ours) if ours else {})},
        audio=str(recording),
        duration=duration,
        events=events if ours else fit(events, duration),
    )


def _defaults(ours: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record of ours: what is not written has its default, whatever other annotations say."""
    plain = {"labels": (), "complete": True, "captions": (), "corpus": ""}
    return plain | {key: value for key, value in ours.items() if key not in ("audio", "duration", "events")}


def _recording(
    name: str, ours: dict[str, Any], data: dict[str, Any], path: Path, folder: AudioFolder
) -> Path:
    """The recording that a file is about; raises RowError where there is none."""
    named = [ours.get("audio"), _dict(data.get("sandbox")).get("content_path")]
    for part in data["annotations"]:
        mix = _dict(_dict(_dict(part).get("sandbox")).get("scaper"))
        named += [mix.get("soundscape_audio_path"), mix.get("audio_path")]
    stated = [text for text in named if isinstance(text, str) and text]
    if ours and (found := _there(path.parent / str(ours.get("audio")))):
        return found
    try:
        return folder.find(name, path.stem)
    except RowError:
        for text in stated:
            if found := _there(path.parent / text):
                return found
        return folder.find(path.stem, *stated)


def _there(path: Path) -> Path | None:
    """The file at a path, however its accents are written; None where there is none."""
    try:
        path = as_on_disk(path)
        return Path(os.path.abspath(path)) if path.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        return None


def _soundscape(part: dict[str, Any], mix: dict[str, Any]) -> list[Event]:
    """The foreground events of a scaper annotation."""
    events = []
    for onset, length, value in _observations(part):
        if not isinstance(value, dict) or not isinstance(value.get("label"), str):
            raise RowError("with a label that is no text", repr(value)[:80])
        if value.get("role") == "background":
            continue
        if OURS in value:
            events.append(_ours(_dict(value[OURS]) | {"label": value["label"]}, onset, onset + length))
            continue
        source = value.get("source_file")
        events.append(
            make_event(
                label=speakable(value["label"]),
                kind="sound",
                onset=onset,
                offset=onset + length,
                sources=(source,) if isinstance(source, str) and source else (),
                level_db=_level(mix.get("ref_db"), value.get("snr")),
            )
        )
    return events


def _ours(fields: dict[str, Any], onset: float, offset: float) -> Event:
    """An event that was written here; where it was moved or renamed since, that holds."""
    for key, time in (("onset", onset), ("offset", offset)):
        stated = finite(fields.get(key))
        if stated is None or abs(stated - time) > 1e-6:
            fields = fields | {key: time}
    return make_event(**fields)


def _level(background: object, snr: object) -> float | None:
    """Loudness of an event from its level in dB over the background, where both are known."""
    base, over = finite(background), finite(snr)
    return None if base is None or over is None else finite(base + over)


def _drawn(mix: dict[str, Any]) -> set[str]:
    """Labels that the events of a soundscape were drawn from."""
    labels = mix.get("fg_labels")
    return (
        {speakable(label) for label in labels if isinstance(label, str)}
        if isinstance(labels, list)
        else set()
    )


def _backgrounds(part: dict[str, Any]) -> set[str]:
    """Labels of what fills the background of a soundscape."""
    values = [_dict(value) for _, _, value in _observations(part)]
    return {speakable(str(value.get("label"))) for value in values if value.get("role") == "background"}


def _observations(part: dict[str, Any]) -> Iterator[tuple[float, float, Any]]:
    """Time, duration and value of each observation; raises RowError where they are not such."""
    data = part.get("data")
    if not isinstance(data, list):
        raise RowError("with observations that are not a list", str(part.get("namespace")))
    for seen in data:
        time, length = (finite(_dict(seen).get(key)) for key in ("time", "duration"))
        if time is None or length is None:
            raise RowError("with a time that is no number", repr(seen)[:80])
        yield time, length, seen.get("value")


def _dict(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
