"""Speech as people have it: talks are new each time, hold their facts, and can be asked about in any wording."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
import yaml

from echo_agent.errors import DataError
from echo_agent.finetune.data.natural.spoken import DAYS, date, hour, make, phone, price, rank, words
from echo_agent.finetune.data.natural.talk import SLOT, Talk, filling, genres, grammar, make_talk
from echo_agent.finetune.data.natural.talk_questions import UNSAID, TalkQuestion, ask_talk, holds, spellings

SLOTS = {"talk/unknown": {"what"}, "room": {"about", "spot"}}
"""Slots of the wordings of a kind, other than ``about`` alone."""
OBLIGED = ("item", "step", "who", "talk/after", "talk/unknown")
"""Kinds all of whose wordings need their slot."""
SEEDS = 15
"""Talks of each genre that are looked at."""
LEAST = {"first": 120, "surname": 120, "agenda": 40, "lecture": 40, "errand": 40}


@cache
def wordings() -> dict[str, list[str]]:
    text = files("echo_agent.finetune.data.natural").joinpath("talk-train.yaml").read_text("utf-8")
    return yaml.safe_load(text)


@cache
def asked(genre: str) -> list[tuple[Talk, list[TalkQuestion]]]:
    """Some talks of a genre with their questions."""
    found = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        talk = make_talk(rng, genre)
        found.append((talk, ask_talk(talk, rng, wordings())))
    return found


# --- talks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("genre", genres())
def test_the_same_seed_gives_the_same_talk(genre: str) -> None:
    for seed in range(5):
        one, two = (make_talk(np.random.default_rng(seed), genre) for _ in range(2))
        assert one == two
        questions = [ask_talk(one, np.random.default_rng(seed), wordings()) for _ in range(2)]
        assert questions[0] == questions[1]


def test_other_seeds_give_other_talks() -> None:
    talks = {make_talk(np.random.default_rng(seed)).lines for seed in range(200)}
    assert len(talks) >= 190
    assert len({line.text for lines in talks for line in lines}) > 900


@pytest.mark.parametrize("genre", genres())
def test_a_fact_stands_in_its_line(genre: str) -> None:
    """In one of its spellings at least, the one said, whatever the answer looks like in writing."""
    for talk, _ in asked(genre):
        assert talk.facts
        for fact in talk.facts:
            assert any(holds(talk.lines[fact.line].text, x) for x in spellings(fact)), fact


@pytest.mark.parametrize("genre", genres())
def test_texts_are_clean(genre: str) -> None:
    for talk, questions in asked(genre):
        texts = [line.text for line in talk.lines] + list(talk.subjects)
        texts += [x for q in questions for x in (q.question, q.answer, *(q.choices or ()))]
        for text in texts:
            assert not re.search(r"[{}|]|  |\.\.(?!\.)| [,.]|^\s|\s$", text.replace(" ...", "")), text
            assert not re.search(r"\ba [aeio]\w", text) or re.search(r"\ba (?:one|once)", text), text
            assert not re.search(r"\bon (?:this|next) \w+day|\b(the|a) (?:the|an?)\b", text, re.IGNORECASE), (
                text
            )
        for line in talk.lines:
            assert line.text[0].isupper(), line


def test_sizes_of_talks() -> None:
    for name in genres():
        for talk, _ in asked(name):
            low, high = {"lecture": (20, 40), "conversation": (5, 20)}.get(name.partition("/")[0], (2, 16))
            assert low <= len(talk.lines) <= high, talk
            if name.startswith("conversation/"):
                assert len({line.speaker for line in talk.lines}) in (2, 3)
            else:
                assert {line.speaker for line in talk.lines} == {"a"}


def test_a_family_of_genres_and_one_that_there_is_not() -> None:
    names = {make_talk(np.random.default_rng(seed), "conversation").genre for seed in range(60)}
    assert names == set(genres("conversation"))
    with pytest.raises(DataError, match="no genre"):
        make_talk(np.random.default_rng(0), "opera")


def test_all_kinds_of_facts_occur() -> None:
    found = Counter(fact.kind for name in genres() for talk, _ in asked(name) for fact in talk.facts)
    assert set(found) == {kind for kind in wordings() if not kind.startswith("talk/")}
    assert min(found.values()) >= 5


# --- the grammar --------------------------------------------------------------------------------------------------


def test_fillings_are_many_and_distinct() -> None:
    fillings = grammar()["fillings"]
    assert all(len(fillings[name]) >= least for name, least in LEAST.items())
    assert sum(len(fillings[name]) for name in ("town", "place", "street", "room")) >= 60
    assert sum(len(fillings[name]) for name in ("item", "small", "gear", "kit")) >= 80
    assert sum(len(fillings[name]) for name in ("errand", "delay", "obstacle", "cause", "fault")) >= 60
    for name, entries in fillings.items():
        if isinstance(entries, list) and isinstance(entries[0], str):
            assert len(set(entries)) == len(entries), name
            assert all(isinstance(entry, str) for entry in entries), name


@pytest.mark.parametrize("genre", genres())
def test_a_genre_knows_its_slots_and_has_enough_sentences(genre: str) -> None:
    rules = grammar()["genres"][genre]
    rng, used = np.random.default_rng(0), set[str]()
    for fill, *rest in rules["slots"].values():
        assert filling(fill, rng, "uk").said
        assert not rest or rest[0] in wordings()
    for part in rules["plan"]:
        rows = [part[key] for key in ("say", "first", "middle", "last", "extras") if key in part]
        for row in rows:
            lines = grammar()["patterns"][row] if isinstance(row, str) else row
            assert len(set(lines)) == len(lines) >= 8, lines
            used |= {slot for line in lines for slot, _ in SLOT.findall(line)}
    abouts = [about for _, *rest in rules["slots"].values() for about in rest[1:]]
    named = {slot for line in [*abouts, *rules["subjects"]] for slot, _ in SLOT.findall(line)}
    assert used - {"step"} | named == set(rules["slots"])


# --- questions ----------------------------------------------------------------------------------------------------


def test_wordings_are_many_and_have_their_slots() -> None:
    for kind, lines in wordings().items():
        assert len({re.sub(r"\W+", " ", line.lower()) for line in lines}) == len(lines) >= 60, kind
        for line in lines:
            slots = {slot for slot, _ in SLOT.findall(line)}
            assert slots <= SLOTS.get(kind, {"about"}), line
            assert slots or kind not in OBLIGED, line
            filled = line.format(about="the thing", spot="room", what="the price")
            assert not re.search("[{}]", filled)


@pytest.mark.parametrize("genre", genres())
def test_choices_are_distinct_and_hold_the_answer_once(genre: str) -> None:
    some, places = 0, Counter[int]()
    for _, questions in asked(genre):
        for question in questions:
            if question.choices is None:
                continue
            some += 1
            assert 3 <= len(question.choices) <= 4
            assert len({x.lower() for x in question.choices}) == len(question.choices)
            assert question.choices.count(question.answer) == 1
            right = {x.lower() for x in question.accepted}
            assert not right & {x.lower() for x in question.choices if x != question.answer}, question
            places[question.choices.index(question.answer)] += 1
    assert some > 20
    assert max(places.values()) < 0.55 * some


@pytest.mark.parametrize("genre", genres())
def test_questions_about_words_and_speakers(genre: str) -> None:
    for talk, questions in asked(genre):
        kinds = {question.kind: question for question in questions}
        text = " ".join(line.text for line in talk.lines)
        assert kinds["talk/topic"].answer in talk.subjects
        assert kinds["talk/speakers"].answer == words(len({line.speaker for line in talk.lines}))
        for question in questions:
            if question.kind == "talk/after":
                (start,) = re.findall('"(.+?)(?: \\.\\.\\.| ____)?"', question.question)
                line = talk.lines[question.lines[0]].text
                assert f"{start.rstrip('.')} {question.answer}".lower() in line.lower()
            elif question.kind == "talk/transcribe":
                assert question.answer in text
                assert question.lines
            elif question.kind == "talk/unknown":
                assert question.answer == UNSAID
                assert not question.lines
            elif not question.kind.startswith("talk/"):
                assert question.lines


def test_a_question_without_its_thing_has_one_answer() -> None:
    """Two facts of a kind are told apart: no wording that would fit both is used for either."""
    plain = {kind: {line for line in lines if "{" not in line} for kind, lines in wordings().items()}
    for name in genres():
        for talk, questions in asked(name):
            kinds = Counter(fact.kind for fact in talk.facts)
            for question in questions:
                if kinds[question.kind] > 1:
                    assert question.question not in plain[question.kind]


def test_what_is_unsaid_is_not_a_kind_that_is_said() -> None:
    found = 0
    for name in genres():
        for talk, questions in asked(name):
            said = {fact.kind for fact in talk.facts}
            assert all(fact.kind not in said and fact.line == -1 for fact in talk.missing)
            found += any(question.kind == "talk/unknown" for question in questions)
    assert found > 0.8 * SEEDS * len(genres())


# --- spoken values ------------------------------------------------------------------------------------------------


def test_numbers_in_words() -> None:
    assert [words(x) for x in (0, 14, 40, 99, 100)] == [
        "zero",
        "fourteen",
        "forty",
        "ninety-nine",
        "one hundred",
    ]
    assert words(450) == "four hundred and fifty"
    assert words(7395) == "seven thousand three hundred and ninety-five"
    assert words(2050, joined=False) == "two thousand fifty"
    assert [rank(x) for x in (1, 2, 3, 5, 12, 20, 21, 30)] == (
        "first second third fifth twelfth twentieth twenty-first thirtieth".split()
    )


@pytest.mark.parametrize("country", ["uk", "us", "au", "ie", "eu"])
def test_values_accept_what_was_said(country: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        for value in (hour(rng, country), date(rng, country), price(rng, country), phone(rng, country)):
            assert value.said in (value.answer, *value.accepted)
            assert value.answer not in value.accepted
        assert make("day", rng, country).answer in DAYS


def test_an_hour_is_written_in_both_ways() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        value = hour(rng, "uk", 16, 16)
        forms = {value.answer, *value.accepted}
        (late,) = {x for x in forms if re.fullmatch(r"16:\d\d", x)}
        assert f"4:{late[3:]}" in forms
        if late == "16:30":
            assert {"half past four", "four thirty"} <= forms


def test_a_phone_number_is_said_digit_by_digit() -> None:
    digits = {
        name: str(i) for i, name in enumerate("zero one two three four five six seven eight nine".split())
    }
    digits["oh"] = "0"
    rng = np.random.default_rng(5)
    for country in ("uk", "us", "au", "ie", "eu"):
        for _ in range(50):
            value = phone(rng, country)
            said = re.sub(r"double (\w+)", r"\1 \1", value.said.replace(",", ""))
            assert "".join(digits[x] for x in said.split()) == value.answer.replace(" ", "")
