"""Runs ffmpeg: which programs there are, what one says of a file, and the sound that it decodes, as a stream.

Files come from strangers. ffmpeg is therefore told which formats it may take a file for (none that names other
files or addresses, such as playlists), and may open nothing but local files, and works within the limits of
`echo_agent.audio.limited`.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from echo_agent.audio.limited import MEMORY, run_limited

__all__ = ["Report", "decode_stream", "find_ffmpeg", "find_ffmpegs", "look_at"]

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,mp3,ogg,wav,w64,flac,aiff,au,caf,asf,avi,flv,mpeg,mpegts,mxf,nut,rm,"
    "amr,amrnb,amrwb,ac3,eac3,dts,dtshd,truehd,mlp,ape,wv,tta,tak,mpc,mpc8,oma,qcp,voc,gsm,spdif,loas,dsf,iff,3dostr,"
    "dv,swf,wtv,gxf,live_flv,ac4,aax,aa,adx,aea,aptx,aptx_hd,avr,bfstm,brstm,dss,epaf,g729,hca,ircam,ivr,mmf,mods,"
    "nistsphere,nsp,nsv,osq,pvf,roq,sbc,sds,shn,smk,sol,sox,svs,vag,vqf,wve,xa,xwma"
).split(",")
"""The containers that ffmpeg may take a file for: sound and film, none of which points to other files."""

HIGHEST_RATE = 48_000
"""Sound of a higher rate is resampled to this one while it is decoded, Hz."""
_FIRST_LINES, _LAST_LINES = 300, 40
_ALWAYS = ("-nostdin", "-hide_banner", "-max_alloc", str(MEMORY // 2))
_FAR = ("-probesize", "200M", "-analyzeduration", "200M")
"""How far ffmpeg looks into a file for sound that it does not find at the beginning."""

_TIMED = "aresample=async=1:min_hard_comp=0.2:first_pts=0"
"""Fills with silence what the times in the file leave open. It keeps all of a gap in memory before it gives it, so what
comes to it is small already: 16 bits, of no higher rate than is wanted."""
_STEP = 16_384
"""Samples of silence that it puts in, and speaks of, at a time."""
_WITH_TIMES = (
    "mov",
    "matroska",
    "ogg",
    "mpegts",
    "mpeg",
    "asf",
    "flv",
    "live_flv",
    "nut",
    "mxf",
    "wtv",
    "rm",
    "flac",
)
"""Containers that state times; for the others ffmpeg counts them from what it finds."""
_WITHOUT_LENGTH = ("ogg", "mpegts", "mpeg")
_EMPTY_WORDS = (
    *("Error opening input file", "Conversion failed", "Exiting with", "Terminating thread", "Statistics"),
    *(
        "All consumers",
        "All streams",
        "Total:",
        "Input ",
        "Output ",
        "video:",
        "size=",
        "Nothing was written",
    ),
)
"""How lines begin that do not say what was wrong."""
_DAMAGE = re.compile(
    r"Error submitting packet to decoder|Error while decoding|corrupt decoded frame|Packet corrupt"
)
_BY_THE_WAY = re.compile(r" \([^)]*0x[^)]*\)|, \d+ kb/s.*$| \((default|forced)\)")
"""What it says of a track that need not be told."""
_SILENCE = re.compile(r"adding (\d+) audio samples of silence")
_DROPPED = re.compile(r"discarding (\d+) audio samples")


@dataclass
class Report:
    """What ffmpeg said of a file, line by line."""

    lines: list[str] = field(default_factory=list)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    """The last lines, if there were more than are kept."""
    damaged: int = 0
    """Places that it could not decode."""
    filled: list[int] = field(default_factory=list)
    """Samples of silence that it put in, each time."""
    dropped: int = 0
    """Samples that it left out because their time was over."""
    gave_up: bool = False
    """Whether there was not enough memory for the silence that the times ask for."""
    stopped: str | None = None
    """Why it was stopped before its end."""

    def add(self, line: str) -> None:
        """Take note of a line."""
        (self.lines if len(self.lines) < _FIRST_LINES else self.last).append(line)
        if _DAMAGE.search(line):
            self.damaged += 1
        elif found := _SILENCE.search(line):
            goes_on = bool(self.filled) and self.filled[-1] > 0 and self.filled[-1] % _STEP == 0
            self.filled.append((self.filled.pop() if goes_on else 0) + int(found[1]))
        elif found := _DROPPED.search(line):
            self.dropped += int(found[1])
        elif "Failed to compensate for timestamp" in line:
            self.gave_up = True

    @property
    def format(self) -> str | None:
        """The container, such as "mov"; None if ffmpeg knows none."""
        return self._first(r"^Input #0, (\w+)")

    @property
    def tracks(self) -> dict[int, str]:
        """What it says of each track of sound, such as "aac (LC), 44100 Hz, stereo, fltp", by number."""
        found: dict[int, str] = {}
        for line in self.lines:
            if line.startswith(("Stream mapping", "Output #0")):
                break
            if track := re.match(r"\s*Stream #0:(\d+).*?: Audio: (.+)", line):
                found.setdefault(int(track[1]), _BY_THE_WAY.sub("", track[2]))
        return found

    @property
    def taken(self) -> int | None:
        """The number of the track that it decoded."""
        number = self._first(r"^\s*Stream #0:(\d+) -> #0:0")
        return None if number is None else int(number)

    @property
    def start(self) -> float:
        """Where the clock of the file begins, seconds."""
        return float(self._first(r"Duration: .*?start: (-?\d+\.\d+)") or 0.0)

    @property
    def has_times(self) -> bool:
        """Whether the container states when its sound is to be heard."""
        return self.format in _WITH_TIMES

    @property
    def late(self) -> float:
        """How much later than the file's own clock the track that it decoded begins, seconds; 0 if not stated."""
        for line in self.lines:
            if found := re.match(rf"\s*Stream #0:{self.taken}\b.*?: Audio: .*, start (\d+\.\d+)", line):
                return float(found[1]) - self.start
        return 0.0

    @property
    def promised(self) -> float | None:
        """Length of the sound as its header says it, seconds; None where it says none, or that of a film."""
        if (
            self.format in _WITHOUT_LENGTH
            or any("Estimating duration" in line for line in self.lines)
            or len(self.tracks) > 1
        ):
            return None
        if any(": Video:" in line and "(attached pic)" not in line for line in self.lines):
            return None
        times = re.search(r"Duration: (\d+):(\d+):(\d+\.\d+)", "\n".join(self.lines))
        return int(times[1]) * 3600 + int(times[2]) * 60 + float(times[3]) if times else None

    @property
    def highest_rate(self) -> int:
        """The highest rate of a track, Hz; 0 if none is stated."""
        return max(
            [int(rate) for track in self.tracks.values() for rate in re.findall(r"(\d+) Hz", track)],
            default=0,
        )

    def last_words(self, path: str) -> str:
        """The line that says what was wrong."""
        lines = [
            re.sub(r"^\[[^]]*\]\s*", "", line).strip() for line in [*self.lines, *self.last] if line.strip()
        ]
        telling = [line for line in lines if not line.startswith(_EMPTY_WORDS)]
        words = (telling or lines or ["it says nothing"])[-1]
        return words.replace(f"file:{path}", "it").replace(path, "it").removeprefix("Error opening input: ")

    def speaks_of(self, path: str) -> bool:
        """Whether it got as far as the file: an ffmpeg that does not start, does not."""
        return any("Input #0" in line or path in line for line in self.lines)

    def _first(self, pattern: str) -> str | None:
        for line in self.lines:
            if found := re.search(pattern, line):
                return found[1]
        return None


