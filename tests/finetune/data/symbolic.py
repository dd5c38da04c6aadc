"""Records without audio, of the kinds that scenes have, to ask about."""

from __future__ import annotations

import numpy as np

from echo_agent.finetune.data.records import Event, Record
from echo_agent.finetune.data.vocabulary import DIGITS, WORDS
from echo_agent.finetune.nano.questions import SOUNDS

VOICES = {"kal": "man", "rms": "man", "slt": "woman", "f3": "woman"}
INSTRUMENTS = ("flute", "guitar", "harp", "marimba", "organ", "piano", "trumpet", "violin")
STRUCK = ("drum", "bell", "clapping", "gunshot")


def record(number: int, shortest: float = 20.0, longest: float = 120.0, seed: int = 0) -> Record:
    """A record with sounds, bursts, melodies and phrases one after another."""
    rng = np.random.default_rng([seed, number])
    duration = float(np.round(rng.uniform(shortest, longest), 1))
    events: list[Event] = []
    clock = 0.3
    while True:
        clock += 0.5 + rng.exponential(3)
        length = rng.uniform(0.5, 3)
        if clock + length > duration - 0.3:
            break
        events.append(_event(rng, round(clock, 3), round(clock + length, 3)))
        clock += length
    return Record(
        id=f"s{number:05d}", audio=f"audio/s{number:05d}.flac", duration=duration, events=tuple(events),
        labels=SOUNDS, corpus="scenes",
    )  # fmt: skip


def _event(rng: np.random.Generator, onset: float, offset: float) -> Event:
    draw, level = rng.random(), float(np.round(rng.uniform(-30, -12), 1))
    if draw < 0.35:
        voice = list(VOICES)[int(rng.integers(len(VOICES)))]
        kind = "digits" if rng.random() < 0.6 else "words"
        said = rng.choice(DIGITS, 3) if kind == "digits" else rng.choice(WORDS, 3, replace=False)
        content, gender = tuple(str(word) for word in said), VOICES[voice]
        return Event("voice", kind, onset, offset, content, voice=voice, gender=gender, level_db=level)  # pyright: ignore
    if draw < 0.5:
        label = STRUCK[int(rng.integers(len(STRUCK)))]
        return Event(label, "burst", onset, offset, hits=int(rng.integers(2, 7)), level_db=level)
    if draw < 0.65:
        label = INSTRUMENTS[int(rng.integers(len(INSTRUMENTS)))]
        pitches = np.cumsum([60, *rng.choice([-4, -2, 2, 4], 3)])
        return Event(label, "notes", onset, offset, pitches=tuple(int(p) for p in pitches), level_db=level)
    label = SOUNDS[int(rng.integers(len(SOUNDS)))]
    return Event(label, "sound", onset, offset, level_db=level)
