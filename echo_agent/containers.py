"""Decodes what libsndfile cannot read (m4a, aac, mp4, webm, wma, ...) once, to a temporary wav, with ffmpeg.

The ffmpeg on the PATH is taken, else the one that the imageio-ffmpeg package ships; ffprobe is not needed,
because the codec is read from ffmpeg's own report and named to pydub. pydub decodes in memory, three copies
of the whole; so it is given recordings of up to ten minutes, and a longer one is written by ffmpeg straight
to disk. Both give the same samples, and a test says so.

The wav (16 bits, the file's own rate and channels) is then read like any other recording. It is shared by all
who open the same state of the same file, and is deleted when the last of them is gone, or at the end of the
process.

Files come from strangers. ffmpeg is therefore told which formats it may take a file for (none that names
other files or addresses, such as playlists), and may open nothing but local files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import warnings
import weakref
from dataclasses import dataclass
from threading import Lock
from typing import Any

from echo_agent.errors import RecordingError
from echo_agent.files import FileStamp

__all__ = ["DecodedFile", "decode", "find_ffmpeg"]

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,wav,w64,flac,aiff,au,caf,asf,avi,flv,mpeg,mpegts,mxf,nut,rm,"
    "amr,amrnb,amrwb,ac3,eac3,dts,dtshd,truehd,mlp,ape,wv,tta,tak,mpc,mpc8,oma,qcp,voc,gsm,spdif,loas,dsf,iff,3dostr"
).split(",")
"""The containers that ffmpeg may take a file for: sound and film, none of which points to other files."""

LONGEST_IN_MEMORY = 600.0
"""Seconds of sound that pydub may decode in memory; about 100 MB a copy at 44.1 kHz stereo."""

_INSTALL = (
    "Install ffmpeg (https://ffmpeg.org, or your system's package of that name) "
    "or `pip install imageio-ffmpeg`"
)
_CUT_OFF = re.compile(r"partial file|ended prematurely|truncat", re.IGNORECASE)
_SHORTFALL = (0.5, 0.02)
"""A decoded sound may be this much shorter than its container says: so many seconds, or this share of the
whole."""


class DecodedFile:
    """A temporary wav that holds the sound of a container; the file goes when this object does."""

    def __init__(self) -> None:
        """Make the folder that the wav will be in."""
        folder = tempfile.mkdtemp(prefix="echo-agent-")
        self.path = os.path.join(folder, "decoded.wav")
        """Where the wav is."""
        self._finalizer = weakref.finalize(self, _remove, folder, os.getpid())

    def close(self) -> None:
        """Delete the wav now."""
        self._finalizer()


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child holds a copy of the object, not of the file
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Probe:
    """What ffmpeg reports of a container after reading it through."""

    format: str
    codec: str
    seconds: float | None
    """Length of the sound that the container holds; None if ffmpeg cannot tell."""


_decoded: weakref.WeakValueDictionary[FileStamp, DecodedFile] = weakref.WeakValueDictionary()
_locks: dict[FileStamp, Lock] = {}
_guard = Lock()


def find_ffmpeg() -> str | None:
    """Path of the ffmpeg on the PATH, else of the one that imageio-ffmpeg ships, else None."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


def decode(stamp: FileStamp, why: str) -> DecodedFile:
    """Decode the container at `stamp.path`, or share what another thread has decoded of the same file.

    Args:
        stamp: The file, in the state in which it is to be decoded.
        why: Why libsndfile does not read it; part of the message if ffmpeg does not either.

    Raises:
        RecordingError: There is no ffmpeg, or it cannot decode the file, or the file is cut off.
    """
    with _guard:
        lock = _locks.setdefault(stamp, Lock())
    with lock:
        with _guard:
            shared = _decoded.get(stamp)
        if shared is not None:
            return shared
        try:
            made = _decode(stamp.path, why)
            with _guard:
                _decoded[stamp] = made
            return made
        finally:
            with _guard:
                _locks.pop(stamp, None)


def _decode(path: str, why: str) -> DecodedFile:
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        raise RecordingError(f"the recording {path} cannot be read without ffmpeg: {why}. {_INSTALL}")
    probe = _probe(ffmpeg, path, why)
    made = DecodedFile()
    try:
        # A file called .wav or .raw pydub reads by itself, without ffmpeg; libsndfile has refused it already.
        pydub_suits = not path.lower().endswith((".wav", ".wave", ".raw", ".pcm")) and probe.format not in (
            "wav",
            "w64",
        )
        if pydub_suits and probe.seconds is not None and probe.seconds <= LONGEST_IN_MEMORY:
            _decode_in_memory(ffmpeg, path, probe, made.path)
        else:
            _decode_to_disk(ffmpeg, path, probe, made.path)
        _check_length(path, probe, made.path)
    except BaseException:
        made.close()
        raise
    return made


