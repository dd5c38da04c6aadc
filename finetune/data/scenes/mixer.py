"""Mixing: scenes of 10 s to 90 minutes with exact ground truth, from any sound bank.

Takes are drawn (:mod:`takes`), brought to a level, cut to what is audible, grouped, and laid on a timeline. A *group*
is what keeps its inner timing: one take, two sounds of which the second begins before the first has ended, or a pattern
of two or three sounds, which is placed twice. Groups never touch each other.

What holds of every scene:

- an event's onset is its first sample and its offset the end of its last, both on whole milliseconds; its samples are
  cut where they fall 45 dB below its peak or under the level of the background, so the tail of a room counts as far as
  it can be heard;
- two onsets are at least :data:`APART` seconds apart, so that order is never a matter of opinion;
- only plain sounds overlap, never speech, bursts or melodies; two that overlap have different labels and about the same
  level, and neither lies within the other;
- ``Event.level_db`` is the :func:`~echo_agent.finetune.data.scenes.augment.loudness` of the samples that were laid
down.

Everything follows from the generator; samples are float32 mono at 16 kHz with a peak below 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field, model_validator

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.clips import SILENCE, audible
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.records import Event, Voice
from echo_agent.finetune.data.scenes.augment import (
    RATE,
    coloured,
    fade,
    impulse,
    looped,
    loudness,
    reverberated,
    scaled,
    seamless,
)
from echo_agent.finetune.data.scenes.events import (
    Bounds,
    Positive,
    PositiveBounds,
    Scene,
    Share,
    Take,
    TakeSettings,
    draw_sound,
    draw_take,
)

APART = 0.5
"""Seconds between any two onsets, at least."""
LONGEST = 5400.0
"""Seconds of the longest scene: its samples are held in memory, twice."""
_STEADY = 60.0
"""Seconds of a scene from which on density falls."""
_NOISE_SIZE = 1 << 19
"""Samples after which the noise of the background repeats (33 s), so that its cost does not grow with the scene."""
_MASKED_DB = 6.0
"""Overlapping sounds differ by no more than this, or the quieter one might not be heard to start."""
_PEAK = 0.97
_TICK = RATE // 1000
"""Samples of a millisecond: events start and end on whole ones."""


class SceneSettings(TakeSettings):
    """How scenes are mixed; that of takes included."""

    duration: PositiveBounds = (20.0, 120.0)
    """Shortest and longest scene, s; lengths between them are log-uniform."""
    density: Positive = 0.2
    """Events per second in scenes of up to a minute, on average."""
    thinning: Share = 0.5
    """How density falls beyond a minute: with this power of the length (0: not at all; 1: no more events than in a
    minute)."""
    fewest: int = Field(default=3, ge=1)
    """Events that are placed even if density asks for fewer, if there is room."""
    solos: int = Field(default=0, ge=0, exclude_if=lambda value: value == 0)
    """Sounds that are heard once, whatever else is heard again and again: what a long scene can be asked about."""
    gap: Positive = 0.25
    """Shortest pause between two groups of events, s."""
    margin: Positive = 0.15
    """Kept free at both ends, s."""
    overlaps: Share = 0.25
    """Share of plain sounds that overlap another, as far as they are long enough."""
    overlap: Bounds = (0.2, 0.5)
    """How much two sounds overlap, as a part of the shorter one."""
    patterns: Share = 0.15
    """Chance that a scene has a pattern: the same two or three sounds twice, with other events between."""
    level_db: Bounds = (-26.0, -12.0)
    """Loudness of events, dB re full scale. Sounds of high peaks may stay below it."""
    background_db: Bounds = (-62.0, -42.0)
    """Root mean square of the background, dB re full scale."""
    ambience: Share = 0.35
    """Chance that the background is a looped ambience, where the bank has one; else it is noise."""
    rooms: Share = 0.3
    """Chance that a scene is heard in a room: its events are reverberated."""
    decays: PositiveBounds = (0.1, 0.4)
    """Seconds until such a room's reverberation is 60 dB down."""

    @model_validator(mode="after")
    def _audible(self) -> SceneSettings:
        if self.level_db[0] < self.background_db[1] + 6 or self.level_db[1] > -3:
            raise ValueError("level_db must lie at least 6 dB above background_db, and below -3")
        if self.overlap[0] <= 0 or self.overlap[1] >= 1:
            raise ValueError("overlap is a part of a sound, above 0 and below 1")
        if not 10 <= self.duration[0] <= self.duration[1] <= LONGEST:
            raise ValueError(f"duration must lie between 10 and {LONGEST:g} s")
        return self


@dataclass(frozen=True)
class _Group:
    """Takes that keep their distances, in samples from the start of the first."""

    takes: tuple[Take, ...]
    starts: tuple[int, ...] = (0,)

    @property
    def length(self) -> int:
        """Samples until all have ended."""
        return max(start + len(take.samples) for start, take in zip(self.starts, self.takes, strict=True))

    def reserved(self, gap: float) -> int:
        """Samples from its start to the earliest start of the next group."""
        return max(self.length + _ticks(gap), self.starts[-1] + _ticks(APART))


