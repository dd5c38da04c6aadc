"""Scenes: recordings mixed from labelled clips with exact ground truth.

A scene is a timeline of events over a quiet background. An event is one sound, a *burst* of the same sound struck
several times, a few *notes* of an instrument, or a *phrase* of spoken digits or words. Every clip is varied as it is
laid down (pitch and tempo, level, band, room), so that a class is not one waveform. Everything follows from the seed.

Times are seconds, samples are float32 mono at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from echo_agent.errors import DataError
from echo_agent.finetune.data.records import Event, EventKind, Voice
from echo_agent.finetune.data.speech import GENDERS
from echo_agent.finetune.data.variations import (
    RATE,
    coloured,
    fade,
    impulse,
    looped,
    loudness,
    resample,
    reverberated,
    scaled,
    sequence,
    strike,
    vary,
)

SEQUENCE_LABELS = frozenset({"typing", "footsteps"})
"""Labels whose clips are single presses or steps: always laid several in a row, never counted."""
BURST_LABELS = frozenset({"drum", "clapping", "beep", "bell", "chopping", "sword", "dog", "gunshot"})
"""Labels that may be struck a countable number of times."""

COLUMNS = ("path", "label", "kind", "package", "voice", "source", "licence", "split", "pitch")
"""Columns that a bank's manifest must have; ``gender`` may be missing and is looked up then."""


@dataclass(frozen=True)
class Clip:
    """One row of the sound bank, its samples read."""

    label: str
    kind: str
    package: str
    voice: str
    source: str
    licence: str
    samples: np.ndarray = field(repr=False)
    pitch: int = -1
    """MIDI pitch of a note, otherwise -1."""
    gender: Voice = ""
    """Whether a woman or a man speaks; empty where nobody does or it is not known."""

    @property
    def instrument(self) -> str:
        """What a note is played on: its source without the pitch."""
        return self.source.rpartition(":")[0]


@dataclass(frozen=True)
class Take:
    """What is laid down as one event: its samples, and all that is known of it but its place and level."""

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


class SoundBank:
    """The clips of chosen splits, by label."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        """Group clips; raises DataError where there is none."""
        if not clips:
            raise DataError(
                "the sound bank holds no clip of the chosen splits: build it, or choose other splits"
            )
        self.sounds: dict[str, list[Clip]] = {}
        self.digits: dict[str, dict[str, list[Clip]]] = {}
        self.words: dict[str, dict[str, list[Clip]]] = {}
        self.backgrounds: list[Clip] = []
        for clip in clips:
            if clip.kind in ("sound", "note"):
                self.sounds.setdefault(clip.label, []).append(clip)
            elif clip.kind == "background":
                self.backgrounds.append(clip)
            else:
                voices = self.digits if clip.kind == "digit" else self.words
                voices.setdefault(clip.voice, {}).setdefault(clip.label, []).append(clip)

    @classmethod
    def load(
        cls, folder: Path, splits: Sequence[str], speech_splits: Sequence[str] | None = None
    ) -> SoundBank:
        """The clips of :func:`read_clips`, grouped."""
        return cls(read_clips(folder, splits, speech_splits))


def read_clips(folder: Path, splits: Sequence[str], speech_splits: Sequence[str] | None = None) -> list[Clip]:
    """Read the clips of a bank folder (``manifest.parquet`` and 16 kHz wav files).

    Args:
        folder: What :func:`echo_agent.finetune.data.bank.build_bank` wrote.
        splits: Splits of sounds, notes and backgrounds to take.
        speech_splits: Splits of digits and words; the same where None.

    Raises:
        DataError: There is no bank in the folder, or it is damaged.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet
    import soundfile

    path = folder / "manifest.parquet"
    if not path.exists():
        raise DataError(f"{path}: no sound bank there; build one with `echo-agent finetune bank`")
    spoken = frozenset(splits if speech_splits is None else speech_splits)
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, arrow.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read, build the bank anew: {error}") from error
    missing = [name for name in COLUMNS if rows and name not in rows[0]]
    if missing:
        raise DataError(f"{path} has no column {', '.join(map(repr, missing))}: build the bank anew")
    clips = []
    for row in rows:
        if row["split"] not in (spoken if row["kind"] in ("digit", "word") else splits):
            continue
        try:
            samples, _ = soundfile.read(folder / row["path"], dtype="float32")
        except soundfile.LibsndfileError as error:
            raise DataError(
                f"{path} names a clip that cannot be read, build the bank anew: {error}"
            ) from error
        fields = (row[name] for name in ("label", "kind", "package", "voice", "source", "licence"))
        gender = row.get("gender") or GENDERS.get(row["voice"], "")
        clips.append(Clip(*fields, samples, row["pitch"], gender))
    return clips


