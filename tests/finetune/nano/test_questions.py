"""Questions: every answer is worked out again here, from the words of the question and the event list alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.vocabulary import DIGITS, WORDS
from echo_agent.finetune.nano.questions import CATEGORIES, ORDINALS, SOUNDS, TEMPLATES, Question, ask
from echo_agent.finetune.nano.tokenizer import symbolic_events

SCENES = 600
Asked = tuple[list[Event], Question]


@pytest.fixture(scope="module")
def asked() -> list[Asked]:
    rng = np.random.default_rng(11)
    found: list[Asked] = []
    for _ in range(SCENES):
        events = symbolic_events(rng)
        for category in CATEGORIES:
            question = ask(events, rng, category)
            if question is not None:
                assert question.category == category
                found.append((events, question))
    return found


def of(asked: Sequence[Asked], *categories: str) -> list[Asked]:
    chosen = [one for one in asked if one[1].category in categories]
    assert len(chosen) > 200 * len(categories), "too few to say anything"
    return chosen


def the_only(events: Sequence[Event], label: str) -> int:
    """Place of the event that a question calls "the ..."; there must be exactly one."""
    places = [i for i, event in enumerate(events) if event.label == label]
    assert len(places) == 1, f"{label!r} is said to be one, and there are {len(places)}"
    return places[0]


def named(text: str) -> list[str]:
    """The sounds that a question names, in the order of its words."""
    return [word for word in re.findall(r"[a-z]+", text.lower()) if word in SOUNDS]


def answer_of(events: Sequence[Event], question: Question) -> tuple[str, list[int]]:
    """Answer and the places of the events that tell it, worked out from the text."""
    text, labels = question.text.lower(), named(question.text)
    if question.category == "order":
        if re.search(r"\bfirst\b|\bearlier\b", text):
            first, second = (the_only(events, label) for label in labels)
            return events[min(first, second)].label, [first, second]
        anchor = the_only(events, labels[0])
        place = anchor + (-1 if "before" in text else 1)
        assert "before" in text or "after" in text or "follows" in text
        return events[place].label, [anchor, place]
    if question.category == "between":
        first, last = (the_only(events, label) for label in labels)
        assert last == first + 2
        return events[first + 1].label, [first + 1]
    if question.category == "presence":
        places = [i for i, event in enumerate(events) if event.label == labels[0]]
        return ("yes" if places else "no"), places
    if question.category == "count":
        place = the_only(events, labels[0])
        assert events[place].kind == "burst"
        return str(events[place].hits), [place]
    if question.category == "time":
        place = the_only(events, labels[0])
        return f"{math.floor(events[place].onset)} s", [place]
    kind = "words" if question.category == "word" else "digits"
    if labels:
        place = the_only(events, labels[0]) + (-1 if "before" in text else 1)
        assert "before" in text or "after" in text
    else:
        assert "in the recording" in text
        (place,) = [i for i, event in enumerate(events) if event.kind == kind]
    said = events[place].content
    assert events[place].kind == kind
    if question.category == "digit_sequence":
        return " ".join(said), [place]
    (ordinal,) = [word for word in re.findall(r"[a-z]+", text) if word in (*ORDINALS, "last")]
    return said[-1 if ordinal == "last" else ORDINALS.index(ordinal)], [place]


def test_every_family_is_asked(asked: list[Asked]) -> None:
    counts = Counter(question.category for _, question in asked)
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) > SCENES / 3, counts


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_answer_is_right(asked: list[Asked], category: str) -> None:
    for events, question in of(asked, category):
        assert question.answer == answer_of(events, question)[0], (question, events)


@pytest.mark.parametrize("category", CATEGORIES)
def test_gold_spans_are_the_events_that_tell_it(asked: list[Asked], category: str) -> None:
    for events, question in of(asked, category):
        spans = [(events[i].onset, events[i].offset) for i in answer_of(events, question)[1]]
        assert sorted(question.gold_spans) == sorted(spans), (question, events)
        assert all(0 <= start < end <= events[-1].offset for start, end in question.gold_spans)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_trace_starts_at_what_is_named_and_ends_where_the_answer_is(
    asked: list[Asked], category: str
) -> None:
    for events, question in of(asked, category):
        labels, places = named(question.text), answer_of(events, question)[1]
        assert list(question.named) == labels[: len(question.named)]
        assert len(question.named) == (1 if category == "between" else len(labels))
        for label, place in zip(question.named, question.trace, strict=False):
            assert place is not None or question.answer == "no"
            assert place is None or events[place].label == label
        assert set(places[:1] if category == "presence" else places) <= set(question.trace)
        if question.event is not None:
            assert question.trace[-1] == question.event


def test_the_list_holds_every_sound_once_in_order() -> None:
    rng = np.random.default_rng(5)
    events = symbolic_events(rng)
    question = ask(events, rng, "list")
    assert question is not None and question.choices is None
    heard = question.answer.split(", ")
    assert set(heard) == {event.label for event in events} and len(set(heard)) == len(heard)
    first = [min(i for i, event in enumerate(events) if event.label == label) for label in heard]
    assert first == sorted(first)
    assert question.trace == tuple(range(len(events)))
    assert ask([], rng, "list") is None


def test_places_are_those_of_the_sounds_in_the_order_of_the_question() -> None:
    rng, absent = np.random.default_rng(6), 0
    for _ in range(60):
        events = symbolic_events(rng)
        question = ask(events, rng, "places")
        if question is None:
            continue
        labels = named(question.text)
        assert list(question.named) == labels and 3 <= len(labels) <= 6 and len(set(labels)) == len(labels)
        for label, place, answer in zip(labels, question.trace, question.answer.split(", "), strict=True):
            if place is None:
                absent += 1
                assert answer == "none" and label not in {event.label for event in events}
            else:
                assert place == the_only(events, label)
                assert answer == f"{math.floor(events[place].onset)} s"
    assert absent > 10


def test_the_only_phrase_can_be_asked_for_without_a_sound_beside_it() -> None:
    rng, phrase = np.random.default_rng(0), ("four", "two", "four")
    alone = [Event("voice", "digits", 1.0, 3.0, phrase)]
    question = ask(alone, rng, "digit_sequence")
    assert question is not None and question.answer == "four two four"
    assert "in the recording" in question.text.lower() and question.trace == (0,) and question.named == ()
    assert ask([*alone, Event("voice", "digits", 5.0, 7.0, phrase)], rng, "digit_sequence") is None


def test_choices_hold_the_answer_once(asked: list[Asked]) -> None:
    for _, question in asked:
        if question.choices is None:
            continue
        assert question.choices.count(question.answer) == 1, question
        assert len(set(question.choices)) == len(question.choices), question
        size = 2 if question.category == "presence" or len(question.choices) == 2 else 4
        assert len(question.choices) == size, question
        assert all(choice and choice == choice.strip() for choice in question.choices)


def test_only_spoken_questions_are_open(asked: list[Asked]) -> None:
    spoken = of(asked, "digit", "digit_sequence", "word")
    opened = [question for _, question in asked if question.choices is None]
    assert {question.category for question in opened} == {"digit", "digit_sequence", "word"}
    share = len(opened) / len(spoken)
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / len(spoken))


@pytest.mark.parametrize(
    "category", [category for category in CATEGORIES if category not in ("presence", "count")]
)
def test_places_of_the_right_choice_are_balanced(asked: list[Asked], category: str) -> None:
    places: dict[int, Counter[int]] = {}
    for _, question in of(asked, category):
        if question.choices:
            size = len(question.choices)
            places.setdefault(size, Counter())[question.choices.index(question.answer)] += 1
    assert places
    for size, counts in places.items():
        total = counts.total()
        allowed = 4 * math.sqrt(total / size * (1 - 1 / size))
        assert all(abs(counts[place] - total / size) <= allowed for place in range(size)), (size, counts)


def test_presence_is_a_fair_coin(asked: list[Asked]) -> None:
    answers = Counter(question.answer for _, question in of(asked, "presence"))
    assert abs(answers["yes"] - answers.total() / 2) <= 2 * math.sqrt(answers.total())


def test_places_of_a_count_tell_little() -> None:
    """Choices of a count are in order, so its places cannot be quite even: the best guess is right 28 times in 100."""
    rng, counts = np.random.default_rng(3), Counter[int]()
    for hits in (2, 3, 4, 5, 6) * 300:
        events = [Event("bell", "burst", 1.0, 3.0, (), hits)]
        question = ask(events, rng, "count")
        assert question is not None and question.choices is not None
        numbers = [int(choice) for choice in question.choices]
        assert numbers == list(range(numbers[0], numbers[0] + 4)) and numbers[0] >= 1
        counts[question.choices.index(question.answer)] += 1
    assert max(counts.values()) / counts.total() < 0.284 + 4 * math.sqrt(0.284 * 0.716 / counts.total())
    assert min(counts[place] for place in range(4)) / counts.total() > 0.15


def test_times_cannot_be_mistaken(asked: list[Asked]) -> None:
    for _, question in of(asked, "time"):
        assert question.choices is not None
        seconds = sorted(int(choice.removesuffix(" s")) for choice in question.choices)
        assert all(later - earlier >= 4 for earlier, later in zip(seconds, seconds[1:], strict=False))


def test_distractors_come_from_the_recording(asked: list[Asked]) -> None:
    """Where the recording has others to offer, naming what is heard in it is not enough."""
    inside = []
    for events, question in of(asked, "between"):
        assert question.choices is not None
        labels = {event.label for event in events}
        assert not set(named(question.text)) & set(question.choices), "what is named is no choice"
        inside.append(sum(choice in labels for choice in question.choices))
    assert sum(count >= 2 for count in inside) / len(inside) > 0.8


def test_a_closer_listen_is_about_the_event_that_tells_it(asked: list[Asked]) -> None:
    for events, question in asked:
        if question.category in ("count", "digit", "digit_sequence", "word"):
            assert question.event == answer_of(events, question)[1][0]
            event = events[question.event]
            assert question.heard == (" ".join(event.content) or str(event.hits))
            assert question.gold_spans == ((event.onset, event.offset),)
        else:
            assert question.event is None and question.heard == ""


def test_wording(asked: list[Asked]) -> None:
    for _, question in asked:
        assert question.text[0].isupper() and question.text.endswith("?")
        assert "{" not in question.text and "  " not in question.text
    texts = {question.category: set[str]() for _, question in asked}
    for _, question in asked:
        texts[question.category].add(re.sub("|".join(SOUNDS), "X", question.text.lower()))
    for category in ("between", "presence", "count", "time"):
        assert len(texts[category]) == len(TEMPLATES[category])


def test_an_anchor_that_occurs_twice_is_never_named() -> None:
    said = ("one", "two", "three")
    events = [
        Event("bell", "burst", 1.0, 2.0, (), 3),
        Event("voice", "digits", 3.0, 5.0, said),
        Event("bell", "sound", 6.0, 7.0),
        Event("voice", "digits", 8.0, 9.0, said),
    ]
    rng = np.random.default_rng(0)
    for category in ("order", "between", "count", "time", "digit", "digit_sequence", "word"):
        assert all(ask(events, rng, category) is None for _ in range(20)), category
    assert ask([], rng, "presence") is None and ask([], rng, "order") is None


def test_same_seed_same_question() -> None:
    events = symbolic_events(np.random.default_rng(0))
    for category in CATEGORIES:
        first, again = (ask(events, np.random.default_rng(5), category) for _ in range(2))
        assert first == again


def test_what_is_taught_has_distinct_names() -> None:
    assert len({*SOUNDS, *WORDS, *DIGITS, "voice", "yes", "no"}) == len(SOUNDS) + len(WORDS) + len(DIGITS) + 3
