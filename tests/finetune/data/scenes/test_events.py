"""Scenes: what the event list says is what is in the samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.reader import Clip, SoundBank, read_clips
from echo_agent.finetune.data.scenes.augment import RATE
from echo_agent.finetune.data.scenes.events import BURST_LABELS, SEQUENCE_LABELS, Scene
from echo_agent.finetune.nano.scenes import make_scene
from tests.finetune.small_bank import make_bank, make_clips, noise, write_bank

LOUDEST_BACKGROUND = 10 ** (-42 / 20)


@pytest.fixture(scope="module")
def bank() -> SoundBank:
    return make_bank()


@pytest.fixture(scope="module")
def scenes(bank: SoundBank) -> list[Scene]:
    return [
        make_scene(bank, np.random.default_rng(seed), seconds, density=0.25)
        for seed in range(12)
        for seconds in (5.0, 10.0, 33.3)
    ]


def level(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0


def span(scene: Scene, start: float, end: float) -> np.ndarray:
    return scene.samples[round(start * RATE) : round(end * RATE)]


def test_samples_are_as_promised(scenes: list[Scene]) -> None:
    for scene, seconds in zip(scenes, (5.0, 10.0, 33.3) * 12, strict=True):
        assert scene.samples.dtype == np.float32 and scene.samples.ndim == 1
        assert len(scene.samples) == round(seconds * RATE) and scene.duration == pytest.approx(seconds)
        assert np.abs(scene.samples).max() <= 0.971


def test_events_lie_inside_in_order_and_apart(scenes: list[Scene]) -> None:
    assert sum(len(scene.events) for scene in scenes) > 80
    for scene in scenes:
        ends = [0.0, *(event.offset for event in scene.events)]
        starts = [*(event.onset for event in scene.events), scene.duration]
        assert all(event.onset < event.offset for event in scene.events)
        assert all(start - end > 0.14 for end, start in zip(ends, starts, strict=True))  # margin 0.15 s
        inner = zip(ends[1:], starts[1:-1], strict=False)
        assert all(start - end > 0.24 for end, start in inner)


def test_onset_and_offset_bound_the_energy(scenes: list[Scene]) -> None:
    """Outside of its events a scene is quiet background; each event is loud from its very start."""
    for scene in scenes:
        outside = np.ones(len(scene.samples), bool)
        for event in scene.events:
            outside[int(event.onset * RATE) - 16 : int(event.offset * RATE) + 17] = (
                False  # a millisecond's rounding
            )
        assert level(scene.samples[outside]) <= 1.4 * LOUDEST_BACKGROUND
        for event in scene.events:
            assert level(span(scene, event.onset, event.onset + 0.05)) > 2.5 * LOUDEST_BACKGROUND, event
            assert level(span(scene, event.onset, event.offset)) > 3 * LOUDEST_BACKGROUND, event


def test_an_offset_is_not_late(scenes: list[Scene]) -> None:
    """A room's tail takes 0.2 s at most; right before that an event is as loud as ever."""
    for scene in scenes:
        for event in scene.events:
            assert level(span(scene, event.offset - 0.3, event.offset - 0.2)) > 1.5 * LOUDEST_BACKGROUND, (
                event
            )


def test_same_seed_same_scene(bank: SoundBank) -> None:
    def mixed(seed: int) -> Scene:
        return make_scene(bank, np.random.default_rng(seed), 12.0, density=0.3)

    assert mixed(3).events == mixed(3).events
    np.testing.assert_array_equal(mixed(3).samples, mixed(3).samples)
    assert mixed(3).events != mixed(4).events
    assert not np.array_equal(mixed(3).samples, mixed(4).samples)


def test_a_scene_does_not_change_the_bank(bank: SoundBank) -> None:
    before = {label: [clip.samples.copy() for clip in clips] for label, clips in bank.sounds.items()}
    make_scene(bank, np.random.default_rng(0), 30.0, density=0.4)
    for label, clips in bank.sounds.items():
        for clip, samples in zip(clips, before[label], strict=True):
            np.testing.assert_array_equal(clip.samples, samples)


