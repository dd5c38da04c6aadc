"""MusicBench: ten seconds of music with captions, chords, beats, tempo and key.

Melechovsky et al., "Mustango: toward controllable text-to-music generation", NAACL 2024 (arXiv 2311.08355); the files
``MusicBench_train.json``, ``MusicBench_test_A.json`` and ``MusicBench_test_B.json`` are JSON lines with the keys
``location`` (of the audio), ``main_caption``, ``alt_caption``, sentences about one feature each (``prompt_aug``,
``prompt_ch``, ``prompt_bt``, ``prompt_bpm``, ``prompt_key``), ``beats`` (two lists: times, and numbers in the bar),
``bpm``, ``chords`` with ``chords_time``, ``key`` (root and mode) and ``keyprob``. FMACaps has the same form.

Chords, beats, tempo and key were found by programs, not by ear; so nothing counts as complete. Training clips are
changed copies (pitch, tempo, volume), told apart by a number: ``data_aug2/-0SdAVK79lg_1.wav``. All copies of a clip,
and the clip in the tests, are one group. CC-BY-SA-3.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from echo_agent.finetune.data.corpora.audio import SLACK, AudioFolder, length_of, plain
from echo_agent.finetune.data.corpora.sourced import Gathering, RowError, Sourced, make_event, make_record
from echo_agent.finetune.data.corpora.texts import finite, json_lines, json_object, numbers
from echo_agent.finetune.data.records import Event, Record, Split

WHAT = "a file of MusicBench (JSON lines)"
LICENCE = "CC-BY-SA-3.0"
CAPTIONS = (
    *("main_caption", "alt_caption", "prompt_aug"),
    *("prompt_ch", "prompt_bt", "prompt_bpm", "prompt_key"),
)
SURE_KEY = 0.6
"""Least ``keyprob`` for a key to be kept."""
NO_CHORD = "N"
"""What chord recognition writes where it hears none."""


def read_musicbench(path: str | Path, audio: str | Path, *, split: Split | None = None) -> Sourced:
    """Read captions, chords and beats, and find the clips.

    Args:
        path: The JSON file.
        audio: Folder of the clips, such as the unpacked ``datashare``; folders in it are searched too.
        split: Which split the file is.

    Raises:
        DataError: It is another file, or there is no audio folder.
    """
    path = Path(path)
    lines = json_lines(path, WHAT, "location")
    folder = AudioFolder(audio)
    found = Gathering()
    for number, line in lines:
        with found.row(f"{path}:{number}"):
            found.add(_record(json_object(line), folder, split))
    return found.done()


def group_of(stem: str) -> str:
    """The original of a clip: the video's id, which has eleven characters, or the name without a copy's number."""
    video = re.fullmatch(r"(.{11})(?:_\d+)?", stem)
    return video[1] if video else re.sub(r"_\d+$", "", stem)


def _record(data: dict[str, Any], folder: AudioFolder, split: Split | None) -> Record:
    """One line as a record; raises RowError."""
    location = data.get("location")
    if not isinstance(location, str) or not location:
        raise RowError("that name no audio")
    path = folder.find(location)
    duration = length_of(path)
    captions = [data.get(key) for key in CAPTIONS]
    bpm = finite(data.get("bpm"))
    return make_record(
        id=plain(location),
        audio=str(path),
        duration=duration,
        events=[*_chords(data, duration), *_beats(data, duration)],
        complete=False,
        corpus="musicbench",
        group=group_of(path.stem),
        split=split,
        licence=LICENCE,
        captions=tuple(
            dict.fromkeys(text.strip() for text in captions if isinstance(text, str) and text.strip())
        ),
        tempo=bpm if bpm and bpm > 0 else None,
        key=_key(data),
    )


def _chords(data: dict[str, Any], duration: float) -> list[Event]:
    """Chords, each until the next; the same one twice in a row is one."""
    names, times = data.get("chords") or [], numbers(data.get("chords_time") or [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RowError("with chords that are no names", repr(names)[:80])
    if len(names) != len(times):
        raise RowError("with chords that do not match their times", f"{len(names)} names, {len(times)} times")
    merged: list[tuple[str, float]] = []
    for name, time in zip(names, times, strict=True):
        if not merged or merged[-1][0] != name:
            merged.append((name, time))
    spans = _spans([time for _, time in merged], duration)
    return [
        make_event(label=name, kind="chord", onset=onset, offset=offset, content=(name,))
        for (name, _), (onset, offset) in zip(merged, spans, strict=True)
        if name not in ("", NO_CHORD) and onset < offset
    ]


def _beats(data: dict[str, Any], duration: float) -> list[Event]:
    """Beats, each until the next; the first of a bar is a downbeat."""
    beats = data.get("beats") or [[], []]
    if not isinstance(beats, list) or len(beats) != 2:
        raise RowError("with beats that are not times and numbers", repr(beats)[:80])
    times, places = numbers(beats[0]), numbers(beats[1])
    if len(times) != len(places):
        raise RowError(
            "with beats that do not match their times", f"{len(times)} times, {len(places)} numbers"
        )
    return [
        make_event(label="downbeat" if place == 1 else "beat", kind="beat", onset=onset, offset=offset)
        for place, (onset, offset) in zip(places, _spans(times, duration), strict=True)
        if place > 0 and onset < offset
    ]


def _spans(times: Sequence[float], duration: float) -> list[tuple[float, float]]:
    """From each time to the next, and from the last to the end; empty where something begins at the very end.

    Raises:
        RowError: The times do not rise, or go on after the end.
    """
    if any(not one < two for one, two in pairwise(times)):
        raise RowError("with times that do not rise", repr(list(times))[:80])
    if times and times[-1] > duration + SLACK:
        raise RowError("with an event beyond the end of the audio", f"at {times[-1]:g} of {duration:g} s")
    ends = [*times[1:], duration]
    return [(min(onset, duration), min(offset, duration)) for onset, offset in zip(times, ends, strict=False)]


def _key(data: dict[str, Any]) -> str:
    """The key, such as ``A minor``, where the program that found it was sure."""
    key, sure = data.get("key"), data.get("keyprob")
    if not isinstance(key, list) or len(key) != 2 or not all(isinstance(part, str) and part for part in key):
        return ""
    strength = finite(sure[0]) if isinstance(sure, list) and sure else None
    return " ".join(key) if strength and strength >= SURE_KEY else ""
