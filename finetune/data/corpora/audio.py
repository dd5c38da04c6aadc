"""Where the audio of a corpus is, and how long it lasts.

Annotations and audio of a public corpus are separate downloads, and people convert the audio, sort it into folders and
lack some of it. So a recording is found by its name without ending, anywhere below the folder, and its length is read
from its own header rather than taken from the annotations.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from echo_agent.errors import DataError, RecordingError
from echo_agent.finetune.data.corpora.sourced import RowError, check_end
from echo_agent.finetune.data.records import Event
from echo_agent.recording import Recording

SUFFIXES = (
    *(".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".au", ".w64", ".caf"),
    *(".wma", ".mp4", ".mkv", ".webm", ".mov", ".avi"),
)
"""Endings of recordings, the one that is taken first where a name has several."""
SLACK = 0.5
"""Seconds that a downloaded clip may be shorter than the labels made on it: encoders cut ends off."""


class AudioFolder:
    """The recordings below a folder, by name."""

    def __init__(self, folder: str | Path) -> None:
        """List the folder, in an order that is the same everywhere.

        Raises:
            DataError: There is no such folder.
        """
        self.folder = Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise DataError(
                f"there is no folder of audio at {self.folder}; name the one that holds the recordings"
            )
        paths = [Path(root, name) for root, _, names in os.walk(self.folder) for name in names]
        known = [path for path in paths if path.suffix.lower() in SUFFIXES]
        known.sort(key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.as_posix()))
        self._placed = {path.relative_to(self.folder).as_posix(): path for path in known}
        self._named: dict[str, Path] = {}
        for path in known:
            self._named.setdefault(path.stem, path)

    def find(self, *names: str) -> Path:
        """The recording of the first of these names that there is: just there, or else anywhere, whatever its ending.

        Raises:
            RowError: There is none.
        """
        for name in names:
            path = self._placed.get(name) or self._named.get(bare(name))
            if path:
                return path
        raise RowError("without audio", f"no {bare(names[0])}.* in {self.folder}")


def plain(name: str) -> str:
    """A recording's name without its ending; what only looks like an ending stays (``clip_350.000``)."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name


def bare(name: str) -> str:
    """A recording's name without folder and ending."""
    return plain(name.replace("\\", "/").rpartition("/")[2])


def length_of(path: Path) -> float:
    """Length of a recording in seconds, from its header where that tells.

    Raises:
        RowError: It is missing, empty or cannot be read.
    """
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise RowError("without audio", f"no file {path}")
    try:
        return Recording.open(path).duration
    except RecordingError as error:
        raise RowError("with audio that is empty or cannot be read", str(error)) from None


def fit(events: Iterable[Event], duration: float) -> list[Event]:
    """Events labelled on a clip of nominal length, cut at the end of the recording that there is.

    Raises:
        RowError: The recording is more than :data:`SLACK` shorter than its labels, or an event lies in what is missing.
    """
    fitted = []
    for event in events:
        if event.onset < duration < event.offset <= duration + SLACK:
            event = replace(event, offset=duration)
        fitted.append(event)
    check_end(fitted, duration)
    return fitted