def _run(ffmpeg: str, *arguments: str) -> tuple[int, str]:
    """Run ffmpeg; its exit code and what it reported. Files are given as `file:`, so no name is an option."""
    done = subprocess.run(
        [ffmpeg, "-nostdin", "-hide_banner", "-y", *arguments],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stderr.decode("utf-8", errors="replace").replace("\r", "\n")


def _probe(ffmpeg: str, path: str, why: str) -> _Probe:
    """Read the container through without decoding: its format, its sound's codec and length, and its end."""
    code, report = _run(
        ffmpeg,
        *("-protocol_whitelist", "file,pipe", "-format_whitelist", ",".join(FORMATS)),
        *("-i", f"file:{path}", "-vn", "-sn", "-dn", "-c", "copy", "-f", "null", "-"),
    )
    container = re.search(r"^Input #0, (\w+)", report, re.MULTILINE)
    sound = re.search(r"Stream #0:\d+.*?: Audio: (\w+)", report)
    if container is not None and sound is None:
        raise RecordingError(
            f"the recording {path} holds no sound (a {container[1]} file without an audio stream)"
        )
    if container is None or sound is None or code != 0:
        raise RecordingError(
            f"the recording {path} cannot be read by libsndfile ({why}) nor by ffmpeg "
            f"({_last_words(report, path)}); is it a sound file, and complete?"
        )
    seconds = _seconds(re.findall(r"time=(\d+):(\d+):(\d+(?:\.\d+)?)", report))
    promised = _seconds(re.findall(r"Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", report))
    states_length = "Video:" not in report and "Estimating duration" not in report
    if _CUT_OFF.search(report) or (states_length and _falls_short(seconds, promised)):
        raise RecordingError(
            f"the recording {path} is cut off: {seconds or 0:.2f} s"
            + (f" of the {promised:.2f} s that its header promises" if promised else "")
            + " can be read. Get the whole file, or save the part that is there as a file of its own"
        )
    return _Probe(container[1], sound[1], seconds)


def _seconds(times: list[tuple[str, str, str]]) -> float | None:
    if not times:
        return None
    hours, minutes, seconds = times[-1]
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _falls_short(seconds: float | None, promised: float | None) -> bool:
    """Whether `seconds` is so much less than promised that something must be missing."""
    if seconds is None or promised is None:
        return False
    return promised - seconds > max(_SHORTFALL[0], _SHORTFALL[1] * promised)


def _last_words(report: str, path: str) -> str:
    """The line of ffmpeg's report that says what was wrong."""
    lines = [re.sub(r"^\[[^]]*\]\s*", "", line).strip() for line in report.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Error opening input file")]
    words = (telling or lines or ["no report"])[-1].replace(f"file:{path}", "it").replace(path, "it")
    return words.removeprefix("Error opening input: ")


def _decode_in_memory(ffmpeg: str, path: str, probe: _Probe, target: str) -> None:
    segment = _pydub_segment()
    converter = type(
        "Segment", (segment,), {"converter": ffmpeg}
    )  # not pydub's own class: that is shared by all
    try:
        sound = converter.from_file(path, format=probe.format, codec=probe.codec)
        sound.export(target, format="wav").close()
    except (
        Exception
    ) as error:  # pydub raises its own errors, KeyError, struct.error and others on what it cannot read
        words = _last_words(str(error), path)
        raise RecordingError(
            f"the recording {path} ({probe.codec} in {probe.format}) cannot be decoded: {words}"
        ) from error


def _pydub_segment() -> Any:  # pydub has no type information
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # it warns about audioop on Python 3.11 and 3.12, and about a PATH without ffmpeg
        try:
            from pydub import AudioSegment
        except ImportError as error:
            need = "audioop-lts" if "audioop" in str(error) else "pydub"
            raise RecordingError(f"decoding this recording needs {need}: `pip install {need}`") from error
    return AudioSegment


def _decode_to_disk(ffmpeg: str, path: str, probe: _Probe, target: str) -> None:
    code, report = _run(
        ffmpeg,
        *("-v", "error", "-protocol_whitelist", "file,pipe", "-f", probe.format, "-acodec", probe.codec),
        *(
            "-i",
            f"file:{path}",
            "-vn",
            "-sn",
            "-dn",
            "-c:a",
            "pcm_s16le",
            "-rf64",
            "auto",
            "-f",
            "wav",
            target,
        ),
    )
    if code != 0:
        words = _last_words(report, path)
        raise RecordingError(
            f"the recording {path} ({probe.codec} in {probe.format}) cannot be decoded: {words}"
        )


def _check_length(path: str, probe: _Probe, target: str) -> None:
    import soundfile

    try:
        found = soundfile.info(target)
    except (soundfile.SoundFileError, OSError) as error:
        raise RecordingError(f"the recording {path} decodes to nothing that can be read") from error
    seconds = found.frames / found.samplerate
    if found.frames == 0:
        raise RecordingError(f"the recording {path} holds no samples")
    if _falls_short(seconds, probe.seconds):
        raise RecordingError(
            f"the recording {path} is damaged: {seconds:.2f} s of its {probe.seconds:.2f} s can be decoded. "
            "Get an undamaged file, or save the part that can be played as a file of its own"
        )
