"""Single notes of ten instruments, rendered from the General MIDI sound font that Debian packages.

Recordings of single notes are rare in the packages, and pitch and instrument are worth asking about, so
notes are rendered: a few programs per instrument, pitches over its musical range, two strengths.
Simplification: a sound font is not an orchestra; some programs (trumpet, guitar) sound synthetic, and scores
on notes say little about recordings. The source of a note is ``fluid:<program>:<pitch>``, so a pitch of a
program is held out as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echo_agent.errors import DataError, MissingExtraError
from echo_agent.finetune.data.bank.clips import Wave, to_mono_16k

FONT = "fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2"
_RATE = 44_100
_RELEASE_SECONDS = 0.3


@dataclass(frozen=True)
class Instrument:
    """Which notes are rendered for one instrument."""

    label: str
    """Name of the instrument, the label of its clips."""
    programs: tuple[int, ...]
    """General MIDI programs, counted from 0."""
    low: int
    """Lowest MIDI pitch."""
    high: int
    """Highest MIDI pitch."""
    pitches: int
    """How many pitches each program plays, spread evenly from low to high."""
    strengths: int = 1
    """How many velocities each pitch is played at."""


INSTRUMENTS = (
    Instrument("piano", (0, 1, 2, 3), 33, 93, 9),
    Instrument("organ", (16, 17, 18, 19, 20), 40, 84, 7),
    Instrument("violin", (40, 41, 42), 48, 88, 11),
    Instrument("flute", (72, 73, 74, 75), 62, 93, 9),
    Instrument("trumpet", (56, 59, 60), 50, 80, 11),
    Instrument("guitar", (24, 25, 26, 27, 28), 40, 79, 7),
    Instrument("bell", (14, 9, 10), 60, 96, 11),
    Instrument("telephone", (124,), 50, 84, 17, strengths=2),
    Instrument("marimba", (12, 13), 48, 91, 16),
    Instrument("harp", (46,), 36, 96, 17, strengths=2),
)
_VELOCITIES = (72, 100, 120)


@dataclass(frozen=True)
class Note:
    """One rendered note."""

    label: str
    """The instrument."""
    program: int
    """General MIDI program, counted from 0."""
    pitch: int
    """MIDI pitch; 60 is middle C."""
    velocity: int
    """How hard it is played, 1 to 127."""
    seconds: float
    """How long the key is held and rings, 0.6 to 2 s."""

    @property
    def source(self) -> str:
        """The unit of splitting: all strengths of a pitch of a program."""
        return f"fluid:{self.program}:{self.pitch}"


def notes() -> Iterator[Note]:
    """Lists all notes in a fixed order; lengths and strengths follow from a hash of program and pitch."""
    for instrument in INSTRUMENTS:
        for program in instrument.programs:
            pitches = np.linspace(instrument.low, instrument.high, instrument.pitches).round().astype(int)
            for pitch in pitches:
                digest = hashlib.sha256(f"{program}:{pitch}".encode()).digest()
                for layer in range(instrument.strengths):
                    velocity = _VELOCITIES[(digest[0] + layer) % len(_VELOCITIES)]
                    seconds = round(0.8 + 1.2 * digest[1 + layer] / 255, 2)
                    yield Note(instrument.label, program, int(pitch), velocity, seconds)


def render(folder: Path) -> Iterator[tuple[Note, Wave]]:
    """Renders all notes with the sound font found in the folder of unpacked packages."""
    font = folder / FONT
    if not font.is_file():
        raise DataError(f"{font} is missing: fetch fluid-soundfont-gm first")
    try:
        import tinysoundfont  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            "rendering notes needs: pip install --no-deps tinysoundfont==0.3.7"
        ) from error
    synth = tinysoundfont.Synth(gain=0, samplerate=_RATE)
    font_id = synth.sfload(str(font))
    for note in notes():
        synth.program_select(0, font_id, 0, note.program)
        synth.noteon(0, note.pitch, note.velocity)
        held = _take(synth.generate(int((note.seconds - _RELEASE_SECONDS) * _RATE)))
        synth.noteoff(0, note.pitch)
        tail = _take(synth.generate(int(_RELEASE_SECONDS * _RATE)))
        synth.sounds_off()
        synth.generate(int(0.2 * _RATE))
        stereo = np.concatenate([held, tail])
        fade = int(0.05 * _RATE)
        stereo[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)[:, None]
        yield note, to_mono_16k(stereo, _RATE)


def _take(buffer: memoryview) -> np.ndarray:
    """Copies the interleaved stereo floats out of the synthesiser's buffer as ``[samples, 2]``."""
    return np.frombuffer(buffer, dtype=np.float32).reshape(-1, 2).copy()
