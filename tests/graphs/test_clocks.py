"""Choices that are times of a recording."""

from __future__ import annotations

import numpy as np

from echo_agent.audio.recording import Recording
from echo_agent.graphs.clocks import Clock, Moment, asked_times, moments, second_of

REF = Recording.from_array(np.zeros(8000 * 90, np.float32), 8000).ref()


def test_seconds_and_parts_of_a_recording_are_read() -> None:
    assert second_of(" 12.5 s ") == 12.5 and second_of("90 seconds") == 90.0
    assert second_of("12") is None and second_of("12 m") is None
    thirds = moments(["the first third", "the middle third", "the last third"], 90.0)
    assert thirds == [Moment(0.0, 30.0), Moment(30.0, 60.0), Moment(60.0, 90.0)]
    assert moments(["in the second half", "The first quarter"], 80.0) == [
        Moment(40.0, 80.0),
        Moment(0.0, 20.0),
    ]
    assert moments(["the third half", "the first half"], 80.0) is None
    assert (
        moments(["3 s", "a bell"], 80.0) is None and moments([], 80.0) is None and moments(None, 80.0) is None
    )


def test_a_moment_is_as_far_away_as_its_nearer_end() -> None:
    assert [Moment(10.0, 20.0).away(time) for time in (4.0, 10.0, 15.0, 21.5)] == [6.0, 0.0, 0.0, 1.5]
    assert Clock(30.0, 2.0).on_recording(5.0) == 40.0


def test_lengths_are_no_times() -> None:
    seconds, parts = ["3 s", "20 s", "44 s"], ["the first half", "the second half"]
    assert asked_times("When is it heard?", seconds, REF, 60.0) is not None
    assert asked_times("Which of these?", seconds, REF, 60.0) is None  # they may be lengths
    assert asked_times("Which of these?", seconds, REF, 30.0) is not None  # of so little, 44 s are none
    assert asked_times("How long does it last?", seconds, REF, 30.0) is None
    assert asked_times("Where is it?", parts, REF, 60.0) == moments(parts, 90.0)
