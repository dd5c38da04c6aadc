"""Events of a mixed scene: the sound of each, drawn from the bank, and the types that describe a scene.

A take is a sound, a *burst* of one stroke struck a countable number of times, a *melody* of one instrument with a clear
contour, or a spoken *phrase*. What is countable must be countable by ear, so only clips that hold a single stroke are
struck; a melody is played by transposing the nearest recorded notes of its instrument, by a few semitones at most.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from echo_agent.finetune.data.bank.reader import Clip, SoundBank
from echo_agent.finetune.data.records import Event, EventKind
from echo_agent.finetune.data.scenes.augment import RATE, fade, resample, sequence, strike, vary

SEQUENCE_LABELS = frozenset({"typing", "footsteps"})
"""Labels whose clips are single presses or steps: always laid several in a row, never counted."""
BURST_LABELS = frozenset({"drum", "clapping", "beep", "bell", "chopping", "sword", "dog", "gunshot"})
"""Labels that may be struck a countable number of times."""
UNPLAYED = frozenset({"telephone"})
"""Labels of notes that nobody would call an instrument: no melody is played on them."""
_FRAME = 320
"""Samples of a frame in which strokes are told apart (20 ms)."""
_TRANSPOSED = 4
"""Semitones that a recorded note is transposed by at most."""
_CONTOURS = ("rising", "falling", "up and down", "down and up")


@dataclass(frozen=True)
class Take:
    """The sound of one event: its samples, and all that is known of it except its place and level."""

    label: str
    kind: EventKind
    samples: np.ndarray = field(repr=False)
    clips: tuple[Clip, ...] = field(repr=False)
    """What it is made of."""
    content: tuple[str, ...] = ()
    hits: int = 1
    pitches: tuple[int, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of its clips, sorted."""
        return tuple(sorted({clip.source for clip in self.clips}))


@dataclass(frozen=True)
class Scene:
    """A mixed recording and what is in it, in order of onset."""

    samples: np.ndarray = field(repr=False)
    events: tuple[Event, ...]
    licences: tuple[str, ...] = ()
    """The licences of all clips in it, background included, sorted; only :func:`mixing.mix` tells them."""

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / RATE


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]:g} lies above the upper bound {bounds[1]:g}")
    return bounds


Share = Annotated[float, Field(ge=0, le=1)]
Bounds = Annotated[tuple[float, float], AfterValidator(_ordered)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveBounds = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]


class TakeSettings(BaseModel):
    """What takes are drawn, and how they are varied."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    speech: Share = 0.3
    """Share of events that are spoken phrases, where the bank speaks."""
    bursts: Share = 0.15
    """Share of events that are a countable burst, where the bank has sounds for it."""
    melodies: Share = 0.12
    """Share of events that are a melody, where the bank has notes of known pitch. The rest are sounds."""
    repeat: Share = 0.12
    """Chance that an event may take a label which the scene already has."""
    seconds: PositiveBounds = (2.0, 4.0)
    """Longest stretch of a sound's clip that is taken, s."""
    late_start: Share = 0.5
    """Chance that the stretch of a longer clip starts anywhere, not at its beginning."""
    speeds: PositiveBounds = (0.88, 1.14)
    """How fast sounds are played: pitch and tempo."""
    band: Share = 0.3
    """Chance that a take is band-limited."""
    cutoffs: PositiveBounds = (2500, 6500)
    """Upper end of the band, Hz."""
    speech_rates: PositiveBounds = (0.9, 1.12)
    """How fast digits and words are played."""
    pauses: PositiveBounds = (0.02, 0.15)
    """Between two digits or words, s."""


