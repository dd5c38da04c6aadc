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
from typing import Any

import numpy as np

from echo_agent.errors import DataError, MissingExtraError
from echo_agent.finetune.data.bank.clips import Wave, to_mono_16k

FONT = "fluid-soundfont-gm/usr/share/sounds/sf2/FluidR3_GM.sf2"
RATE = 44_100
"""Samples per second of what is played, in Hz."""
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
    synth, font_id = synthesiser(folder)
    for note in notes():
        synth.program_select(0, font_id, 0, note.program)
        synth.noteon(0, note.pitch, note.velocity)
        held = taken(synth, note.seconds - _RELEASE_SECONDS)
        synth.noteoff(0, note.pitch)
        tail = taken(synth, _RELEASE_SECONDS)
        synth.sounds_off()
        synth.generate(int(0.2 * RATE))
        stereo = np.concatenate([held, tail])
        fade = int(0.05 * RATE)
        stereo[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)[:, None]
        yield note, to_mono_16k(stereo, RATE)


def synthesiser(folder: Path) -> tuple[Any, int]:
    """A synthesiser and the number of the sound font in it.

    Raises:
        DataError: The sound font is not in the folder of unpacked packages.
        MissingExtraError: What plays it is not installed.
    """
    font = folder / FONT
    if not font.is_file():
        raise DataError(f"{font} is missing: fetch fluid-soundfont-gm first")
    try:
        import tinysoundfont  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError(
            "rendering notes needs: pip install --no-deps tinysoundfont==0.3.7"
        ) from error
    synth: Any = tinysoundfont.Synth(gain=0, samplerate=RATE)
    return synth, synth.sfload(str(font))


def taken(synth: Any, seconds: float) -> np.ndarray:
    """So much of what a synthesiser plays now, in stereo ``[samples, 2]``."""
    buffer = synth.generate(int(seconds * RATE))
    return np.frombuffer(buffer, dtype=np.float32).reshape(-1, 2).copy()
