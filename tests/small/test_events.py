"""From scores to events: where they begin and end, what is joined, how loud they are and how often they are struck."""

from __future__ import annotations

import numpy as np
import pytest

from echo_agent.small.ears import STEP_SECONDS
from echo_agent.small.events import events, stretches, strokes
from tests.sounds import tone

RATE = 16_000
NAMES, STRUCK = ("dog", "rain"), (True, False)


def scene(*parts: tuple[float, float, float], seconds: float = 12.0) -> np.ndarray:
    """Near silence with tones: (start, length, level)."""
    samples = 1e-5 * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    for start, length, level in parts:
        first = round(start * RATE)
        samples[first : first + round(length * RATE)] += tone(440, length, RATE, level)
    return samples


def scores(samples: np.ndarray, *spans: tuple[int, float, float]) -> np.ndarray:
    """Certain scores of sounds where they are: (number, start, end)."""
    steps = np.zeros((round(len(samples) / RATE / STEP_SECONDS) + 1, len(NAMES)), np.float32)
    for number, start, end in spans:
        steps[int(start / STEP_SECONDS) : int(np.ceil(end / STEP_SECONDS)), number] = 0.9
    return steps


def test_an_event_begins_and_ends_where_it_is_loud() -> None:
    samples = scene((3.2, 1.5, 0.5))
    (event,) = events(scores(samples, (0, 3.2, 4.7)), samples, NAMES, STRUCK)
    assert (event.name, event.hits) == ("dog", 1)
    assert event.onset == pytest.approx(3.2, abs=0.05) and event.offset == pytest.approx(4.7, abs=0.05)
    assert event.level_db == pytest.approx(20 * np.log10(0.5 / 2**0.5), abs=0.5)


def test_times_are_those_of_the_recording() -> None:
    samples = scene((3.2, 1.5, 0.5))
    (event,) = events(scores(samples, (0, 3.2, 4.7)), samples, NAMES, STRUCK, start=100.0, pace=0.5)
    assert event.onset == pytest.approx(101.6, abs=0.05) and event.offset == pytest.approx(102.35, abs=0.05)


def test_strokes_are_counted_for_sounds_that_come_in_strokes() -> None:
    blows = tuple((2.0 + 0.4 * n, 0.15, 0.5) for n in range(5))
    samples = scene(*blows)
    for number, hits in ((0, 5), (1, 1)):
        (event,) = events(scores(samples, (number, 2.0, 3.9)), samples, NAMES, STRUCK)
        assert (event.name, event.hits) == (NAMES[number], hits)


def test_one_sound_by_two_names_has_the_more_certain_one() -> None:
    samples = scene((3.0, 2.0, 0.5), (7.0, 3.0, 0.5))
    steps = scores(samples, (0, 3.0, 5.0), (1, 3.0, 5.0), (0, 7.0, 8.0), (1, 7.0, 10.0))
    steps[: int(6 / STEP_SECONDS), 1] *= 1.1
    found = events(steps, samples, NAMES, STRUCK)
    assert [event.name for event in found] == ["rain", "dog", "rain"]  # the second pair only begins together


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_strokes_are_jumps_of_loudness(count: int) -> None:
    levels = np.full(40 * count + 20, -60.0)
    for n in range(count):
        levels[40 * n + 10 : 40 * n + 25] = -12.0 - 2 * np.arange(15)
    assert strokes(levels) == count


def test_a_short_gap_is_closed_and_a_long_one_is_not() -> None:
    steps = np.zeros(20)
    steps[[2, 3, 5, 6]] = 0.8
    steps[[12, 13]] = 0.6
    steps[[17]] = 0.3  # never certain
    assert stretches(steps) == [(2, 7), (12, 14)]


def test_events_stand_in_order_and_may_lie_over_one_another() -> None:
    samples = scene((0.0, 11.0, 0.1), (5.0, 1.0, 0.5))
    found = events(scores(samples, (1, 0.0, 11.0), (0, 5.0, 6.0)), samples, NAMES, STRUCK)
    assert [event.name for event in found] == ["rain", "dog"]
    assert found[0].onset < found[1].onset < found[1].offset < found[0].offset


def test_nothing_is_heard_in_silence() -> None:
    samples = scene()
    assert events(scores(samples), samples, NAMES, STRUCK) == []
