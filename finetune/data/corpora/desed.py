"""DESED: ten sounds of the home with times, in clips of ten seconds.

Turpault et al., "Sound event detection in domestic environments with weakly labeled data and soundscape synthesis",
DCASE workshop 2019; tables ``validation.tsv``, ``public.tsv`` and those of the synthetic soundscapes have the columns
``filename``, ``onset``, ``offset`` and ``event_label``. A row with a file name alone stands for a clip in which none of
the ten sounds is heard. The weak labels (``filename``, ``event_labels``) and the list of unlabelled clips hold no
times.

Real clips are cut from videos; their names hold the video's id (``Y00pbt6aJV8Y_350.000_360.000.wav``). Licences of the
clips are in the license files of each download.
"""

from __future__ import annotations

import re
from pathlib import Path

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.audio import AudioFolder, bare, fit, length_of
from echo_agent.finetune.data.corpora.sourced import Gathering, RowError, Sourced, make_event, make_record
from echo_agent.finetune.data.corpora.texts import Mark, marks, need_columns, read_table, seconds, speakable
from echo_agent.finetune.data.records import Record, Split

WHAT = "a table of DESED's strong labels"
COLUMNS = ("filename", "onset", "offset", "event_label")
CLASSES = (
    *("alarm bell ringing", "blender", "cat", "dishes", "dog"),
    *("electric shaver toothbrush", "frying", "running water", "speech", "vacuum cleaner"),
)
"""All that is marked: what else is heard in a clip is not."""
LICENCE = "see the license files of DESED; the audio of real clips belongs to the makers of the videos"

_CLIP = re.compile(r"Y?(.{11})_\d+(?:\.\d+)?_\d+(?:\.\d+)?")


def read_desed(table: str | Path, audio: str | Path, *, split: Split | None = None) -> Sourced:
    """Read strong labels and find the clips they were made on.

    Args:
        table: The TSV file.
        audio: Folder of the clips; folders in it are searched too, and the ending may be another.
        split: Which split the file is.

    Raises:
        DataError: The table is another file (weak labels, a list of clips), or there is no audio folder.
    """
    path = Path(table)
    header, rows = read_table(path, WHAT)
    if "event_labels" in header:
        raise DataError(
            f"{path} holds weak labels: which sounds are in a clip, not when; name a table of strong labels, "
            "such as validation.tsv or public.tsv"
        )
    places = need_columns(path, header, COLUMNS, WHAT)
    folder = AudioFolder(audio)
    found = Gathering()
    for name, labels in marks(rows, places).items():
        with found.row(f"{path}:{labels[0].line} ({name})"):
            found.add(_record(name, labels, folder, split))
    return found.done()


def _record(name: str, labels: list[Mark], folder: AudioFolder, split: Split | None) -> Record:
    """One clip; raises RowError."""
    path = folder.find(name)
    duration = length_of(path)
    events = []
    for mark in labels:
        if not (mark.onset or mark.offset or mark.label):
            continue
        said = speakable(mark.label)
        if said not in CLASSES:
            raise RowError("with a label that is none of DESED's ten", f"{mark.label!r} in line {mark.line}")
        times = {"onset": seconds(mark.onset), "offset": seconds(mark.offset)}
        events.append(make_event(label=said, kind="sound", **times))
    clip = _CLIP.fullmatch(bare(name))
    return make_record(
        id=bare(name),
        audio=str(path),
        duration=duration,
        events=fit(events, duration),
        labels=CLASSES,
        corpus="desed",
        group=clip[1] if clip else "",
        split=split,
        licence=LICENCE,
    )
