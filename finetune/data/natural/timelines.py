"""Timelines: what is heard in a recording, simulated, and written as text.

A language model that cannot answer from the true timeline will not answer from sound. So it is taught, and measured,
on text first: records are drawn here without any audio, with what mixed scenes have (sounds in a row and over one
another, several times, strokes to count, loud and soft, one place or many), and a line of text per event stands where
audio tokens will stand.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from echo_agent.finetune.data.natural.sounds import NO_SOUND, kin, sounds
from echo_agent.finetune.data.natural.talk import Line
from echo_agent.finetune.data.records import Event, Record
from echo_agent.small.notes import LOUD, NOTHING, SOFT, Heard, second, told

STRUCK = frozenset(
    "drum snare_drum bass_drum cymbal gong bell church_bell cowbell bicycle_bell knock door_slam hammer axe dog duck "
    "crow owl rooster sheep goat cow cat cough sneeze hiccup clapping finger_snapping car_horn train_whistle gunshot "
    "explosion beep telephone doorbell buzzer foghorn whistle thump bang slap whip basketball sword camera coins drip "
    "tambourine glass_breaking clink fireworks thunder saw typing".split()
)
"""Sounds that come in strokes, which can be counted."""
LONG_SOUNDS = frozenset(
    "rain wind waves stream waterfall fire traffic crowd engine fan air_conditioner static white_noise cricket "
    "vacuum_cleaner hair_dryer lawn_mower frying boiling airplane helicopter train".split()
)
"""Sounds that may fill a recording."""
COUNTS = (0.02, 0.05, 0.08, 0.14, 0.17, 0.17, 0.13, 0.1, 0.06, 0.05, 0.03)
"""Shares of recordings with 0, 1, 2, ... sounds, before some are heard again."""
SECONDS_PER_WORD = 0.4


def simulate(rng: np.random.Generator, ident: str = "simulated") -> Record:
    """A record without audio: up to ten sounds within up to five minutes."""
    count = int(rng.choice(len(COUNTS), p=COUNTS))
    if count == 0:
        return Record(id=ident, audio="none", duration=float(np.round(rng.uniform(4, 60), 1)))
    keys = _keys(rng, count)
    if rng.random() < 0.4 and len(keys) > 1:  # some are heard again
        for _ in range(int(rng.integers(1, 4))):
            keys.append(keys[int(rng.integers(len(keys)))])
        keys = [keys[int(i)] for i in rng.permutation(len(keys))]
    clock = float(rng.uniform(0, 4)) if rng.random() < 0.7 else 0.0
    spacing = float(rng.choice([1.0, 3.0, 8.0, 20.0], p=[0.35, 0.35, 0.2, 0.1]))
    events: list[Event] = []
    for key in keys:
        length = float(np.round(rng.uniform(0.6, 6.0) if rng.random() < 0.8 else rng.uniform(6, 20), 1))
        hits = 1
        if key in STRUCK and rng.random() < 0.5:
            hits = int(rng.integers(2, 8))
            length = max(length, 0.4 * hits)
        level = float(rng.choice([LOUD + 4, -20.0, SOFT - 4], p=[0.25, 0.5, 0.25]))
        kind = "burst" if hits > 1 else "sound"
        onset = round(clock, 1)
        events.append(
            Event(
                key, kind, onset, round(onset + length, 1), hits=hits, level_db=level, sources=("simulated",)
            )
        )
        overlap = rng.random() < 0.12
        clock = onset + (
            float(rng.uniform(0.6, 1.0)) if overlap else length + float(rng.exponential(spacing)) + 0.3
        )
    duration = round(max(event.offset for event in events) + float(rng.uniform(0, 5)), 1)
    if rng.random() < 0.15 and not any(e.label in LONG_SOUNDS for e in events):
        ground = _far_from(rng, sorted(LONG_SOUNDS & sounds().keys()), [e.label for e in events])
        if ground:
            events.append(Event(ground, "sound", 0.0, duration, level_db=SOFT - 4, sources=("simulated",)))
    return Record(
        id=ident,
        audio="none",
        duration=duration,
        events=tuple(events),
        labels=tuple(sorted(sounds().keys() - NO_SOUND)),
    )


def _keys(rng: np.random.Generator, count: int) -> list[str]:
    """Sounds of which no two are akin; in some recordings all from one place."""
    pool = sorted(sounds().keys() - NO_SOUND)
    if rng.random() < 0.35:
        places = sorted({place for sound in sounds().values() for place in sound.places})
        place = places[int(rng.integers(len(places)))]
        pool = [key for key in pool if place in sounds()[key].places] or pool
    chosen: list[str] = []
    for i in rng.permutation(len(pool)):
        key = pool[int(i)]
        if len(chosen) < count and not any(kin(key, other) for other in chosen):
            chosen.append(key)
    return chosen


def _far_from(rng: np.random.Generator, pool: Sequence[str], taken: Sequence[str]) -> str | None:
    free = [key for key in pool if not any(kin(key, other) for other in taken)]
    return free[int(rng.integers(len(free)))] if free else None


def heard(event: Event) -> Heard:
    """An event as perfect ears hear it."""
    return Heard(sounds()[event.label].plain, event.onset, event.offset, event.hits, event.level_db)


def as_text(record: Record) -> str:
    """A line per event: ``12-15 church bell 3s x3 loud``; then how long the recording is."""
    lines = [told(heard(event)) for event in record.events]
    return "\n".join([*(lines or [NOTHING]), f"length {round(record.duration)}"])


def talk_text(lines: Sequence[Line]) -> str:
    """Speech as a timeline: ``4-7 a: "Hi Zara, Stella speaking."``; who speaks stands before each line."""
    clock, written = 0.0, list[str]()
    for line in lines:
        end = clock + SECONDS_PER_WORD * len(line.text.split())
        written.append(f'{second(clock)}-{second(end)} {line.speaker}: "{line.text}"')
        clock = end + 0.5
    return "\n".join([*written, f"length {round(clock)}"])
