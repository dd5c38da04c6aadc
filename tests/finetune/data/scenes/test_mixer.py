"""Mixed scenes: what the event list says is what is in the samples, whatever the seed, the length and the bank."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from pydantic import ValidationError

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.reader import Clip, SoundBank
from echo_agent.finetune.data.bank.speech import GENDERS
from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.scenes.augment import RATE, loudness
from echo_agent.finetune.data.scenes.events import Scene, stroke_seconds
from echo_agent.finetune.data.scenes.mixer import APART, SceneSettings, mix
from tests.finetune.small_bank import make_clips, noise

QUIET = SceneSettings(background_db=(-120.0, -120.0))
"""Nothing but the events is heard, so where they are can be read off the samples."""
PLAIN = {"speech": 0.0, "bursts": 0.0, "melodies": 0.0}
LENGTHS = (10.0, 45.0, 600.0)


def struck(label: str, n: int) -> Clip:
    """A clip of one stroke that dies away."""
    samples = noise(0.4, 70 + n) * np.exp(-np.arange(round(0.4 * RATE)) / (0.05 * RATE)).astype(np.float32)
    return Clip(label, "sound", "tests", "", f"struck:{label}:{n}", "CC0-1.0", samples)


def tone(pitch: int) -> Clip:
    """A note of an instrument, as a sine."""
    seconds = np.arange(RATE) / RATE
    samples = 0.9 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * seconds)
    return Clip("flute", "note", "tests", "", f"sine:{pitch}", "MIT", samples.astype(np.float32), pitch)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    """The small bank, with notes of known pitch, strokes that can be counted, and a voice that is known."""
    known = [replace(c, voice="slt", gender=GENDERS["slt"]) if c.voice else c for c in make_clips()]
    long = [
        Clip(f"hum {n}", "sound", "tests", "", f"long:{n}", "CC-BY-3.0", noise(6.0, 90 + n)) for n in range(4)
    ]
    return [*known, *long, *(struck("drum", n) for n in range(3)), *(tone(pitch) for pitch in (60, 67))]


@pytest.fixture(scope="module")
def bank(clips: list[Clip]) -> SoundBank:
    return SoundBank(clips)


@pytest.fixture(scope="module")
def scenes(bank: SoundBank) -> list[Scene]:
    return [
        mix(bank, np.random.default_rng(seed), seconds, QUIET)
        for seconds, count in zip(LENGTHS, (30, 30, 3), strict=True)
        for seed in range(count)
    ]


@pytest.fixture(scope="module")
def events(scenes: list[Scene]) -> list[Event]:
    return [event for scene in scenes for event in scene.events]


def overlapping(scene: Scene) -> list[tuple[Event, Event]]:
    return [(a, b) for i, a in enumerate(scene.events) for b in scene.events[i + 1 :] if b.onset < a.offset]


def span(scene: Scene, start: float, end: float) -> np.ndarray:
    return scene.samples[round(start * RATE) : round(end * RATE)]


def test_samples_are_as_promised(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.samples.dtype == np.float32 and scene.samples.ndim == 1
        assert scene.duration in LENGTHS
        assert np.abs(scene.samples).max() < 1.0


def test_same_seed_same_scene(bank: SoundBank) -> None:
    def mixed(seed: int) -> Scene:
        return mix(bank, np.random.default_rng(seed), 30.0, SceneSettings())

    assert mixed(5).events == mixed(5).events != mixed(6).events
    np.testing.assert_array_equal(mixed(5).samples, mixed(5).samples)


def test_onsets_are_apart_and_events_inside(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.events
        assert all(b.onset - a.onset > APART - 1e-6 for a, b in pairwise(scene.events))
        assert all(0.149 < e.onset < e.offset < scene.duration - 0.149 for e in scene.events)


def test_every_kind_of_event_is_drawn(events: list[Event]) -> None:
    assert {event.kind for event in events} == {"sound", "burst", "notes", "digits", "words"}
    for event in events:
        spoken = event.kind in ("digits", "words")
        assert (event.voice, event.gender) == (("slt", "woman") if spoken else ("", ""))
        assert bool(event.content) == spoken == (event.label == "voice")
        assert bool(event.pitches) == (event.kind == "notes")
        assert event.sources and event.level_db is not None


def test_only_plain_sounds_overlap(scenes: list[Scene]) -> None:
    pairs = [pair for scene in scenes for pair in overlapping(scene)]
    assert len(pairs) > 10
    for a, b in pairs:
        assert a.kind == b.kind == "sound" and a.label != b.label
        assert b.offset > a.offset  # neither lies within the other
        shorter = min(a.offset - a.onset, b.offset - b.onset)
        assert 0.19 * shorter < a.offset - b.onset < 0.51 * shorter
        assert a.level_db is not None and b.level_db is not None and abs(a.level_db - b.level_db) < 6.1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_the_share_of_overlaps_is_the_one_asked_for(clips: list[Clip], share: float) -> None:
    bank = SoundBank([clip for clip in clips if clip.label.startswith("hum")])
    settings = SceneSettings(
        overlaps=share, patterns=0.0, repeat=0.5, level_db=(-16.0, -14.0), rooms=0.0, **PLAIN
    )
    mixed = [mix(bank, np.random.default_rng(seed), 120.0, settings) for seed in range(20)]
    overlapped = 2 * sum(len(overlapping(scene)) for scene in mixed)
    assert overlapped / sum(len(scene.events) for scene in mixed) == pytest.approx(share, abs=0.1)


def test_the_energy_is_where_the_events_say(scenes: list[Scene]) -> None:
    """Over a background of -120 dB, all that is heard lies in events, and events are heard from end to end."""
    for scene in scenes:
        outside = np.ones(len(scene.samples), bool)
        for event in scene.events:
            outside[round(event.onset * RATE) : round(event.offset * RATE)] = False
            loudest = np.abs(span(scene, event.onset, event.offset)).max()
            assert np.abs(span(scene, event.onset, event.onset + 0.01)).max() > 0.005 * loudest, event
            assert np.abs(span(scene, event.offset - 0.02, event.offset)).max() > 0.001 * loudest, event
        assert np.abs(scene.samples[outside]).max() < 1e-5


def test_levels_are_those_of_the_samples(scenes: list[Scene]) -> None:
    checked = 0
    for scene in scenes:
        shared = {id(event) for pair in overlapping(scene) for event in pair}
        for event in scene.events:
            if id(event) not in shared:
                level = 20 * np.log10(loudness(span(scene, event.onset, event.offset)))
                assert event.level_db == pytest.approx(level, abs=0.1), event
                checked += 1
    assert checked > 200


def test_an_event_ends_where_the_background_takes_over() -> None:
    """The tail of a stroke that nobody hears over the noise is not part of it."""
    drum = struck("gong", 0)
    bank, settings = (
        SoundBank([drum]),
        SceneSettings(rooms=0.0, level_db=(-20.0, -20.0), patterns=0.0, **PLAIN),
    )

    def seconds(decibels: float) -> float:
        bounds = (decibels, decibels)
        scene = mix(
            bank, np.random.default_rng(0), 10.0, settings.model_copy(update={"background_db": bounds})
        )
        return scene.events[0].offset - scene.events[0].onset

    assert 0 < seconds(-42.0) < seconds(-120.0)


def test_melodies_have_a_clear_contour(events: list[Event]) -> None:
    contours = set()
    melodies = [event for event in events if event.kind == "notes"]
    for event in melodies:
        steps = np.diff(event.pitches)
        assert 3 <= len(event.pitches) <= 5 and (np.abs(steps) >= 2).all()
        turns = np.flatnonzero(np.diff(np.sign(steps)))
        assert len(turns) <= 1
        contours.add((bool(steps[0] > 0), len(turns)))
        assert all(min(abs(pitch - known) for known in (60, 67)) <= 4 for pitch in event.pitches)
        assert len({source.rpartition(":")[0] for source in event.sources}) == 1
    assert contours == {(True, 0), (False, 0), (True, 1), (False, 1)}


def test_the_pitches_of_a_melody_are_those_that_sound(bank: SoundBank) -> None:
    """Sines: the strongest frequency at the beginning and at the end is that of the first and last pitch."""
    settings = SceneSettings(speech=0.0, bursts=0.0, melodies=1.0, rooms=0.0, patterns=0.0, band=0.0)
    flutes = SoundBank([tone(60), tone(67)])
    for seed in range(8):
        scene = mix(flutes, np.random.default_rng(seed), 20.0, settings)
        for event in scene.events:
            for pitch, start in ((event.pitches[0], event.onset), (event.pitches[-1], event.offset - 0.3)):
                sound = span(scene, start, start + 0.25)
                heard = (
                    np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 16)).argmax() * RATE / (1 << 16)
                )
                assert 12 * np.log2(heard / 440) + 69 == pytest.approx(pitch, abs=0.5)


def test_a_burst_is_struck_as_often_as_it_says() -> None:
    click = Clip("drum", "sound", "tests", "", "click", "CC0-1.0", noise(0.06, 0))
    settings = QUIET.model_copy(update={**PLAIN, "bursts": 1.0, "rooms": 0.0, "patterns": 0.0})
    counted = []
    for seed in range(20):
        scene = mix(SoundBank([click]), np.random.default_rng(seed), 20.0, settings)
        for event in scene.events:
            loud = np.flatnonzero(np.abs(span(scene, event.onset, event.offset)) > 0.01)
            assert 1 + int((np.diff(loud) > 0.15 * RATE).sum()) == event.hits
            counted.append(event.hits)
    assert set(counted) == {2, 3, 4, 5, 6}


def test_only_single_strokes_are_struck() -> None:
    stroke = struck("drum", 0).samples
    assert stroke_seconds(stroke) == pytest.approx(0.1, abs=0.05)
    assert stroke_seconds(np.concatenate([stroke, stroke])) is None
    assert stroke_seconds(noise(1.2, 0)) is None
    double = Clip("drum", "sound", "tests", "", "double", "CC0-1.0", np.concatenate([stroke, stroke]))
    scene = mix(SoundBank([double]), np.random.default_rng(0), 60.0, SceneSettings(speech=0.0, bursts=1.0))
    assert scene.events and {event.kind for event in scene.events} == {"sound"}


def test_a_pattern_is_laid_twice(clips: list[Clip]) -> None:
    bank = SoundBank([clip for clip in clips if clip.kind == "sound" and len(clip.samples) < 2 * RATE])
    settings = SceneSettings(patterns=1.0, repeat=0.0, overlaps=0.0, **PLAIN)
    sizes = set()
    for seed in range(20):
        scene = mix(bank, np.random.default_rng(seed), 60.0, settings)
        labels = [event.label for event in scene.events]
        longest = max(
            size for size in (0, 2, 3)
            for i in range(len(labels) - size) for j in range(i + size + 1, len(labels) - size + 1)
            if labels[i : i + size] == labels[j : j + size]
        )  # fmt: skip
        sizes.add(longest)
    assert sizes == {2, 3}


def test_long_scenes_are_thinner(scenes: list[Scene]) -> None:
    def rate(seconds: float) -> float:
        chosen = [scene for scene in scenes if scene.duration == seconds]
        return sum(len(scene.events) for scene in chosen) / len(chosen) / seconds

    assert rate(600.0) < 0.5 * rate(45.0)


def test_licences_are_those_of_the_clips(scenes: list[Scene], bank: SoundBank) -> None:
    by_source = {clip.source: clip.licence for clips in bank.sounds.values() for clip in clips}
    for scene in scenes:
        laid = {by_source.get(source, "CC0-1.0") for event in scene.events for source in event.sources}
        assert laid <= set(scene.licences) <= laid | {"CC0-1.0"}  # that of the ambience


@pytest.mark.parametrize("kinds", [{"sound"}, {"digit"}, {"word"}, {"note"}, {"sound", "word"}])
def test_a_bank_of_few_kinds_is_enough(clips: list[Clip], kinds: set[str]) -> None:
    bank = SoundBank([clip for clip in clips if clip.kind in kinds])
    for seed in range(5):
        assert mix(bank, np.random.default_rng(seed), 30.0, SceneSettings(patterns=1.0)).events


def test_a_label_that_is_asked_about_is_no_background(clips: list[Clip]) -> None:
    rain = Clip("rain", "background", "tests", "", "ambience", "its own", noise(3.0, 5))
    settings = SceneSettings(ambience=1.0)
    plain = [clip for clip in clips if clip.kind == "sound"]
    assert "its own" in mix(SoundBank([*plain, rain]), np.random.default_rng(0), 10.0, settings).licences
    both = SoundBank([*plain, rain, replace(rain, kind="sound", licence="CC0-1.0", samples=noise(1.0, 6))])
    assert "its own" not in mix(both, np.random.default_rng(0), 10.0, settings).licences


def test_a_bank_of_backgrounds_is_refused() -> None:
    rain = Clip("rain", "background", "tests", "", "ambience", "CC0-1.0", noise(3.0, 5))
    with pytest.raises(DataError, match="neither sounds nor speech"):
        mix(SoundBank([rain]), np.random.default_rng(0), 10.0, SceneSettings())


@pytest.mark.parametrize(
    "wrong",
    [
        {"duration": (20.0, 10.0)}, {"duration": (5.0, 20.0)}, {"duration": (10.0, 5401.0)}, {"speech": 1.5},
        {"level_db": (-45.0, -12.0)}, {"overlap": (0.0, 0.5)}, {"gap": 0.0}, {"tempo": 1.0},
        {"density": float("nan")}, {"speeds": (0.0, 1.0)},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SceneSettings.model_validate(wrong)


def test_solos_are_heard_once_whatever_else_is_heard_again_and_again(bank: SoundBank) -> None:
    settings = QUIET.model_copy(update={"solos": 3, "density": 0.5, "thinning": 0.0, "patterns": 0.0} | PLAIN)
    for seed in range(3):
        scene = mix(bank, np.random.default_rng(seed), 300.0, settings)
        counts = Counter(event.label for event in scene.events)
        assert len(scene.events) > 60 and sum(count == 1 for count in counts.values()) == 3
    first = mix(bank, np.random.default_rng(9), 40.0, QUIET)
    assert (
        first.events == mix(bank, np.random.default_rng(9), 40.0, SceneSettings(**QUIET.model_dump())).events
    )
    assert "solos" not in QUIET.model_dump()  # so that builds that were begun before they existed go on