def test_a_burst_is_struck_as_often_as_it_says() -> None:
    """Clicks are counted in the samples."""
    click = Clip("drum", "sound", "tests", "", "click", "CC0-1.0", noise(0.03, 0))
    bank, counted = SoundBank([click]), []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene = make_scene(bank, rng, 8.0, density=0.13, speech=0.0, bursts=1.0)
        for event in scene.events:
            assert event.kind == "burst" and 2 <= event.hits <= 6
            samples = np.abs(span(scene, event.onset, event.offset))
            frames = samples[: len(samples) // 160 * 160].reshape(-1, 160).max(axis=1)
            loud = np.flatnonzero(frames > 0.4 * frames.max())
            hits = 1 + int((np.diff(loud) > 8).sum())  # strokes are 0.26 s apart and more
            assert hits == event.hits, (seed, event)
            counted.append(event.hits)
    assert len(counted) >= 30 and set(counted) == {2, 3, 4, 5, 6}


def test_kinds_of_events(scenes: list[Scene]) -> None:
    events = [event for scene in scenes for event in scene.events]
    assert {event.kind for event in events} == {"sound", "burst", "notes", "digits", "words"}
    for event in events:
        assert (event.label == "voice") == (event.kind in ("digits", "words")) == bool(event.content)
        if event.kind == "burst":
            assert event.label in BURST_LABELS
        elif event.label not in SEQUENCE_LABELS:
            assert event.hits == 1
        assert event.sources
        if event.kind == "digits":
            assert 3 <= len(event.content) <= 4
        if event.kind == "words":
            assert len(event.content) == len(set(event.content)) == 3
        said = {source.split(":")[2] for source in event.sources}
        assert said == (set(event.content) or {event.label})


def test_a_phrase_is_spoken_by_one_voice() -> None:
    other = [replace(clip, voice="other", source=f"other-{clip.source}") for clip in make_clips()]
    bank = SoundBank([*make_clips(), *(clip for clip in other if clip.kind in ("digit", "word"))])
    phrases = [
        event
        for seed in range(10)
        for event in make_scene(bank, np.random.default_rng(seed), 20.0, speech=1.0).events
    ]
    voices = [{source.startswith("other-") for source in event.sources} for event in phrases]
    assert all(len(voice) == 1 for voice in voices) and {True} in voices and {False} in voices


def test_no_density_is_background_alone(bank: SoundBank) -> None:
    scene = make_scene(bank, np.random.default_rng(0), 5.0, density=0.0)
    assert scene.events == ()
    assert 10 ** (-63 / 20) < level(scene.samples) < 1.01 * LOUDEST_BACKGROUND


def test_an_event_that_is_too_long_is_left_out() -> None:
    bank = SoundBank([Clip("water", "sound", "tests", "", "long", "CC0-1.0", noise(5.0, 0))])
    scene = make_scene(bank, np.random.default_rng(0), 1.5, density=1.0, speech=0.0, bursts=0.0)
    assert scene.events == () and len(scene.samples) == 1.5 * RATE


def test_a_bank_without_what_is_wanted_is_refused() -> None:
    clips = make_clips()
    mute = SoundBank([clip for clip in clips if clip.kind != "digit"])
    with pytest.raises(DataError, match="no spoken digits"):
        make_scene(mute, np.random.default_rng(0), 5.0)
    assert make_scene(mute, np.random.default_rng(0), 9.0, speech=0.0).events
    voices = SoundBank([clip for clip in clips if clip.kind == "digit"])
    with pytest.raises(DataError, match="no sounds"):
        make_scene(voices, np.random.default_rng(0), 5.0)
    with pytest.raises(DataError):
        SoundBank([])


def test_a_bank_without_burst_sounds_has_no_bursts() -> None:
    bank = SoundBank([clip for clip in make_clips() if clip.label not in BURST_LABELS])
    events = make_scene(bank, np.random.default_rng(0), 60.0, speech=0.0, bursts=1.0).events
    assert events and not any(event.kind == "burst" for event in events)


def test_clips_of_a_folder_by_split(tmp_path: Path) -> None:
    kinds = ("sound", "note", "background", "digit", "word")
    folder = write_bank(tmp_path, {"train": kinds, "test": kinds})
    clips = read_clips(folder, ["train"], ["test"])
    assert {clip.source.split(":")[0] for clip in clips if clip.kind in ("digit", "word")} == {"test"}
    assert {clip.source.split(":")[0] for clip in clips if clip.kind not in ("digit", "word")} == {"train"}
    bell = next(clip for clip in clips if clip.source == "train:sound:bell:0")
    written = next(clip for clip in make_clips("train") if clip.source == bell.source)
    np.testing.assert_allclose(bell.samples, written.samples, atol=1e-4)
    assert {clip.source for clip in read_clips(folder, ["test"])} == {c.source for c in make_clips("test")}
    with pytest.raises(DataError, match="echo-agent finetune data bank"):
        read_clips(tmp_path / "nowhere", ["train"])
