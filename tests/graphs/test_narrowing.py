"""Narrowing: where a search listens next, with ears that are written by hand."""

from __future__ import annotations

import pytest

from echo_agent.families.base import Note
from echo_agent.graphs.narrowing import CLOSE, LEAST, NARROW, narrow
from echo_agent.graphs.sought import Sought

HOUR = 3600.0


class Ears:
    """Hears 48 tokens of any stretch: each sound at its second, and the false alarms of a coarse listen."""

    def __init__(
        self, sounds: dict[float, str], alarms: dict[float, str] | None = None, fine: float = 10.0
    ) -> None:
        self.sounds, self.alarms, self.fine = sounds, alarms or {}, fine
        self.heard: list[tuple[float, float]] = []

    def __call__(self, start: float, end: float) -> list[Note]:
        self.heard.append((start, end))
        step = (end - start) / 48
        return [self._note(start + i * step, start + (i + 1) * step) for i in range(48)]

    def _note(self, start: float, end: float) -> Note:
        there = dict.fromkeys(["bell", "dog", "voice"], 0.05)
        there |= {name: 0.8 for at, name in self.sounds.items() if start <= at < end}
        coarse = end - start > self.fine
        return Note(
            start, end, there | {n: 0.9 for at, n in self.alarms.items() if coarse and start <= at < end}
        )


def found(  # noqa: ANN201
    ears: Ears,
    question: str,
    duration: float = HOUR,
    looks: int = 4,
    choices: tuple[str, ...] = (),
    times: tuple[float, ...] = (),
):
    first = ears(0.0, duration)
    return narrow(duration, first, ears, Sought.of(first, question, choices, times), looks)


def test_what_sounds_once_in_an_hour_is_found_in_one_more_listen() -> None:
    ears = Ears({2345.0: "bell", 100.0: "dog"})
    search = found(ears, "When is a bell heard?")
    assert search.window is not None and len(ears.heard) == 2
    assert search.window[0] < 2345.0 < search.window[1]
    assert LEAST <= search.window[1] - search.window[0] <= CLOSE
    assert search.window[0] == int(search.window[0])


def test_three_hours_are_narrowed_twice() -> None:
    ears = Ears({9999.0: "bell"})
    search = found(ears, "When is a bell heard?", 3 * HOUR)
    assert search.window is not None and len(search.heard) == 2
    assert search.window[0] < 9999.0 < search.window[1] and search.window[1] - search.window[0] <= CLOSE


def test_a_false_alarm_is_left_for_the_next_best_stretch() -> None:
    ears = Ears({2345.0: "bell"}, alarms={500.0: "bell", 3100.0: "bell"})
    search = found(ears, "When is a bell heard?")
    assert search.window is not None and search.window[0] < 2345.0 < search.window[1]
    assert len(search.heard) == 3
    stingy = found(ears, "When is a bell heard?", looks=1)
    assert stingy.window is not None and stingy.window[0] < 500.0 < stingy.window[1]


def test_without_a_look_nothing_is_narrowed() -> None:
    assert found(Ears({5.0: "bell"}), "When is a bell heard?", looks=0).window is None


def test_the_budget_that_ends_on_the_way_down_leaves_the_best_stretch() -> None:
    search = found(Ears({9999.0: "bell"}), "When is a bell heard?", 3 * HOUR, looks=1)
    assert search.window is not None and search.window[0] < 9999.0 < search.window[1]


@pytest.mark.parametrize("at", [0.5, 3599.0])
def test_both_ends_of_a_recording_are_found(at: float) -> None:
    search = found(Ears({at: "dog"}), "Does a dog bark?")
    assert search.window is not None and 0.0 <= search.window[0] <= at <= search.window[1] <= HOUR


def test_the_names_in_the_question_come_before_those_in_the_choices() -> None:
    ears = Ears({300.0: "dog", 2345.0: "bell"})
    by_choice = found(ears, "Which of these is heard?", choices=("a bell", "a harp"))
    assert by_choice.window is not None and by_choice.window[0] < 2345.0 < by_choice.window[1]
    by_question = found(ears, "What follows the dog?", choices=("a bell", "a harp"))
    assert by_question.window is not None and by_question.window[0] < 300.0 < by_question.window[1]


def test_where_nothing_is_named_the_stretch_unlike_the_others_is_taken() -> None:
    search = found(Ears({1234.0: "dog"}), "What happens?")
    assert search.window is not None and search.window[0] < 1234.0 < search.window[1]


def test_where_the_answer_is_one_of_a_few_times_only_these_are_heard() -> None:
    alarms = {3000.0: "bell", 200.0: "bell"}  # which a listen to the whole takes for louder than the bell
    ears = Ears({2345.0: "bell", 500.0: "dog"}, alarms, fine=1.0)
    search = found(ears, "When is a bell heard?", times=(500.0, 1200.0, 2345.0, 3100.0))
    assert search.window is not None and search.window[0] < 2345.0 < search.window[1]
    assert len(search.heard) == 4 and all(end - start <= LEAST for start, end in search.heard)


@pytest.mark.parametrize(("word", "voices"), [("after", (2352.0, 2330.0)), ("before", (2338.0, 2360.0))])
def test_what_is_said_next_to_a_sound_is_asked_of_a_window_that_holds_both_and_no_more(
    word: str, voices: tuple[float, float]
) -> None:
    said, other = voices
    ears = Ears({2345.0: "bell", said: "voice", other: "voice", 900.0: "voice"})
    search = found(ears, f"Which digits are said right {word} the bell?")
    assert search.window is not None and len(search.heard) <= 4
    start, end = search.window
    assert start < min(said, 2345.0) and max(said, 2345.0) < end and end - start < NARROW
    assert not start <= other < end


@pytest.mark.parametrize(("word", "said"), [("after", 2710.0), ("before", 1890.0)])
def test_what_is_said_minutes_away_from_a_sound_is_asked_of_a_window_that_holds_what_is_said(
    word: str, said: float
) -> None:
    ears = Ears({2345.0: "bell", said: "voice", 900.0: "voice", 3400.0: "voice"})
    search = found(ears, f"Of the words said directly {word} the bell, which is the first?")
    assert search.window is not None and search.window[0] < said < search.window[1]
    assert search.window[1] - search.window[0] < NARROW and len(search.heard) <= 4


def test_of_two_places_that_sound_alike_the_one_next_to_a_voice_is_taken() -> None:
    ears = Ears({700.0: "bell", 706.0: "dog", 2345.0: "bell", 2352.0: "voice"})
    search = found(ears, "Which digits are said right after the bell?")
    assert search.window is not None and search.window[0] < 2345.0 < search.window[1]


def test_where_the_policy_is_not_sure_in_one_window_the_next_place_is_tried() -> None:
    ears = Ears({700.0: "bell", 706.0: "voice", 2345.0: "bell", 2352.0: "voice"})
    first = ears(0.0, HOUR)
    sought = Sought.of(first, "Which digits are said right after the bell?", None)
    asked: list[tuple[float, float]] = []

    def sure(start: float, end: float) -> float:
        asked.append((start, end))
        return 0.99 if start < 2352.0 < end else 0.1

    search = narrow(HOUR, first, ears, sought, 5, sure=sure)
    assert search.window is not None and search.window[0] < 2352.0 < search.window[1]
    assert len(asked) == 2 and len(search.heard) == 4
    ears.heard.clear()
    at_once = narrow(HOUR, first, ears, sought, 5, sure=lambda start, end: 0.99)
    assert at_once.window is not None and at_once.window[0] < 706.0 < at_once.window[1]
    assert len(at_once.heard) == 2
