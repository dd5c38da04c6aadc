"""Scenes as echo-nano was pretrained on: events in a row over a quiet background, mixed from a sound bank.

The mixer of datasets (:mod:`echo_agent.finetune.data.scenes.mixer`) overlaps events and adds rooms and patterns. This
one stays because the figures of the embedded echo-nano rest on what it mixes, sample by sample; it goes with the next
embedded model. Everything follows from the seed. Times are seconds, samples are float32 mono at 16 kHz.
"""

from __future__ import annotations

import numpy as np

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.records import Event, EventKind
from echo_agent.finetune.data.scenes.augment import (
    RATE,
    coloured,
    fade,
    impulse,
    looped,
    loudness,
    reverberated,
    scaled,
    sequence,
    strike,
    vary,
)
from echo_agent.finetune.data.scenes.events import BURST_LABELS, SEQUENCE_LABELS, Scene, Take, phrase


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
        bursts: Share of events that are sure to be a countable burst; some others become bursts too.
        margin: Seconds kept free at both ends.
        repeat: Probability that an event gets a label that the scene already has.

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
