"""Decodes once, to a temporary wav, what cannot be read in place: m4a, aac, mp4, webm, wma, mp3 in a wav, ...

ffmpeg decodes what libsndfile cannot read, and libsndfile itself what it can read from the beginning only. Either
way the sound comes as a stream, is mixed down to one channel and brought to at most 48 kHz as it comes, and is
written as 16 bits: an hour takes 345 MB on disk and next to no memory, however many channels it had. There is a
limit (`decoded.LARGEST`).

Every ffmpeg that is there is tried until one decodes the file: the first may be broken, or built without its codec.
The track that ffmpeg takes is the one that is heard, with the decoder that ffmpeg takes for it. A track that begins
late, and gaps in it, are silence: times are those of the film.

The wav is shared by all who open the same state of the same file, and is deleted when the last of them is gone, or
at the end of the process.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from echo_agent.audio import decoded
from echo_agent.audio.decoded import AuStream, DecodedFile, WavWriter, too_long
from echo_agent.audio.ffmpeg import HIGHEST_RATE, Report, decode_stream, find_ffmpegs, look_at
from echo_agent.audio.files import FileStamp
from echo_agent.audio.flac_frames import find_frames
from echo_agent.audio.layouts import cut_off
from echo_agent.audio.soundfiles import SoundInfo, check_rate, open_sound
from echo_agent.audio.stated import note_of_missing
from echo_agent.audio.temporary import writing_temporarily
from echo_agent.errors import RecordingError
from echo_agent.forks import Lock

__all__ = ["DecodedFile", "decode"]

LONG_RATE = 16_000
"""Rate of sound that would take more than half of the limit at its own, Hz."""

_INSTALL = (
    "Install ffmpeg (https://ffmpeg.org, or your system's package of that name) "
    "or `pip install imageio-ffmpeg`"
)
_SHORTFALL = (0.5, 0.02)
"""A decoded sound may be this much shorter than its container says: by this many seconds, or this share of the
whole."""
_LEAST_DROPPED, _MOST_FILLED, _LEAST_SAID = 0.05, 3600.0, 0.2
"""Seconds. Times in a file are not believed that would drop so much, or put in so much silence; so much silence is
told."""
_LATE_CLOCK = 2.0
_JITTER = (10, 0.5)
"""Nor are they where they open more gaps than that, shorter than that on average (seconds)."""


_decoded: weakref.WeakValueDictionary[FileStamp, DecodedFile] = weakref.WeakValueDictionary()
_locks: dict[FileStamp, Lock] = {}
_guard = Lock()


def decode(
    stamp: FileStamp,
    why: str,
    readable: SoundInfo | None = None,
    longest: float | None = None,
    weights: tuple[float, ...] | None = None,
) -> DecodedFile:
    """Decode the file at `stamp.path`, or share what another thread has decoded of the same file.

    Args:
        stamp: The file, in the state in which it is to be decoded.
        why: Why it is not read in place; part of the message if it cannot be decoded either.
        readable: What libsndfile says of it, if libsndfile reads all of it from the beginning.
        longest: Seconds from which on the sound is too long to be of use; None decodes all there is room for.
        weights: How its channels are mixed; None finds that out.

    Raises:
        RecordingTooLongError: It is longer than that: as its header says before anything is decoded, else as soon
            as so much was.
        RecordingError: There is no ffmpeg that works, or none can decode the file, or it is too large.
    """
    with _guard:
        lock = _locks.setdefault(stamp, Lock())
    with lock:
        with _guard:
            shared = _decoded.get(stamp)
        if shared is not None:
            return shared
        try:
            made = _decode(stamp.path, why, readable, longest, weights)
            with _guard:
                _decoded[stamp] = made
            return made
        finally:
            with _guard:
                _locks.pop(stamp, None)


def _decode(
    path: str,
    why: str,
    readable: SoundInfo | None,
    longest: float | None,
    weights: tuple[float, ...] | None,
) -> DecodedFile:
    with writing_temporarily(f"the recording {path} cannot be decoded: its sound"):
        made = DecodedFile()
        try:
            if readable is not None:
                _with_libsndfile(readable, made, longest)
            elif not _with_flac_frames(path, made, longest, weights):
                _with_any_ffmpeg(path, why, made, longest, weights)
            check_rate(made.rate, path)
            made.notes = (*made.notes, *note_of_missing(path, made.frames / made.rate, made.notes))
        except BaseException:
            made.close()
            raise
    return made


def _with_libsndfile(info: SoundInfo, made: DecodedFile, longest: float | None) -> None:
    """Read a file from its beginning, as far as it goes."""
    import soundfile

    _check_promise(info.path, info.duration, longest)
    weights: tuple[float, ...] | None = None
    notes = info.notes
    while True:
        writer = WavWriter(info.path, made.path, weights, longest)
        writer.begin(info.rate, info.channels)
        try:
            with open_sound(info.path, info.layout) as file:
                while len(
                    block := file.read(max(1, 65_536 // info.channels), dtype="float32", always_2d=True)
                ):
                    writer.write(block)
        except soundfile.SoundFileError:  # damaged from here on
            pass
        finally:
            writer.close()
        found, said = writer.balance.weights()
        if found is None or weights is not None:
            break
        weights, notes = found, (*notes, *([said] if said else []))
    if not writer.frames:
        raise RecordingError(f"the recording {info.path} holds no samples that can be decoded")
    if not info.notes and _falls_short(writer.frames / info.rate, info.duration):
        notes = (*notes, cut_off(writer.frames / info.rate, info.duration))
    made.rate, made.frames, made.channels, made.notes = info.rate, writer.frames, info.channels, notes


def _with_flac_frames(
    path: str, made: DecodedFile, longest: float | None, weights: tuple[float, ...] | None
) -> bool:
    """Decode a FLAC file of which libsndfile would lose something, frame by frame; whether it is one."""
    frames = find_frames(path)
    if frames is None:
        return False
    said = None
    while True:
        writer = WavWriter(path, made.path, weights, longest)
        writer.begin(frames.rate, frames.channels)
        try:
            for block in frames.blocks():
                writer.write(block)
        finally:
            writer.close()
        found, words = writer.balance.weights()
        if weights is not None or found is None:
            break
        weights, said = found, words
    if not writer.frames:
        return False
    seconds, promised = writer.frames / frames.rate, frames.stated / frames.rate
    made.rate, made.frames, made.channels = frames.rate, writer.frames, frames.channels
    made.notes = (
        *([_damaged_in(frames.damaged)] if frames.damaged else []),
        *([cut_off(seconds, promised)] if _falls_short(seconds, promised) else []),
        *([said] if said else []),
    )
    return True


@dataclass
class _Failures:
    """What went wrong with each ffmpeg, of which the user is told one thing."""

    file: str | None = None
    """What the first that worked had against the file."""
    program: str | None = None
    """What the first that did not work said."""


def _check_promise(path: str, promised: float | None, longest: float | None) -> None:
    """Refuse a file by the length that its header states."""
    if promised is not None and longest is not None and _falls_short(longest, promised):
        raise too_long(path, f"{promised:.1f} s (by its header)", longest)


def _with_any_ffmpeg(
    path: str, why: str, made: DecodedFile, longest: float | None, weights: tuple[float, ...] | None
) -> None:
    failures = _Failures()
    for program in find_ffmpegs():
        try:
            report, options = look_at(program, path)
        except OSError as error:
            failures.program = failures.program or f"{program}: {error.strerror or error}"
            continue
        if not report.speaks_of(path):
            failures.program = failures.program or f"{program}: {report.last_words(path)}"
            continue
        if report.format is not None and not report.tracks:
            failures.file = failures.file or (
                f"the recording {path} holds no sound (a {report.format} file without an audio stream)"
            )
            continue
        words: str | None = report.last_words(path)
        if report.format is not None:
            words = _with_ffmpeg(program, path, report, options, made, longest, weights)
        if words is None:
            return
        failures.file = failures.file or (
            f"the recording {path} cannot be read by libsndfile ({why}) nor by ffmpeg ({words}); "
            "is it a sound file, and complete?"
        )
    if failures.file is not None:
        raise RecordingError(failures.file)
    if failures.program is not None:
        why = f"{why}, and the ffmpeg that is there does not work ({failures.program})"
    raise RecordingError(f"the recording {path} cannot be read without ffmpeg: {why}. {_INSTALL}")


def _with_ffmpeg(
    program: str,
    path: str,
    seen: Report,
    options: tuple[str, ...],
    made: DecodedFile,
    longest: float | None,
    weights: tuple[float, ...] | None,
) -> str | None:
    """Decode with one ffmpeg; what it said if nothing came of it, else None."""
    _check_promise(path, seen.promised, longest)
    rate = HIGHEST_RATE if seen.highest_rate > HIGHEST_RATE else None
    if seen.promised and seen.promised * 2 * (rate or seen.highest_rate) > decoded.LARGEST // 2:
        rate = LONG_RATE
    timed, lead, said = seen.has_times, 0.0, None
    while True:
        writer = WavWriter(path, made.path, weights, longest)
        try:
            code, report = decode_stream(program, path, options, rate, timed, AuStream(writer, lead).take)
        finally:
            writer.close()
        if report.stopped:
            return report.stopped
        if timed and (code != 0 or (writer.frames and not _times_are_sound(report, writer.rate))):
            timed = False  # times that cannot be kept to, or an ffmpeg built without the filter
            continue
        filled = sum(report.filled) / writer.rate if writer.frames else 0.0
        if timed and not lead and _LEAST_SAID <= report.late - filled <= _MOST_FILLED:
            lead = report.late  # in a broadcast, ffmpeg begins with the first sound, not with the picture
            continue
        found, words = writer.balance.weights()
        if weights is not None or found is None:
            break
        weights, said = found, words
    if not writer.frames:
        return report.last_words(path) if code else "it holds no samples"
    made.rate, made.frames, made.channels = writer.rate, writer.frames, writer.channels
    out_of_order = (
        seen.has_times and not timed and seen.format != "flac"
    )  # joined files, each with its own times
    notes = _notes(report, seen, writer.frames / writer.rate, (filled if timed else 0.0) + lead, out_of_order)
    made.notes = (*notes, *([said] if said else []))
    return None


def _times_are_sound(report: Report, rate: int) -> bool:
    """Whether the times in the file can be kept to: they drop nothing and open no gaps that cannot be meant."""
    filled = sum(report.filled) / rate
    jitter = len(report.filled) > _JITTER[0] and filled / len(report.filled) < _JITTER[1]
    kept = report.dropped / rate < _LEAST_DROPPED and not report.gave_up
    return kept and filled < _MOST_FILLED and not jitter


def _notes(report: Report, seen: Report, seconds: float, silent: float, out_of_order: bool) -> list[str]:
    notes: list[str] = []
    tracks = seen.tracks
    if len(tracks) > 1 and report.taken in tracks:
        number = list(tracks).index(report.taken) + 1
        notes.append(
            f"it has {len(tracks)} tracks of sound; heard is number {number} ({tracks[report.taken]}), the one "
            "that ffmpeg takes, and not the others"
        )
    if seen.start > _LATE_CLOCK:
        notes.append(
            f"its own clock begins at {seen.start:.2f} s; times are counted from the beginning of what is there"
        )
    if silent >= _LEAST_SAID:
        notes.append(
            f"for {silent:.2f} s it holds no sound (before its sound begins, or in gaps); they are heard as silence"
        )
    if out_of_order:
        notes.append(
            "the times in it cannot be kept to (they are out of order, or leave too much open); its sound is heard "
            "without them, one piece after the other"
        )
    if report.damaged:
        notes.append(_damaged_in(report.damaged))
    promised = seen.promised
    if promised is not None and _falls_short(
        seconds, min(promised, max(promised - seen.start, 0.0) or promised)
    ):
        notes.append(cut_off(seconds, promised))
    return notes


def _damaged_in(places: int) -> str:
    where = "a place" if places == 1 else f"{places} places"
    return f"it is damaged in {where} that could not be decoded"


def _falls_short(seconds: float, promised: float) -> bool:
    """Whether `seconds` is so much less than promised that something must be missing."""
    return promised - seconds > max(_SHORTFALL[0], _SHORTFALL[1] * promised)
