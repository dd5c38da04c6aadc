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
from echo_agent.finetune.data.records import Event, EventKind

RATE = 16000

SEQUENCE_LABELS = frozenset({"typing", "footsteps"})
"""Labels whose clips are single presses or steps: always laid several in a row, never counted."""
BURST_LABELS = frozenset({"drum", "clapping", "beep", "bell", "chopping", "sword", "dog", "gunshot"})
"""Labels that may be struck a countable number of times."""


@dataclass(frozen=True)
class Clip:
    """One row of the sound bank, its samples read."""

    label: str
    kind: str
    package: str
    voice: str
    source: str
    licence: str
    samples: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A mixed recording and what is in it, in order of onset."""

    samples: np.ndarray = field(repr=False)
    events: tuple[Event, ...]

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
        clips.append(Clip(*fields, samples))
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
        event, samples = _draw_event(bank, rng, speech, bursts, used, repeat)
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


def _draw_event(
    bank: SoundBank, rng: np.random.Generator, speech: float, bursts: float, used: set[str], repeat: float
) -> tuple[Event, np.ndarray]:
    """One event with its samples, not yet on the timeline."""
    draw = rng.random()
    if draw < speech:
        return _phrase(bank, rng)
    burst = draw < speech + bursts
    labels = (sorted(BURST_LABELS & set(bank.sounds)) if burst else []) or sorted(bank.sounds)
    fresh = [label for label in labels if label not in used]
    pick = fresh if fresh and rng.random() > repeat else labels
    label = pick[int(rng.integers(len(pick)))]
    clips = bank.sounds[label]
    clip = clips[int(rng.integers(len(clips)))]
    if clip.kind == "note" and rng.random() < 0.6:
        same = [
            c
            for c in clips
            if c.kind == "note" and c.source.rsplit(":", 1)[0] == clip.source.rsplit(":", 1)[0]
        ]
        notes = [same[int(i)] for i in rng.integers(len(same), size=int(rng.integers(2, 4)))]
        parts = [_vary(note, rng, tempo=False)[: int(0.7 * RATE)] for note in notes]
        return _event(label, "notes", rng, _sequence(parts, 0.02 * RATE), notes)
    if label in SEQUENCE_LABELS or (label in BURST_LABELS and (burst or rng.random() < 0.4)):
        hits = int(rng.integers(4, 9)) if label in SEQUENCE_LABELS else int(rng.integers(2, 7))
        period = rng.uniform(0.3, 0.5) * RATE
        struck = _vary(clip, rng)[: int(0.9 * RATE)]
        if label in SEQUENCE_LABELS:
            period *= 0.6
        parts = [struck * rng.uniform(0.8, 1.0) for _ in range(hits)]
        kind: EventKind = "sound" if label in SEQUENCE_LABELS else "burst"
        return _event(label, kind, rng, _struck(parts, period, rng), [clip], hits=hits)
    samples = _vary(clip, rng)
    longest = int(rng.uniform(2.0, 4.0) * RATE)
    return _event(label, "sound", rng, _fade(samples[:longest]), [clip])


def _phrase(bank: SoundBank, rng: np.random.Generator) -> tuple[Event, np.ndarray]:
    """Two to four spoken digits, or two or three words, in one voice."""
    kinds: list[EventKind] = ["digits"] if not bank.words or rng.random() < 0.6 else ["words"]
    voices = bank.digits if kinds[0] == "digits" else bank.words
    names = sorted(voices)
    voice = voices[names[int(rng.integers(len(names)))]]
    labels = sorted(voice)
    count = int(rng.integers(3, 5)) if kinds[0] == "digits" else 3
    if kinds[0] == "words":
        said = [labels[int(i)] for i in rng.permutation(len(labels))[:count]]
    else:
        said = [labels[int(i)] for i in rng.integers(len(labels), size=count)]
    clips = [voice[word][int(rng.integers(len(voice[word])))] for word in said]
    tempo, gap = rng.uniform(0.92, 1.1), rng.uniform(0.02, 0.15) * RATE
    parts = [_resample(clip.samples, tempo) for clip in clips]
    return _event("voice", kinds[0], rng, _sequence(parts, gap), clips, content=tuple(said))


def _event(
    label: str,
    kind: EventKind,
    rng: np.random.Generator,
    samples: np.ndarray,
    clips: Sequence[Clip],
    content: tuple[str, ...] = (),
    hits: int = 1,
) -> tuple[Event, np.ndarray]:
    """Set level and room of an event's samples and describe it; its place is given later."""
    if rng.random() < 0.25:
        samples = _room(samples, rng)
    loud = np.sort(np.abs(samples))[-max(1, len(samples) // 4) :]
    level = float(np.sqrt(np.mean(loud**2))) + 1e-6
    target = 10 ** (rng.uniform(-24, -12) / 20)
    samples = np.clip(samples * (target / level), -0.95, 0.95)
    return Event(label, kind, 0.0, 0.0, content, hits, tuple(sorted({c.source for c in clips}))), samples


def _vary(clip: Clip, rng: np.random.Generator, tempo: bool = True) -> np.ndarray:
    """A clip at a slightly other pitch and tempo, at times band-limited."""
    samples = clip.samples
    if tempo:
        samples = _resample(samples, rng.uniform(0.88, 1.14))
    if rng.random() < 0.3:
        samples = _low_pass(samples, rng.uniform(2500, 6500))
    return samples


def _resample(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play ``factor`` times as fast."""
    size = max(2, int(len(samples) / factor))
    return np.interp(np.arange(size) * factor, np.arange(len(samples)), samples).astype(np.float32)


def _low_pass(samples: np.ndarray, cutoff: float) -> np.ndarray:
    """Gentle low-pass at ``cutoff`` Hz in the frequency domain."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    return np.fft.irfft(spectrum / (1 + (frequencies / cutoff) ** 8), len(samples)).astype(np.float32)


def _room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small synthetic room: exponentially decaying noise as its response."""
    decay = rng.uniform(0.1, 0.4)
    size = int(decay * RATE)
    response = rng.standard_normal(size) * np.exp(-6.9 * np.arange(size) / size)
    response *= rng.uniform(0.1, 0.4) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    total = len(samples) + size // 2
    n = 1 << (len(samples) + size - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, n) * np.fft.rfft(response, n), n)
    return wet[:total].astype(np.float32)


def _fade(samples: np.ndarray, seconds: float = 0.03) -> np.ndarray:
    """Fade the end out, so that a cut does not click."""
    samples = samples.copy()
    size = min(len(samples), int(seconds * RATE))
    samples[-size:] *= np.linspace(1, 0, size, dtype=np.float32)
    return samples


def _sequence(parts: Sequence[np.ndarray], gap: float) -> np.ndarray:
    """Parts one after another, ``gap`` samples apart."""
    silence = np.zeros(int(gap), np.float32)
    joined: list[np.ndarray] = []
    for part in parts:
        joined += [_fade(part), silence]
    return np.concatenate(joined[:-1])


def _struck(parts: Sequence[np.ndarray], period: float, rng: np.random.Generator) -> np.ndarray:
    """Parts laid over each other at about equal distances of ``period`` samples."""
    starts = [int(i * period + rng.uniform(-0.06, 0.06) * period * (i > 0)) for i in range(len(parts))]
    total = np.zeros(max(s + len(p) for s, p in zip(starts, parts, strict=True)), np.float32)
    for start, part in zip(starts, parts, strict=True):
        total[start : start + len(part)] += part
    return total


def _background(bank: SoundBank, rng: np.random.Generator, size: int) -> np.ndarray:
    """Quiet noise of some colour, or a looped ambience, between -62 and -42 dB."""
    level = 10 ** (rng.uniform(-62, -42) / 20)
    if bank.backgrounds and rng.random() < 0.35:
        clip = bank.backgrounds[int(rng.integers(len(bank.backgrounds)))].samples
        start = int(rng.integers(len(clip)))
        noise = np.resize(np.roll(clip, -start), size)
    else:
        spectrum = np.fft.rfft(rng.standard_normal(size))
        slope = rng.uniform(0.0, 1.0)
        spectrum[1:] /= np.arange(1, len(spectrum)) ** slope
        noise = np.fft.irfft(spectrum, size)
    return (noise * (level / (np.sqrt(np.mean(noise**2)) + 1e-9))).astype(np.float32)