def draw_take(
    bank: SoundBank,
    rng: np.random.Generator,
    settings: TakeSettings,
    used: Collection[str],
    barred: Collection[str],
) -> Take:
    """What is heard next; a share that the bank cannot give goes to sounds, all of it to speech in a bank of voices.

    Args:
        bank: It holds sounds or speech.
        rng: Source of every choice.
        settings: Shares and ranges.
        used: Labels that the scene already has: others are preferred.
        barred: Labels that are not drawn, unless there is no other.
    """
    draw = rng.random()
    labels = sorted(set(bank.sounds) - set(barred)) or sorted(bank.sounds)
    if not labels or (draw < settings.speech and (bank.digits or bank.words)):
        return vary_band(phrase(bank, rng, settings.speech_rates, settings.pauses), rng, settings)
    if draw < settings.speech + settings.bursts:
        choices = [label for label in labels if label in BURST_LABELS]
        take = burst(bank.sounds[_label(choices, rng, settings, used)], rng, settings) if choices else None
        if take:
            return take
    elif draw < settings.speech + settings.bursts + settings.melodies:
        noted = [label for label in labels if any(clip.pitch >= 0 for clip in bank.sounds[label])]
        choices = [label for label in noted if label not in UNPLAYED]
        if choices:
            return melody(bank.sounds[_label(choices, rng, settings, used)], rng, settings)
    return draw_sound(bank, rng, settings, labels, used)


def draw_sound(
    bank: SoundBank,
    rng: np.random.Generator,
    settings: TakeSettings,
    labels: Sequence[str],
    used: Collection[str] = (),
) -> Take:
    """One sound of one of the labels; single steps and key presses are laid several in a row."""
    label = _label(labels, rng, settings, used)
    clips = bank.sounds[label]
    clip = clips[int(rng.integers(len(clips)))]
    longest = int(rng.uniform(*settings.seconds) * RATE)
    late = rng.random() < settings.late_start
    first = int(rng.integers(len(clip.samples) - longest)) if late and len(clip.samples) > longest else 0
    samples = vary(
        clip.samples[first : first + longest], rng, settings.speeds, settings.band, settings.cutoffs
    )
    hits = 1
    if label in SEQUENCE_LABELS and len(samples) < 0.9 * RATE:
        hits = int(rng.integers(4, 9))
        samples = strike(samples, hits, rng.uniform(0.18, 0.3) * RATE, rng)
    if first:
        samples = fade(samples[::-1])[::-1]
    return Take(label, "sound", fade(samples), (clip,), hits=hits)


def burst(clips: Sequence[Clip], rng: np.random.Generator, settings: TakeSettings) -> Take | None:
    """Two to six strokes of one clip; None where the first few clips that are looked at hold no single stroke."""
    for i in rng.permutation(len(clips))[:8]:
        clip = clips[int(i)]
        ringing = stroke_seconds(clip.samples)
        if ringing is None:
            continue
        hits = int(rng.integers(2, 7))
        period = rng.uniform(max(0.35, ringing), 0.6) * RATE
        struck = vary(clip.samples, rng, settings.speeds, settings.band, settings.cutoffs)
        return Take(
            clip.label,
            "burst",
            strike(fade(struck[: int(0.9 * RATE)]), hits, period, rng),
            (clip,),
            hits=hits,
        )
    return None


