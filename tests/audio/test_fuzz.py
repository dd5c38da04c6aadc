"""Sound files of many formats, damaged at random: each is heard or refused, within limits of memory and time.

A file at which a process ended (with a traceback, a crash, at the deadline) is kept in `build/fuzz` with what was said;
its name begins with its seed, and `python -m tests.audio.fuzzing` with the whole file opens it again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sounds import ffmpeg, lively, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the limits of memory are those of Linux"),
]

KEPT = Path(__file__).parents[2] / "build" / "fuzz"
SEEDS = 100
MOST_MEGABYTES = 1200
RATE = 16_000

BY_LIBSNDFILE = {
    "pcm16.wav": "PCM_16", "float.wav": "FLOAT", "ima.wav": "IMA_ADPCM", "pcm24.aiff": "PCM_24", "pcm16.au": "PCM_16",
    "pcm16.caf": "PCM_16", "pcm16.w64": "PCM_16", "pcm16.flac": "PCM_16", "vorbis.ogg": "VORBIS", "layer3.mp3": None,
    "pcm16.voc": "PCM_16", "alac.caf": "ALAC_16", "g721.au": "G721_32",
}  # fmt: skip
"""Files that libsndfile reads, and the codec of each."""
BY_FFMPEG = {
    "aac.m4a": ("aac",), "fast.mov": ("alac", "-movflags", "faststart"), "aac.aac": ("aac",), "aac.flv": ("aac",),
    "aac.ts": ("aac",), "mp2.mpg": ("mp2",), "mp3.avi": ("libmp3lame",), "mp3.wav": ("libmp3lame",),
    "opus.webm": ("libopus",), "flac.mka": ("flac",), "opus.opus": ("libopus",), "flac.oga": ("flac",),
    "wma.wma": ("wmav2",), "ac3.ac3": ("ac3",), "wavpack.wv": ("wavpack",), "tta.tta": ("tta",),
}  # fmt: skip
"""Files that ffmpeg makes, most of which it reads too, with the codec and further options of each."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


def _made(folder: Path, name: str) -> Path:
    """A whole file of 1.2 s in two channels (one, where the codec knows no more)."""
    sound = lively(1.2, RATE, 1 if name == "g721.au" else 2)
    if name in BY_LIBSNDFILE:
        return write(folder / name, sound, RATE, BY_LIBSNDFILE[name])
    wav = write(folder / f"{name}.wav", sound, RATE)
    codec, *options = BY_FFMPEG[name]
    ffmpeg("-i", wav, "-c:a", codec, *options, folder / name)
    return folder / name


@pytest.mark.parametrize("name", [*BY_LIBSNDFILE, *BY_FFMPEG])
def test_damaged_files_are_heard_or_refused(files: Path, tmp_path: Path, name: str) -> None:
    whole = _made(files, name)
    with ThreadPoolExecutor(2) as pool:  # two processes at once
        parts = [(0, SEEDS // 2), (SEEDS // 2, SEEDS)]
        failed = [*pool.map(lambda part: _through(whole, tmp_path, *part), parts)]
    faults = [fault for part in failed for fault in part]
    assert not faults, "\n\n".join(faults)


def _through(whole: Path, folder: Path, first: int, last: int) -> list[str]:
    """Go through the seeds from `first` to before `last` in processes of their own; what was wrong."""
    faults: list[str] = []
    heard = 0
    while first < last:
        done = subprocess.run(
            [sys.executable, "-m", "tests.audio.fuzzing", str(whole), str(folder), str(first), str(last)],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"TMPDIR": str(folder)},
            timeout=600,
        )
        said = [json.loads(line) for line in done.stdout.splitlines()]
        heard += sum("found" in line for line in said)
        if done.returncode == 0:
            if max(said[-1]["megabytes"]) > MOST_MEGABYTES:
                faults.append(f"{whole.name}, seeds {first} to {last}: it took {said[-1]['megabytes']} MB")
            break
        path = Path(said[-1]["path"])
        KEPT.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, KEPT)
        (KEPT / f"{path.name}.txt").write_text(done.stderr)
        faults.append(f"{KEPT / path.name}: exit code {done.returncode}\n{done.stderr[-1500:]}")
        path.unlink()
        first = said[-1]["seed"] + 1
    assert faults or heard
    return faults
