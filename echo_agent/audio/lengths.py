"""How long a sound file really is, and which decoder reads all of it.

libsndfile believes headers: an mp3 that holds more than its header says is cut, a truncated file is silently short,
a flac that was written to a pipe has 2^63 - 1 samples, of files put one after the other it reads the first, and a
codec that cannot seek gives noise after a seek. `inspect` finds the true length. What libsndfile would drop, or could
not seek in, it hands on (`UnreadableError`). Where a file holds less than it promises, what is there is heard, and a
note says so.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from echo_agent.audio.channels import Balance
from echo_agent.audio.files import FileStamp, Remembered
from echo_agent.audio.flac import flac_samples
from echo_agent.audio.headers import find_layout
from echo_agent.audio.layouts import cut_off
from echo_agent.audio.mpeg import count_frames
from echo_agent.audio.ogg import walk_pages
from echo_agent.audio.soundfiles import (
    SoundInfo,
    SoundReader,
    check_rate,
    decoding,
    open_sound,
    reason_of,
)
from echo_agent.audio.stated import note_of_missing
from echo_agent.errors import RecordingError

__all__ = ["UnreadableError", "inspect"]

_UNKNOWN_FRAMES = 1 << 62
_HEADER_BYTES = 1024
"""A file of no samples that is larger than this holds more than a header."""
_SEEKS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "VORBIS", "OPUS")
"""How the names of codecs begin in which a seek is exact; in the others it fails, or gives noise, or (ALAC) goes astray
where the file is damaged, without a word."""
_LEAST_MISSING = 0.1
"""Seconds from which on it is said that they are missing."""
_CUT_SIZE = re.compile(r"(?:riff|data|SSND|Data Size)\s*:\s*(\d+)\s*\(should be (\d+)\)")
"""What libsndfile logs of a length that is larger than the file, in kinds of files whose chunks we do not walk over."""
_STREAMED_SIZE = 0x7FFF_0000
"""Lengths from here on stand for "not known" there."""
_NEXT_TO_NOTHING = 0.01
"""Seconds: a file that was cut off so early holds nothing that can be heard."""
_NO_LAST_PAGE = (
    "its last page is missing: it is cut off, or was never finished, as recordings of broadcasts are; heard is what "
    "is there"
)
"""The note about an Ogg file that does not say where it ends."""
_WALKED = ("WAV", "WAVEX", "AIFF", "CAF", "RF64")
"""Formats of which `find_layout` has said what is missing; lengths of outer chunks are often wrong in them."""
_LEAST_OTHERS = 8
_MOST_RUBBISH = 1000
"""mpg123 gives up where it finds more bytes than that between two frames."""
_LOOKS = {"MP3": 6, "OGG": 6}
_USUAL_LOOKS = 40
"""Places at which it is looked how the channels go together; fewer in formats where a seek takes long."""
_LOOK_SECONDS = 0.1
_DTS = (b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\x1f\xff\xe8\x00", b"\xff\x1f\x00\xe8")
"""How DTS begins that was written to a wav as if it were samples, as copies of discs have it."""


class UnreadableError(Exception):
    """libsndfile does not read this file, or not all of it, or not from any place; the message says why."""

    def __init__(self, why: str, info: SoundInfo | None = None, notes: tuple[str, ...] = ()) -> None:
        """Say why.

        Args:
            why: The reason, which follows on "it cannot be read because".
            info: If libsndfile reads all of it as long as it does so from the beginning.
            notes: What the user should know about the file, whoever decodes it.
        """
        super().__init__(why)
        self.info, self.notes = info, notes


_known: Remembered[SoundInfo] = Remembered()


def inspect(stamp: FileStamp) -> SoundInfo:
    """Open a file, find its true length, and how its channels are to be mixed.

    Raises:
        UnreadableError: libsndfile cannot read it, would drop a part of it, or cannot seek in it.
        RecordingError: It holds no samples, an impossible rate, or samples of another scale.
    """
    known = _known.get(stamp)
    if known is None:
        known = _inspect(stamp.path)
        _known.put(stamp, known)
    return known


def _inspect(path: str) -> SoundInfo:
    import soundfile

    try:
        layout = find_layout(path)
    except (OSError, ValueError):  # it cannot be mapped; opening it says why
        layout = None
    try:
        with open_sound(path, layout) as file:
            info = SoundInfo(
                *(path, file.frames, file.samplerate, file.channels, file.format),
                layout=layout,
                notes=layout.notes if layout else (),
            )
            subtype, log = str(file.subtype), str(file.extra_info)
    except TypeError as error:  # soundfile takes the name's ending .raw for headerless samples
        raise RecordingError(
            f"{path} holds raw samples without a header, so neither rate nor format is known; "
            "convert it to wav, or read it with numpy and use Recording.from_array"
        ) from error
    except (soundfile.SoundFileError, OSError) as error:
        raise UnreadableError(f"libsndfile says: {reason_of(error)}", notes=_of_pages(path)[1]) from error
    if info.format == "RAW":  # libsndfile takes what is called .au, .snd or .vox for samples without a header
        raise UnreadableError("it has no header that libsndfile knows")
    check_rate(info.rate, path)
    try:
        info = _true_length(info, subtype, log)
    except OSError as error:
        raise RecordingError(f"the recording {path} cannot be read: {error.strerror or error}") from error
    if info.frames <= 0:
        if Path(path).stat().st_size > _HEADER_BYTES:
            raise UnreadableError("its header says that it holds no samples")
        raise RecordingError(f"the recording {path} holds no samples")
    if info.notes and info.duration < _NEXT_TO_NOTHING:
        raise RecordingError(f"the recording {path} is cut off behind its header: it holds next to no sound")
    if info.format not in _WALKED:
        info = replace(info, notes=(*info.notes, *note_of_missing(path, info.duration, info.notes)))
    if subtype in ("FLOAT", "DOUBLE"):
        info = _finite(info)
    return _mixed(info)


def _true_length(info: SoundInfo, subtype: str, log: str) -> SoundInfo:
    """Correct `info.frames`, or raise where libsndfile would drop some of the sound."""
    if info.format == "MP3":
        return _mp3_length(info)
    if not subtype.startswith(_SEEKS):
        raise UnreadableError(f"libsndfile cannot seek in {subtype.lower()}", info)
    if info.format == "OGG":
        oddity, notes = _of_pages(info.path)
        if oddity:
            raise UnreadableError(oddity, notes=notes)
        info = replace(info, notes=(*info.notes, *notes))
    if info.format == "WAV" and subtype == "PCM_16" and _is_dts(info):
        raise UnreadableError("it holds DTS sound, written as if it were samples")
    cut = _CUT_SIZE.search(log)
    if cut and info.layout is None and 0 < int(cut[2]) < int(cut[1]) < _STREAMED_SIZE:
        promised = info.duration * int(cut[1]) / int(cut[2])
        if promised - info.duration >= _LEAST_MISSING:
            info = replace(info, notes=(*info.notes, cut_off(info.duration, promised)))
    if info.format == "FLAC":
        info = _flac_length(info)
    elif info.frames >= _UNKNOWN_FRAMES:
        info = replace(info, frames=_count(info))
    if info.format != "OGG" and info.frames > 0 and not _end_is_there(info):
        info = _shortened(info)
    return info


def _of_pages(path: str) -> tuple[str | None, tuple[str, ...]]:
    """Why libsndfile would not read all of an Ogg file, and what is to be said of it; nothing of other files."""
    with open(path, "rb") as file:
        if file.read(4) != b"OggS":
            return None, ()
    pages = walk_pages(path)
    notes = () if pages.is_whole else (_NO_LAST_PAGE,)
    if pages.is_chained and len(set(pages.codecs)) > 1:
        notes = (
            *notes,
            f"several streams of different codecs ({', '.join(pages.codecs)}) stand one after the other in it; those "
            "that follow on the first may not be heard: split the file to ask about them",
        )
    return pages.oddity, notes


def _mp3_length(info: SoundInfo) -> SoundInfo:
    found = count_frames(info.path)
    if found is None:  # layer I or II
        return replace(info, frames=_count(info))
    if found.others >= _LEAST_OTHERS:
        raise UnreadableError("it holds frames of several rates or numbers of channels")
    if found.rubbish > _MOST_RUBBISH:
        raise UnreadableError(f"{found.rubbish} bytes between its frames are no sound")
    if found.promised is not None and found.promised > found.frames + 1:
        per_frame = found.samples_per_frame / info.rate
        note = cut_off(found.frames * per_frame, found.promised * per_frame)
        # mpg123 would complain to stderr each time that it is opened
        raise UnreadableError("its header promises more", replace(info, notes=(*info.notes, note)))
    # The encoder's delay and padding, which the decoder takes off, come to less than five frames.
    if found.samples > info.frames + 5 * found.samples_per_frame:
        raise UnreadableError(
            f"it holds {found.samples / info.rate:.2f} s of sound but libsndfile, led by its header, would "
            f"read only {info.duration:.2f} s"
        )
    info = replace(info, frames=min(info.frames, found.samples))
    if info.frames and not _end_is_there(info):
        info = replace(info, frames=_count(info))
    if found.samples > info.frames + 5 * found.samples_per_frame:
        raise UnreadableError(f"libsndfile can only decode it up to {info.duration:.2f} s")
    return info


def _flac_length(info: SoundInfo) -> SoundInfo:
    known = flac_samples(info.path)
    if known is None:
        return info if info.frames < _UNKNOWN_FRAMES else replace(info, frames=_count(info))
    stated, held = known
    if stated and held > stated:
        raise UnreadableError(
            f"it holds more than {held / info.rate:.2f} s of sound, but its header speaks of "
            f"{stated / info.rate:.2f} s"
        )
    if info.frames >= _UNKNOWN_FRAMES:
        info = replace(info, frames=_count(info))
        if held > info.frames:
            raise UnreadableError(f"libsndfile can only decode it up to {info.duration:.2f} s")
    return info


def _shortened(info: SoundInfo) -> SoundInfo:
    """The file as far as it can be read, with a note where that is noticeably less than it promises."""
    there = _count(info)
    if not there:
        raise UnreadableError("libsndfile can read none of its samples")
    known = flac_samples(info.path) if info.format == "FLAC" else None
    if known is not None and known[1] > there:
        raise UnreadableError(f"libsndfile can only decode it up to {there / info.rate:.2f} s")
    missing = (info.frames - there) / info.rate
    notes = (cut_off(there / info.rate, info.duration),) if missing >= _LEAST_MISSING else ()
    return replace(info, frames=there, notes=(*info.notes, *notes))


def _end_is_there(info: SoundInfo) -> bool:
    left = min(info.frames, info.rate // 10 + 1)
    try:
        with SoundReader(info, info.frames - left) as reader:
            while left:
                left -= reader.skip(left)
    except RecordingError:
        return False
    return True


def _count(info: SoundInfo) -> int:
    """Decode from the beginning and count the samples per channel until nothing more comes."""
    import soundfile

    frames = 0
    with decoding(info.path), open_sound(info.path, info.layout) as file:
        try:
            while read := len(file.read(max(1, 4096 // info.channels), dtype="float32", always_2d=True)):
                frames += read
        except soundfile.SoundFileError:  # damaged from here on; the caller says so
            pass
    return frames


def _is_dts(info: SoundInfo) -> bool:
    with open(info.path, "rb") as file:
        head = file.read(1 << 14)
    return any(sync in head for sync in _DTS)


def _finite(info: SoundInfo) -> SoundInfo:
    """Read all of a float file: no sample may be on another scale, and of those that are no numbers it is said."""
    bad, first, place = 0, 0, 0
    with SoundReader(info) as reader, open_sound(info.path, info.layout) as raw:
        while place < info.frames:
            block = raw.read(len(reader.read_channels(info.frames - place)), dtype="float32", always_2d=True)
            if not np.isfinite(np.abs(block).max(initial=0.0)):
                wrong = np.flatnonzero(~np.isfinite(block).all(axis=1))
                first = first if bad else place + int(wrong[0])
                bad += len(wrong)
            place += len(block)
    if not bad:
        return info
    if 2 * bad > info.frames:
        raise RecordingError(
            f"the recording {info.path} is no sound: {bad} of its {info.frames} samples are not a number or "
            f"infinite, the first at {first / info.rate:.3f} s; write it again"
        )
    many = "sample is" if bad == 1 else "samples are"
    note = (
        f"{bad} {many} not a number or infinite, the first at {first / info.rate:.3f} s (sample {first}); "
        "they are heard as silence"
    )
    return replace(info, notes=(*info.notes, note))


def _mixed(info: SoundInfo) -> SoundInfo:
    """Look at places spread over the file how its channels go together."""
    if info.channels == 1:
        return info
    balance = Balance()
    length = round(_LOOK_SECONDS * info.rate)
    step = max(info.frames // _LOOKS.get(info.format, _USUAL_LOOKS), length)
    places = range(step // 3 if info.frames > step else 0, info.frames, step)
    try:
        if info.format in _LOOKS:
            for place in places:
                with SoundReader(info, place) as reader:
                    balance.add(reader.read_channels(min(length, info.frames - place)))
        else:
            with decoding(info.path), open_sound(info.path, info.layout) as file:
                for place in places:
                    file.seek(place)
                    balance.add(file.read(length, dtype="float32", always_2d=True))
    except RecordingError:  # damaged; reading that place says so
        pass
    weights, said = balance.weights()
    return replace(info, weights=weights, notes=(*info.notes, *([said] if said else [])))