def stroke_seconds(samples: np.ndarray) -> float | None:
    """Seconds from the beginning until a single stroke is 10 dB down; None where it is no single stroke.

    A single stroke is loudest within its first 0.12 s, is 10 dB down within half a second, and stays down.
    """
    size = -(-len(samples) // _FRAME)
    padded = np.pad(samples, (0, size * _FRAME - len(samples))).reshape(size, _FRAME)
    energy = np.mean(padded**2, axis=1)
    peak = int(energy.argmax())
    down = np.flatnonzero(energy[peak:] < 0.1 * energy[peak])
    end = peak + int(down[0]) if len(down) else size
    if peak > 5 or end > 25 or energy[end:].max(initial=0.0) > 0.15 * energy[peak]:
        return None
    return end * _FRAME / RATE


def phrase(
    bank: SoundBank,
    rng: np.random.Generator,
    rates: tuple[float, float] = (0.92, 1.1),
    pauses: tuple[float, float] = (0.02, 0.15),
) -> Take:
    """Three or four spoken digits, or three words, in one voice.

    Args:
        bank: It has digits or words.
        rng: Source of every choice.
        rates: How fast they are played.
        pauses: Seconds between them.
    """
    digits = not bank.words or (rng.random() < 0.6 and bool(bank.digits))
    voices = bank.digits if digits else bank.words
    names = sorted(voices)
    voice = voices[names[int(rng.integers(len(names)))]]
    labels = sorted(voice)
    if digits:
        said = [labels[int(i)] for i in rng.integers(len(labels), size=int(rng.integers(3, 5)))]
    else:
        said = [labels[int(i)] for i in rng.permutation(len(labels))[:3]]
    clips = tuple(voice[word][int(rng.integers(len(voice[word])))] for word in said)
    rate, pause = rng.uniform(*rates), rng.uniform(*pauses)
    samples = sequence([resample(clip.samples, rate) for clip in clips], pause * RATE)
    return Take("voice", "digits" if digits else "words", samples, clips, tuple(said))


def melody(clips: Sequence[Clip], rng: np.random.Generator, settings: TakeSettings) -> Take:
    """Three to five notes of one instrument that rise, fall, or turn once, each step 2 semitones or more.

    Args:
        clips: Of one label, some of them notes of known pitch.
        rng: Source of every choice.
        settings: How the melody is varied; its pitches are left as they are.
    """
    instruments = sorted({clip.instrument for clip in clips if clip.pitch >= 0})
    instrument = instruments[int(rng.integers(len(instruments)))]
    notes = [clip for clip in clips if clip.pitch >= 0 and clip.instrument == instrument]
    pitches = _contour({note.pitch for note in notes}, rng)
    length, gap = int(rng.uniform(0.3, 0.55) * RATE), rng.uniform(0.0, 0.05) * RATE
    played: list[Clip] = []
    parts: list[np.ndarray] = []
    for pitch in pitches:
        note = min(notes, key=lambda clip: (abs(clip.pitch - pitch), clip.pitch))
        played.append(note)
        samples = resample(note.samples, 2 ** ((pitch - note.pitch) / 12))[:length]
        parts.append(np.pad(samples, (0, length - len(samples))))
    take = Take(notes[0].label, "notes", sequence(parts, gap), tuple(played), pitches=pitches)
    return vary_band(take, rng, settings)


def vary_band(take: Take, rng: np.random.Generator, settings: TakeSettings) -> Take:
    """The take, at times band-limited, its tempo and pitch left alone."""
    return replace(take, samples=vary(take.samples, rng, None, settings.band, settings.cutoffs))


def _contour(recorded: Collection[int], rng: np.random.Generator) -> tuple[int, ...]:
    """Pitches of a melody, all of them within a few semitones of a recorded one."""
    within = {pitch + shift for pitch in recorded for shift in range(-_TRANSPOSED, _TRANSPOSED + 1)}
    contour = _CONTOURS[int(rng.integers(len(_CONTOURS)))]
    for largest in (7, 6, 5, 4, 3, 2):
        count = int(rng.integers(3, 6))
        steps = rng.integers(2, largest + 1, size=count - 1)
        if contour == "falling":
            steps = -steps
        elif contour != "rising":
            steps[int(rng.integers(1, count - 1)) :] *= -1
            steps = steps if contour == "up and down" else -steps
        offsets = list(accumulate((int(step) for step in steps), initial=0))
        starts = sorted(first for first in within if all(first + offset in within for offset in offsets))
        if starts:
            first = starts[int(rng.integers(len(starts)))]
            return tuple(first + offset for offset in offsets)
    raise AssertionError("steps of two semitones fit around any note")


def _label(
    labels: Sequence[str], rng: np.random.Generator, settings: TakeSettings, used: Collection[str]
) -> str:
    """One of the labels, at most times one that the scene does not have yet."""
    fresh = [label for label in labels if label not in used]
    pick = fresh if fresh and rng.random() > settings.repeat else labels
    return pick[int(rng.integers(len(pick)))]
