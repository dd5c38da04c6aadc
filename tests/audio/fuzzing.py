"""Opens sound files that were damaged at random, one after the other: what `test_fuzz` runs in another process.

    python -m tests.audio.fuzzing FILE FOLDER FIRST LAST

For each seed from FIRST to before LAST the damaged file is written to FOLDER, and a line of JSON with its seed and path
is printed; when it was looked at, it is removed. So the last file that is left is the one at which the process ended.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import resource
import sys
from pathlib import Path

import numpy as np

from echo_agent.audio.recording import Recording
from echo_agent.audio.references import samples_of_span
from echo_agent.errors import RecordingError
from tests.sounds import apart

DEADLINE = 30
"""Seconds after which a file that has not been done with hangs."""
MEMORY = 2 << 30
"""Bytes of address space of the process, and of each decoder that it starts."""
LONGEST = 120.0
"""Seconds of sound from which on a file is refused; those that are damaged hold 1.2."""
_ROUNDING = 1 / 65536 + 1e-6
_HEADER = 600
_EXTREMES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\0\0\0\x01",
)


def damaged(data: bytes, seed: int) -> bytes:
    """A copy of a file with one kind of damage, or several; the same for the same seed."""
    generator = random.Random(seed)
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        kind = generator.choice(_KINDS)
        kind(changed, generator)
    return bytes(changed)


def _place(data: bytearray, generator: random.Random) -> int:
    """A place in the file; in every other case one in its header."""
    return generator.randrange(max(1, min(len(data), _HEADER) if generator.random() < 0.5 else len(data)))


def _flip(data: bytearray, generator: random.Random) -> None:
    for _ in range(generator.choice((1, 3, 30))):
        if data:
            data[_place(data, generator)] ^= 1 << generator.randrange(8)


def _cut(data: bytearray, generator: random.Random) -> None:
    del data[generator.randrange(1, len(data) + 1) if data else 0 :]


def _stretch(data: bytearray, generator: random.Random) -> slice:
    start = _place(data, generator)
    return slice(start, start + generator.choice((1, 4, 100, 1000, 5000)))


def _repeat(data: bytearray, generator: random.Random) -> None:
    part = _stretch(data, generator)
    data[part.start : part.start] = data[part]


def _remove(data: bytearray, generator: random.Random) -> None:
    del data[_stretch(data, generator)]


def _swap(data: bytearray, generator: random.Random) -> None:
    if len(data) > 8:
        head = min(len(data), _HEADER)
        one, other = generator.randrange(head), generator.randrange(head)
        data[one], data[other] = data[other], data[one]


def _blank(data: bytearray, generator: random.Random) -> None:
    part = _stretch(data, generator)
    data[part] = bytes(len(data[part]))


def _scramble(data: bytearray, generator: random.Random) -> None:
    part = _stretch(data, generator)
    data[part] = generator.randbytes(len(data[part]))


def _extreme(data: bytearray, generator: random.Random) -> None:
    """A number in the header that no file has."""
    at = generator.randrange(max(1, min(len(data), _HEADER)))
    data[at : at + 4] = generator.choice(_EXTREMES)


_KINDS = (_flip, _flip, _cut, _repeat, _remove, _swap, _blank, _scramble, _extreme)


def look(path: Path, generator: random.Random) -> str:
    """Open a file and hear some crops of it; what came of that.

    Raises:
        AssertionError: A crop is not its slice of the whole, or an error does not name the file in one line.
    """
    try:
        recording = Recording.open(path, LONGEST)
        spans = [sorted(generator.uniform(0.0, recording.duration) for _ in range(2)) for _ in range(3)]
        before = [recording.read(start, end, rate=recording.rate) for start, end in spans]
        whole = recording.read(rate=recording.rate)
        after = [recording.read(start, end, rate=recording.rate) for start, end in spans]
    except RecordingError as error:
        assert str(path) in str(error) and "\n" not in str(error), f"it says: {error}"
        return "refused"
    assert len(whole) == recording.frames
    assert np.isfinite(whole).all()
    # a file that turns out to be damaged when it is read is decoded to 16 bits: what was read before was not rounded
    rounding = _ROUNDING if any("damaged in the middle" in note for note in recording.notes) else 0.0
    for (start, end), one, other in zip(spans, before, after, strict=True):
        first, last = samples_of_span(start, end, recording.duration, recording.rate)
        for crop, when, most in ((one, "before", rounding), (other, "after", 0.0)):
            assert apart(crop, whole[first:last]) <= most, (
                f"the crop {start!r} to {end!r}, read {when} the whole, is not its slice of it; {recording!r}, "
                f"{recording.notes}"
            )
    return "heard"


def main(file: str, folder: str, first: str, last: str) -> None:
    """Go through the seeds."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    data = Path(file).read_bytes()
    for seed in range(int(first), int(last)):
        path = Path(folder) / f"{seed}-{Path(file).name}"
        path.write_bytes(damaged(data, seed))
        print(json.dumps({"seed": seed, "path": str(path)}), flush=True)
        faulthandler.dump_traceback_later(DEADLINE, exit=True)
        opened = set(os.listdir("/proc/self/fd"))
        found = look(path, random.Random(seed))
        gc.collect()
        assert set(os.listdir("/proc/self/fd")) == opened, "it leaves files open"
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps({"seed": seed, "found": found}), flush=True)
        path.unlink()
    print(json.dumps({"megabytes": [_most_of_ours(), _most_of_a_decoder()]}), flush=True)


def _most_of_ours() -> int:
    """The most megabytes that this process held; `ru_maxrss` begins with what the process held that started it."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) // 1024


def _most_of_a_decoder() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


if __name__ == "__main__":
    faulthandler.enable()
    main(*sys.argv[1:])