def find_ffmpegs() -> Iterator[str]:
    """Every ffmpeg there is: those on the PATH in their order, then the one that imageio-ffmpeg ships."""
    seen: set[str] = set()
    for folder in os.get_exec_path():
        found = shutil.which("ffmpeg", path=folder) if folder else None
        if found and os.path.realpath(found) not in seen:
            seen.add(os.path.realpath(found))
            yield found
    try:
        import imageio_ffmpeg

        shipped = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError, OSError):
        return
    if os.path.realpath(shutil.which(shipped) or shipped) not in seen:
        yield shipped


def find_ffmpeg() -> str | None:
    """Path of the first ffmpeg on the PATH, else of the one that imageio-ffmpeg ships, else None."""
    return next(find_ffmpegs(), None)


def look_at(program: str, path: str) -> tuple[Report, tuple[str, ...]]:
    """What `program` says of a file, and the options with which it finds the sound in it.

    Raises:
        OSError: The program does not start.
    """
    far: tuple[str, ...] = ()
    report = _look(program, path, far)
    unsure = any("Could not find codec parameters" in line for line in report.lines)
    if report.format is not None and (unsure or not report.tracks):
        far = _FAR
        report = _look(program, path, far)
    return report, far


def _look(program: str, path: str, options: tuple[str, ...]) -> Report:
    report = Report()
    _, report.stopped = run_limited([program, *_ALWAYS, *_source(path, options)], lambda _: None, report.add)
    if report.stopped:
        report.add(report.stopped)
    return report


def decode_stream(
    program: str,
    path: str,
    options: tuple[str, ...],
    rate: int | None,
    timed: bool,
    take: Callable[[bytes], None],
) -> tuple[int, Report]:
    """Decode the track that ffmpeg takes, and give what comes to `take`, piece by piece: an au file, 16 bits.

    Args:
        program: The ffmpeg.
        path: The file.
        options: What `look_at` found that it needs.
        rate: To what it resamples, Hz; None keeps the file's own.
        timed: Whether gaps and a late beginning become silence, as the times in the file have it.
        take: Called with each piece. What it raises ends the program.

    Returns:
        Its exit code, and what it said.

    Raises:
        OSError: The program does not start.
    """
    report = Report()
    how = [] if rate is None else ["-ar", str(rate)]
    if timed:
        small = "aresample=osf=s16" + ("" if rate is None else f":osr={rate}")
        how = ["-af", f"{small},{_TIMED}"]
    code, report.stopped = run_limited(
        [
            *(program, *_ALWAYS, "-v", "repeat+verbose", *_source(path, options)),
            *("-vn", "-sn", "-dn", *how),
            *("-c:a", "pcm_s16be", "-f", "au", "pipe:1"),
        ],
        take,
        report.add,
    )
    return code, report


def _source(path: str, options: tuple[str, ...]) -> list[str]:
    """The options that open a file; it is given as `file:`, so that no name is an option or an address."""
    safe = ["-protocol_whitelist", "file,pipe", "-format_whitelist", ",".join(FORMATS)]
    return [*safe, *options, "-i", f"file:{path}"]