def make_scene(
    bank: SoundBank,
    rng: np.random.Generator,
    duration: float,
    *,
    density: float = 0.17,
    speech: float = 0.3,
    bursts: float = 0.12,
    margin: float = 0.15,
    repeat: float = 0.12,
) -> Scene:
    """Mix one scene.

    Args:
        bank: Clips to draw from.
        rng: Source of every choice.
        duration: Length in seconds.
        density: Events per second, on average; at least one event unless it is 0.
        speech: Share of events that are spoken phrases.
        bursts: Share of events that are a countable burst for certain; some others come out as bursts too.
        margin: Seconds kept free at both ends.
        repeat: Chance that an event takes a label which the scene already has.

    Raises:
        DataError: Speech or sounds are wanted, and the bank has none.
    """
    if density > 0 and ((speech > 0 and not bank.digits) or (speech < 1 and not bank.sounds)):
        missing = "spoken digits" if bank.sounds else "sounds"
        raise DataError(f"the bank has no {missing} in the splits that were asked for")
    wanted = max(int(density > 0), int(round(duration * density * rng.uniform(0.75, 1.25))))
    planned: list[tuple[Event, np.ndarray]] = []
    used: set[str] = set()
    free = duration - 2 * margin
    for _ in range(wanted):
        event, samples = _levelled(_draw(bank, rng, speech, bursts, used, repeat), rng)
        length = len(samples) / RATE
        if length + 0.25 > free:
            continue
        free -= length + 0.25
        used.add(event.label)
        planned.append((event, samples))
    gaps = rng.dirichlet(np.ones(len(planned) + 1)) * free
    mix = _background(bank, rng, int(round(duration * RATE)))
    events, clock = [], margin
    for (event, samples), gap in zip(planned, gaps, strict=False):
        clock += float(gap)
        first = min(int(clock * RATE), len(mix) - len(samples))
        mix[first : first + len(samples)] += samples
        onset, offset = first / RATE, (first + len(samples)) / RATE
        events.append(
            Event(
                event.label,
                event.kind,
                round(onset, 3),
                round(offset, 3),
                event.content,
                event.hits,
                event.sources,
            )
        )
        clock = offset + 0.25
    peak = float(np.abs(mix).max(initial=1e-6))
    return Scene((mix * min(1.0, 0.97 / peak)).astype(np.float32), tuple(events))


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


def _draw(
    bank: SoundBank, rng: np.random.Generator, speech: float, bursts: float, used: set[str], repeat: float
) -> Take:
    """What is heard next."""
    draw = rng.random()
    if draw < speech:
        return phrase(bank, rng)
    burst = draw < speech + bursts
    labels = (sorted(BURST_LABELS & set(bank.sounds)) if burst else []) or sorted(bank.sounds)
    fresh = [label for label in labels if label not in used]
    pick = fresh if fresh and rng.random() > repeat else labels
    label = pick[int(rng.integers(len(pick)))]
    clips = bank.sounds[label]
    clip = clips[int(rng.integers(len(clips)))]
    if clip.kind == "note" and rng.random() < 0.6:
        same = [c for c in clips if c.kind == "note" and c.instrument == clip.instrument]
        notes = [same[int(i)] for i in rng.integers(len(same), size=int(rng.integers(2, 4)))]
        parts = [vary(note.samples, rng, speeds=None)[: int(0.7 * RATE)] for note in notes]
        return Take(label, "notes", sequence(parts, 0.02 * RATE), tuple(notes))
    if label in SEQUENCE_LABELS or (label in BURST_LABELS and (burst or rng.random() < 0.4)):
        hits = int(rng.integers(4, 9)) if label in SEQUENCE_LABELS else int(rng.integers(2, 7))
        period = rng.uniform(0.3, 0.5) * RATE
        struck = vary(clip.samples, rng)[: int(0.9 * RATE)]
        if label in SEQUENCE_LABELS:
            period *= 0.6
        kind: EventKind = "sound" if label in SEQUENCE_LABELS else "burst"
        return Take(label, kind, strike(struck, hits, period, rng), (clip,), hits=hits)
    samples = vary(clip.samples, rng)
    longest = int(rng.uniform(2.0, 4.0) * RATE)
    return Take(label, "sound", fade(samples[:longest]), (clip,))


def _levelled(take: Take, rng: np.random.Generator) -> tuple[Event, np.ndarray]:
    """Set level and room of a take and describe it; its place is given later."""
    samples = take.samples
    if rng.random() < 0.25:
        samples = reverberated(samples, impulse(rng))
    target = 10 ** (rng.uniform(-24, -12) / 20)
    samples = np.clip(samples * (target / loudness(samples)), -0.95, 0.95)
    return Event(take.label, take.kind, 0.0, 0.0, take.content, take.hits, take.sources), samples


def _background(bank: SoundBank, rng: np.random.Generator, size: int) -> np.ndarray:
    """Quiet noise of some colour, or a looped ambience, between -62 and -42 dB."""
    level = 10 ** (rng.uniform(-62, -42) / 20)
    if bank.backgrounds and rng.random() < 0.35:
        clip = bank.backgrounds[int(rng.integers(len(bank.backgrounds)))].samples
        return scaled(looped(clip, int(rng.integers(len(clip))), size), level)
    return scaled(coloured(rng, size), level)
