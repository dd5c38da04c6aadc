"""Where the audio of a corpus is, and how long it lasts.

Annotations and audio of a public corpus are separate downloads, and people convert the audio, sort it into folders,
link it and lack some of it. So a recording is found by its name without ending, anywhere below the folder, and its
length is read from its own header rather than taken from the annotations. A name that could be either of two recordings
is refused.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from echo_agent.audio.recording import Recording
from echo_agent.errors import DataError, RecordingError
from echo_agent.finetune.data.corpora.sourced import RowError, check_end
from echo_agent.finetune.data.records import Event
from echo_agent.paths import composed, walk_files

SUFFIXES = (
    *(".flac", ".wav", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".au", ".w64", ".caf"),
    *(
        ".wave",
        ".bwf",
        ".rf64",
        ".oga",
        ".spx",
        ".aifc",
        ".snd",
        ".mp2",
        ".mp1",
        ".mpga",
        ".m4b",
        ".m4r",
        ".adts",
    ),
    *(
        ".wv",
        ".ape",
        ".tta",
        ".tak",
        ".mka",
        ".weba",
        ".ac3",
        ".eac3",
        ".dts",
        ".amr",
        ".awb",
        ".gsm",
        ".voc",
    ),
    *(
        ".sph",
        ".nist",
        ".ircam",
        ".sf",
        ".paf",
        ".svx",
        ".iff",
        ".avr",
        ".wve",
        ".xi",
        ".sds",
        ".ra",
        ".dsf",
        ".dff",
    ),
    *(
        ".wma",
        ".mp4",
        ".mkv",
        ".webm",
        ".mov",
        ".avi",
        ".m4v",
        ".3gp",
        ".3g2",
        ".mpg",
        ".mpeg",
        ".mpe",
        ".vob",
    ),
    *(
        ".ts",
        ".mts",
        ".m2ts",
        ".ogv",
        ".ogx",
        ".flv",
        ".f4v",
        ".f4a",
        ".asf",
        ".wmv",
        ".rm",
        ".rmvb",
        ".mxf",
        ".qt",
    ),
)
"""Endings of recordings, the one that is taken first where a folder has a name with several. By its whole name, ending
included, a recording is found whatever its ending."""
SLACK = 0.5
"""Seconds that a downloaded clip may be shorter than the labels made on it: encoders cut ends off."""


class AudioFolder:
    """The recordings in a folder, by name; accents may be written in one piece or in two."""

    def __init__(self, folder: str | Path, *, below: bool = True) -> None:
        """List the folder.

        Args:
            folder: Of the recordings; links in it are followed.
            below: List the folders in it, too.

        Raises:
            DataError: There is no such folder.
        """
        self.folder = Path(os.path.abspath(folder))
        if not self.folder.is_dir():
            raise DataError(
                f"there is no folder of audio at {self.folder}; name the one that holds the recordings"
            )
        files = (
            walk_files(self.folder)
            if below
            else sorted(path for path in self.folder.iterdir() if path.is_file())
        )
        self._files: dict[str, list[Path]] = {}
        self._stems: dict[str, list[Path]] = {}
        for path in files:
            self._files.setdefault(composed(path.name), []).append(path)
            if path.suffix.lower() in SUFFIXES:
                self._stems.setdefault(composed(path.stem), []).append(path)

    def find(self, *names: str) -> Path:
        """The recording of the first of these names that there is.

        A name is the path from the folder, or only its end; the ending may be missing or another.

        Raises:
            RowError: There is none.
            DataError: There are several, and they are not the same.
        """
        for name in names:
            wanted = composed(name.replace("\\", "/")).removeprefix("./")
            for paths, place in (
                (self._files.get(wanted.rpartition("/")[2], ()), wanted),
                (self._stems.get(composed(bare(wanted)), ()), plain(wanted)),
            ):
                if paths:
                    return self._only(name, _closest(paths, self.folder, place))
        raise RowError("without audio", f"no {bare(names[0])}.* in {self.folder}")

    def _only(self, name: str, paths: Sequence[Path]) -> Path:
        """The one recording among those of a name: of several in one folder the one with the first ending."""
        best: dict[Path, Path] = {}
        for path in sorted(paths, key=_order):
            best.setdefault(path.parent, path)
        first, *others = best.values()
        for other in others:
            if not filecmp.cmp(first, other, shallow=False):
                raise DataError(
                    f"{name!r} could be {first} or {other}: name the folder in the annotations, "
                    "remove one of the two, or give the folder of the right ones"
                )
        return first


def _closest(paths: Sequence[Path], folder: Path, place: str) -> Sequence[Path]:
    """Of files with the right name those that lie at the place that was named, or in folders that end like it."""
    at = [(path, composed(path.relative_to(folder).as_posix())) for path in paths]
    there = [path for path, rest in at if place in (rest, plain(rest))]
    below = [path for path, rest in at if rest.endswith(f"/{place}") or plain(rest).endswith(f"/{place}")]
    return there or below or paths


def _order(path: Path) -> tuple[int, str]:
    suffix = path.suffix.lower()
    return (SUFFIXES.index(suffix) if suffix in SUFFIXES else len(SUFFIXES), path.as_posix())


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
