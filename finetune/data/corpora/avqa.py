"""AVQA: questions with four choices about short videos, without times.

Yang et al., "AVQA: a dataset for audio-visual question answering on videos", ACM Multimedia 2022; ``train_qa.json`` and
``val_qa.json`` are JSON lists whose entries have ``id``, ``video_name`` (video id and start in seconds,
``-HG3Omg_89c_000030``), ``question_text``, ``multi_choice``, ``answer`` (its index), ``question_relation`` (``Sound``,
``View`` or ``Both``) and ``question_type``. The clips are VGGSound's; the audio belongs to the makers of the videos.

Questions that AVQA itself calls visual are left out. What remains may still need the picture, or neither picture nor
sound: it is material for the stages that check that. The word "video" becomes "recording".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.audio import AudioFolder, length_of
from echo_agent.finetune.data.corpora.sourced import Gathering, RowError, Sourced, make_record, reasons
from echo_agent.finetune.data.corpora.texts import read_text
from echo_agent.finetune.data.records import Asked, Split
from echo_agent.text import parse_json

WHAT = "a list of AVQA's questions (JSON)"
KEYS = ("video_name", "question_text", "multi_choice", "answer")
LICENCE = "the audio belongs to the makers of the videos"

_CLIP = re.compile(r"(.{11})_\d{6}")


def read_avqa(path: str | Path, audio: str | Path, *, split: Split | None = None) -> Sourced:
    """Read questions, one record for each video, and find the videos' audio.

    Extract the audio beforehand: films are read, but each is decoded as a whole to learn its length.

    Args:
        path: The JSON file.
        audio: Folder of recordings named after the videos; folders in it are searched too.
        split: Which split the file is.

    Raises:
        DataError: It is another file, or there is no audio folder.
    """
    path = Path(path)
    entries = _entries(path)
    folder = AudioFolder(audio)
    found = Gathering()
    videos: dict[str, list[Asked]] = {}
    places: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        with found.row(where):
            name, asked = _asked(entry)
            folder.find(name)
            asks = videos.setdefault(name, [])
            places.setdefault(name, where)
            if asked in asks:
                found.merge("with a question that is asked already", asked.question)
            else:
                asks.append(asked)
    for name, asks in videos.items():
        with found.row(f"{places[name]} ({name})"):
            recording = folder.find(name)
            clip = _CLIP.fullmatch(name)
            found.add(
                make_record(
                    id=name,
                    audio=str(recording),
                    duration=length_of(recording),
                    complete=False,
                    corpus="avqa",
                    group=clip[1] if clip else "",
                    split=split,
                    licence=LICENCE,
                    asked=tuple(asks),
                )
            )
    return found.done()


def _entries(path: Path) -> list[Any]:
    """The list in the file; raises DataError where there is none, or it is a list of something else."""
    try:
        data = parse_json(read_text(path, WHAT))
    except ValueError as error:
        raise DataError(f"{path} is not {WHAT}: {error}") from None
    if not isinstance(data, list) or not any(isinstance(entry, dict) and KEYS[0] in entry for entry in data):
        raise DataError(f"{path} is not {WHAT}: expected a list of objects with {', '.join(KEYS)}")
    return data


def _asked(entry: object) -> tuple[str, Asked]:
    """The video and the question of one entry; raises RowError."""
    if not isinstance(entry, dict):
        raise RowError("that are no JSON object", repr(entry)[:80])
    missing = [key for key in KEYS if key not in entry]
    if missing:
        raise RowError("that lack something", ", ".join(missing))
    name, question, choices, answer = (entry[key] for key in KEYS)
    if entry.get("question_relation") == "View":
        raise RowError("about what is seen (question_relation View)", str(question))
    if not (isinstance(name, str) and name and isinstance(question, str) and question.strip()):
        raise RowError("with values that do not fit", "video_name and question_text are texts")
    if not isinstance(choices, list) or not all(
        isinstance(choice, str) and choice.strip() for choice in choices
    ):
        raise RowError("with choices that are no texts", repr(choices)[:80])
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise RowError("with an answer that is none of the choices", f"{answer!r} of {len(choices)}")
    stripped = tuple(choice.strip() for choice in choices)
    if len({choice.lower() for choice in stripped}) < len(stripped):
        raise RowError("with choices that are the same", ", ".join(stripped))
    text = re.sub(r"\bvideo\b", "recording", question.strip())
    try:
        return name, Asked(question=text, choices=stripped, answer=stripped[answer])
    except ValidationError as error:
        raise RowError("with values that do not fit", reasons(error)) from None
