"""AudioSet-Strong: sounds with times in ten-second clips of videos.

Hershey et al., "The benefit of temporally-strong labels in audio event classification", ICASSP 2021; the files are
``audioset_train_strong.tsv`` and ``audioset_eval_strong.tsv`` with the columns ``segment_id``, ``start_time_seconds``,
``end_time_seconds`` and ``label``. A segment id is the video's id and the clip's start in milliseconds
(``b0RFKhbpFJA_30000``), times count from the clip's start, and a label is an identifier such as ``/m/09x0r`` that
``mid_to_display_name.tsv`` (two columns, no header) translates. Files that hold display names instead are read too.

The labels are CC-BY-4.0. The audio is not part of them: it belongs to those who made the videos.

The vocabulary is nested: a bark may be marked as bark, as dog or as animal. See :func:`read_audioset`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.audio import AudioFolder, fit, length_of
from echo_agent.finetune.data.corpora.sourced import Gathering, RowError, Sourced, make_event, make_record
from echo_agent.finetune.data.corpora.texts import (
    Mark,
    marks,
    need_columns,
    read_lines,
    read_table,
    seconds,
    speakable,
)
from echo_agent.finetune.data.records import Record, Split

WHAT = "a table of AudioSet's strong labels"
COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
NAMES = "mid_to_display_name.tsv"
LICENCE = "labels CC-BY-4.0; the audio belongs to the makers of the videos"
LONGEST = 10.5
"""Seconds; what is longer is not the clip of ten seconds that the times count in, but perhaps the whole video."""

_MID = re.compile(r"/[a-z]/\w+")
_SEGMENT = re.compile(r"(.+)_(\d{1,9})")


def read_audioset(
    table: str | Path, audio: str | Path, *, names: str | Path | None = None, split: Split | None = None
) -> Sourced:
    """Read strong labels and find the clips they were made on.

    A clip may be called by its segment id, with ``Y`` before it, by video id and start in seconds
    (``b0RFKhbpFJA_30``, ``_000030``), or by the video id alone.

    Nothing counts as known to be absent: of nested labels only the closest one is marked, so that where a bark is, a
    dog is not, and a record that said so would be wrong.

    Args:
        table: The TSV file.
        audio: Folder of the clips; folders in it are searched too.
        names: ``mid_to_display_name.tsv``; looked for next to the table if it is not given.
        split: Which split the file is.

    Raises:
        DataError: The table is another file, its labels cannot be translated, or there is no audio folder.
    """
    path = Path(table)
    header, rows = read_table(path, WHAT)
    places = need_columns(path, header, COLUMNS, WHAT)
    if "present" in header:
        raise DataError(
            f"{path} says for each frame whether a label is present, not when sounds begin and end; "
            "name audioset_train_strong.tsv or audioset_eval_strong.tsv"
        )
    segments = marks(rows, places)
    marked = sorted({mark.label for labels in segments.values() for mark in labels if mark.label})
    said = _said(path, marked, Path(names) if names else path.with_name(NAMES))
    folder = AudioFolder(audio)
    found = Gathering()
    for segment, labels in segments.items():
        with found.row(f"{path}:{labels[0].line} ({segment})"):
            found.add(_record(segment, labels, said, folder, split))
    return found.done()


def first_names(names: Iterable[str]) -> dict[str, str]:
    """Display names as they are said: the first of several synonyms where no other name begins with the same.

    "Baby cry, infant cry" is "baby cry"; "Inside, small room" stays whole, since there is "Inside, public space".
    """
    firsts = {name: speakable(re.split(r",\s*(?![^()]*\))", name)[0]) for name in names}
    taken = Counter(firsts.values())
    return {name: first if taken[first] == 1 else speakable(name) for name, first in firsts.items()}


def _said(path: Path, marked: list[str], names: Path) -> dict[str, str]:
    """How the labels of a table are said; those that have no name are left out."""
    if not any(_MID.fullmatch(label) for label in marked):
        return first_names(marked)
    if not names.is_file():
        raise DataError(
            f"the labels of {path} are identifiers such as {marked[0]}, and there is no {names} to translate them; "
            f"get {NAMES}, which is published with the table"
        )
    displayed: dict[str, str] = {}
    for _, line in read_lines(names, "names of AudioSet's labels"):
        mid, _, name = line.partition("\t")
        displayed[mid.strip()] = name.strip()
    if not any(label in displayed for label in marked):
        raise DataError(
            f"{names} has no name for any label of {path}; expected lines like /m/09x0r, tab, Speech"
        )
    spoken = first_names(sorted({name for mid, name in displayed.items() if name and _MID.fullmatch(mid)}))
    return {mid: spoken[name] for mid, name in displayed.items() if name in spoken}


def _record(
    segment: str,
    labels: list[Mark],
    said: dict[str, str],
    folder: AudioFolder,
    split: Split | None,
) -> Record:
    """One clip; raises RowError."""
    parts = _SEGMENT.fullmatch(segment)
    if not parts:
        raise RowError("with a segment id of another form", f"{segment!r}, expected like b0RFKhbpFJA_30000")
    video, start = parts[1], int(parts[2]) // 1000
    names = (segment, f"{video}_{start}", f"{video}_{start:06d}", video)
    path = folder.find(*(prefix + name for name in names for prefix in ("", "Y")))
    duration = length_of(path)
    if duration > LONGEST:
        raise RowError("with audio that is not the clip of ten seconds", f"{path} has {duration:g} s")
    events = []
    for mark in labels:
        if mark.label not in said:
            raise RowError("with a label that has no name", f"{mark.label!r} in line {mark.line}")
        times = {"onset": seconds(mark.onset), "offset": seconds(mark.offset)}
        events.append(make_event(label=said[mark.label], kind="sound", **times))
    return make_record(
        id=segment,
        audio=str(path),
        duration=duration,
        events=fit(events, duration),
        corpus="audioset-strong",
        group=video,
        split=split,
        licence=LICENCE,
    )