@dataclass(frozen=True)
class _Room:
    """What all events of a scene go through."""

    response: np.ndarray | None
    floor: float
    """Level of the background."""

    def heard(self, take: Take, rng: np.random.Generator, level_db: tuple[float, float]) -> Take | None:
        """The take at its level, cut to what is audible; None where next to nothing is."""
        samples = take.samples if self.response is None else reverberated(take.samples, self.response)
        gain = 10 ** (rng.uniform(*level_db) / 20) / loudness(samples)
        peak = float(np.abs(samples).max(initial=0.0))
        samples = samples * np.float32(min(gain, 0.95 / max(peak, 1e-6)))
        samples = samples[
            audible(samples, max(peak * min(gain, 0.95 / max(peak, 1e-6)) * SILENCE, self.floor))
        ]
        samples = samples[: len(samples) // _TICK * _TICK]
        return replace(take, samples=fade(samples, 0.01)) if len(samples) >= 0.05 * RATE else None


def mix(bank: SoundBank, rng: np.random.Generator, duration: float, settings: SceneSettings) -> Scene:
    """Mix one scene.

    Args:
        bank: Clips to draw from. Speech, bursts and melodies come where it has clips for them.
        rng: Source of every choice.
        duration: Length in seconds.
        settings: How scenes are mixed.

    Raises:
        DataError: The bank has only backgrounds.
    """
    if not (bank.sounds or bank.digits or bank.words):
        raise DataError("the bank has neither sounds nor speech in the splits that were asked for")
    size = round(duration * RATE)
    samples, floor, licences = _background(bank, rng, size, settings)
    room = _Room(impulse(rng, settings.decays) if rng.random() < settings.rooms else None, floor)
    free = (size - 2 * _ticks(settings.margin)) // _TICK
    groups = _draw_groups(bank, rng, settings, room, duration, free * _TICK)
    free -= sum(group.reserved(settings.gap) for group in groups) // _TICK
    pauses = rng.dirichlet(np.ones(len(groups) + 1)) * free
    placed: list[tuple[int, Take]] = []
    clock = 0.0
    reserved = _ticks(settings.margin)
    for group, pause in zip(groups, pauses, strict=False):
        clock += float(pause)
        first = reserved + int(clock) * _TICK
        placed += [(first + start, take) for start, take in zip(group.starts, group.takes, strict=True)]
        reserved += group.reserved(settings.gap)
    for first, take in placed:
        samples[first : first + len(take.samples)] += take.samples
    gain = min(1.0, _PEAK / float(np.abs(samples).max(initial=1e-6)))
    samples *= np.float32(gain)
    licences |= {clip.licence for _, take in placed for clip in take.clips}
    events = tuple(_event(first, take, gain) for first, take in placed)
    return Scene(samples, events, tuple(sorted(licences - {""})))


def _background(
    bank: SoundBank, rng: np.random.Generator, size: int, settings: SceneSettings
) -> tuple[np.ndarray, float, set[str]]:
    """Samples of the background, its level, and the licence of its clip.

    An ambience whose label is also that of a sound is not used: what is asked about is heard in events only.
    """
    level = 10 ** (rng.uniform(*settings.background_db) / 20)
    ambiences = [clip for clip in bank.backgrounds if clip.label not in bank.sounds]
    if ambiences and rng.random() < settings.ambience:
        clip = ambiences[int(rng.integers(len(ambiences)))]
        tile, licences = seamless(clip.samples), {clip.licence}
    else:
        tile, licences = coloured(rng, min(size, _NOISE_SIZE)), set[str]()
    tile = scaled(tile, level)
    return looped(tile, int(rng.integers(len(tile))), size), level, licences


def _draw_groups(
    bank: SoundBank,
    rng: np.random.Generator,
    settings: SceneSettings,
    room: _Room,
    duration: float,
    free: int,
) -> list[_Group]:
    """What is placed, in order; it fits into ``free`` samples."""
    density = settings.density * min(1.0, _STEADY / duration) ** settings.thinning
    wanted = max(settings.fewest, round(duration * density * rng.uniform(0.75, 1.25)))
    pattern = _pattern(bank, rng, settings, room) if rng.random() < settings.patterns else None
    barred = frozenset[str]()
    if pattern and 2 * pattern.reserved(settings.gap) < free // 2 and 2 * len(pattern.takes) < wanted:
        free -= 2 * pattern.reserved(settings.gap)
        wanted -= 2 * len(pattern.takes)
        barred = frozenset(take.label for take in pattern.takes)
    else:
        pattern = None
    solos = _solos(bank, rng, settings, room, barred)
    free -= sum(_Group((take,)).reserved(settings.gap) for take in solos)
    wanted -= len(solos)
    barred |= frozenset(take.label for take in solos)
    takes: list[Take] = []
    used: set[str] = set()
    for _ in range(3 * wanted):
        take = room.heard(draw_take(bank, rng, settings, used, barred), rng, settings.level_db)
        if take is None or (reserved := _Group((take,)).reserved(settings.gap)) > free:
            continue
        free -= reserved
        used.add(take.label)
        takes.append(take)
        if len(takes) == wanted:
            break
    for take in solos:
        takes.insert(int(rng.integers(len(takes) + 1)), take)
    groups = _overlapped(takes, rng, settings)
    if pattern and groups:
        first = int(rng.integers(len(groups)))
        second = int(rng.integers(first + 1, len(groups) + 1))
        groups = [*groups[:first], pattern, *groups[first:second], pattern, *groups[second:]]
    return groups


def _solos(
    bank: SoundBank, rng: np.random.Generator, settings: SceneSettings, room: _Room, barred: frozenset[str]
) -> list[Take]:
    """The sounds that are heard once; three labels at least are left for all else."""
    labels = sorted(set(bank.sounds) - barred)
    count = min(settings.solos, max(0, len(labels) - 3))
    chosen = [labels[int(i)] for i in rng.permutation(len(labels))[:count]] if count else []
    drawn = [room.heard(draw_sound(bank, rng, settings, [label]), rng, settings.level_db) for label in chosen]
    return [take for take in drawn if take is not None]


def _pattern(
    bank: SoundBank, rng: np.random.Generator, settings: SceneSettings, room: _Room
) -> _Group | None:
    """Two or three sounds of different labels with short pauses; None where the bank has too few sounds."""
    labels = sorted(bank.sounds)
    count = int(rng.integers(2, 4))
    if len(labels) < count + 2:
        return None
    chosen = [labels[int(i)] for i in rng.permutation(len(labels))[:count]]
    drawn = [room.heard(draw_sound(bank, rng, settings, [label]), rng, settings.level_db) for label in chosen]
    takes = [take for take in drawn if take is not None]
    if len(takes) < count:
        return None
    starts = [0]
    for take in takes[:-1]:
        pause = _ticks(settings.gap + rng.uniform(0.0, 0.5))
        starts.append(starts[-1] + max(len(take.samples) + pause, _ticks(APART)))
    return _Group(tuple(takes), tuple(starts))


def _overlapped(takes: Sequence[Take], rng: np.random.Generator, settings: SceneSettings) -> list[_Group]:
    """The takes in their order, each a group of its own, but for some sounds that are paired with a later one."""
    sounds = sum(take.kind == "sound" for take in takes)
    pairs = int(settings.overlaps * sounds / 2 + rng.random())
    left = list(takes)
    groups: dict[int, _Group] = {}
    for i in rng.permutation(len(left)):
        if len(groups) == pairs:
            break
        for j in rng.permutation(len(left)):
            first, second = left[int(i)], left[int(j)]
            if int(i) in groups or int(j) in groups or first is _TAKEN or second is _TAKEN:
                continue
            start = _overlap(first, second, rng, settings.overlap)
            if start is not None:
                groups[int(i)] = _Group((first, second), (0, start))
                left[int(j)] = _TAKEN
                break
    return [groups.get(i, _Group((take,))) for i, take in enumerate(left) if take is not _TAKEN]


_TAKEN = Take("", "sound", np.zeros(0, np.float32), ())
"""Stands for a sound that has become the second of a pair."""


def _overlap(first: Take, second: Take, rng: np.random.Generator, bounds: tuple[float, float]) -> int | None:
    """Sample of the first sound at which the second starts, or None where the two may not overlap."""
    if first.kind != "sound" or second.kind != "sound" or first.label == second.label:
        return None
    if abs(20 * math.log10(loudness(first.samples) / loudness(second.samples))) > _MASKED_DB:
        return None
    shorter = min(len(first.samples), len(second.samples))
    most = min(bounds[1], (len(first.samples) - _ticks(APART)) / shorter)
    if most < bounds[0]:
        return None
    start = len(first.samples) - int(rng.uniform(bounds[0], most) * shorter)
    return -(-start // _TICK) * _TICK


def _event(first: int, take: Take, gain: float) -> Event:
    """What is known of a take that was placed at sample ``first``."""
    voices = {clip.voice for clip in take.clips}
    genders: set[Voice] = {clip.gender for clip in take.clips}
    return Event(
        take.label,
        take.kind,
        round(first / RATE, 3),
        round((first + len(take.samples)) / RATE, 3),
        take.content,
        take.hits,
        take.sources,
        voices.pop() if take.content else "",
        genders.pop() if take.content and len(genders) == 1 else "",
        take.pitches,
        round(20 * math.log10(loudness(take.samples * np.float32(gain))), 2),
    )


def _ticks(seconds: float) -> int:
    """Samples of a time, rounded up to whole milliseconds."""
    return math.ceil(seconds * 1000 - 1e-6) * _TICK
