"""The official rules on 500 predictions of every shape, and the fault of each beside what the strict score says."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from typing import Any

import pytest

from echo_agent.benchmarks.benchmark import Benchmark, load_benchmark
from echo_agent.benchmarks.item import Item
from echo_agent.benchmarks.rules import (
    Mark,
    Prediction,
    Referees,
    best_letter,
    letters_carried,
    letters_dropped,
    mmau_pro,
    parsable_spans,
    word_sets,
)
from echo_agent.benchmarks.two_scores import official_marks, strict_marks
from echo_agent.scores import Outcome

CHOICES = ("A red bird", "Big dog", "Cat on a roof", "Door bell")
NOBODY = Referees()


def item(number: int = 1, answer: str | None = CHOICES[1], **fields: Any) -> Item:
    given: dict[str, Any] = {"choices": CHOICES, "answer": answer} | fields
    return Item(id=str(number), audio="a.wav", question="What is heard?", line=number, **given)


def outcome(item: Item, prediction: str, answer: str | None = None, **fields: Any) -> Outcome:
    defaults: dict[str, Any] = {
        "control": "on",
        "relistens": (),
        "tokens": {"prompt": 10, "sampled": 5, "audio": 3},
        "seconds_heard": 0.0,
        "budget_exhausted": False,
        "run": "r",
        "line": item.line,
        "status": "unparsed" if answer is None else "answered",
        "correct": item.is_right(answer),
    }
    return Outcome(id=item.id, answer=answer, prediction=prediction, **(defaults | fields))


def shapes(count: int = 500, seed: int = 0) -> list[tuple[Item, str | None]]:
    """Predictions as models write them: choices, letters, sentences, other letters' words, nothing, noise."""
    noise = random.Random(seed)
    made: list[tuple[Item, str | None]] = []
    for number in range(count):
        right, said = noise.choice(CHOICES), noise.choice(CHOICES)
        letter = "ABCD"[CHOICES.index(said)]
        forms = (
            said, said.upper(), f"{letter}. {said}", letter, letter.lower(), f"({letter})", f"The answer is {letter}.",
            f"Answer: {letter}", f"I hear: {said}.", f"It is not {said}, it is {right}", f"{said} or {right}",
            f"{letter}\n", f"\n{letter}) {said}", " ".join(reversed(said.split())), said[: len(said) // 2],
            "", " ", "None", "no idea", "Because of the bird", "All of them", "dog", "答案: " + letter, f"[{letter}]",
            f"so {letter} it is",
            "".join(noise.choices(string.printable, k=noise.randint(1, 30))), None,
        )  # fmt: skip
        made.append((item(number, right), noise.choice(forms)))
    return made


# --- the rules again, written another way -------------------------------------------------------------------------


def reference_words(row: Item, text: str | None) -> Mark:
    """MMAU, MMAR."""
    if text is None:
        return None
    words = lambda of: {word for word in re.split(r"\W+", of.lower()) if word}  # noqa: E731
    answer = words(row.answer or "")
    if not words(text):
        return 0.0
    for word in words(text):
        if word not in answer and any(word in words(choice) for choice in row.choices or ()):
            return 0.0
    return float(all(word in words(text) for word in answer))


def reference_edges(rows: Sequence[tuple[Item, str | None]], *, carried: bool) -> list[Mark]:
    """MMSU (a response that is empty keeps the letter before) and AIR-Bench (it is dropped)."""
    marks: list[Mark] = []
    kept: str | None = None
    for row, text in rows:
        right = "ABCD"[[choice == row.answer for choice in row.choices or ()].index(True)]
        said = "" if text is None else text.strip().replace("\n", "")
        if text is None and carried:
            marks.append(None)
        elif said in ("", "None"):
            marks.append(float(kept == right) if carried and kept else None)
        elif said[0] in ("A", "B", "C", "D") or (len(said) > 1 and said[-2] in ("A", "B", "C", "D")):
            kept = said[0] if said[0] in ("A", "B", "C", "D") else said[-2]
            marks.append(float(kept == right))
        else:
            marks.append(None)
    return marks


def reference_letter(text: str | None) -> str | None:
    """VoiceGiraffe."""
    text = (text or "").strip()
    rules = [
        r"(?im)^\s*(?:final\s*answer|answer|the\s*answer\s*is|答案|选\s*项|选择)\s*[:：]?\s*[\(\[\{]?\s*([ABCD])\b",
        r"(?im)\b(?:answer\s*is|answer\s*:)\s*[\(\[\{]?\s*([ABCD])\b",
        r"[\(\[\{]\s*([ABCD])\s*[\)\]\}]",
        r"(?m)^\s*([ABCD])\s*[\.\)、\]]?\s*$",
    ]
    for rule in rules:
        if found := re.search(rule, text):
            return found.group(1).upper()
    alone = re.findall(r"\b([ABCD])\b", text)
    return alone[-1] if alone else None


def predictions(rows: Sequence[tuple[Item, str | None]]) -> list[Prediction]:
    return [Prediction(row, text) for row, text in rows]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_rules_are_the_official_ones(seed: int) -> None:
    rows = shapes(seed=seed)
    assert word_sets(predictions(rows), NOBODY) == [reference_words(*row) for row in rows]
    assert letters_carried(predictions(rows), NOBODY) == reference_edges(rows, carried=True)
    assert letters_dropped(predictions(rows), NOBODY) == reference_edges(rows, carried=False)
    expected = [float(reference_letter(text) == row.letter) for row, text in rows]
    assert best_letter(predictions(rows), NOBODY) == expected
    marks = word_sets(predictions(rows), NOBODY)
    assert {0.0, 1.0, None} == set(marks), "the shapes do not reach every case"


@pytest.mark.parametrize("seed", [0, 1])
def test_spans_are_read_as_officially(seed: int) -> None:
    noise = random.Random(seed)
    rows: list[tuple[Item, str | None]] = []
    expected: list[Mark] = []
    for number in range(500):
        a, c = noise.randint(0, 1700), noise.randint(0, 1700)
        b, d = a + noise.randint(1, 60), c + noise.randint(-5, 60)
        clock = lambda t: f"{t // 60:02d}:{t % 60:02d}"  # noqa: E731
        text = noise.choice(
            [f"[{clock(c)}-{clock(d)}]", f"It is {clock(c)} - {clock(d)}.", f"{c} to {d}", "", None, "[00:10]",
             f"[{clock(c)}]-[{clock(d)}]", f"{clock(c)}-{clock(d)} and 00:01-00:02"]
        )  # fmt: skip
        rows.append((item(number, "[x]", choices=None, kind="grounding", gold_spans=[(a, b)]), text))
        if text is None or ":" not in text or "-" not in text:
            expected.append(None)
        elif d <= c or (both := min(b, d) - max(a, c)) <= 0:
            expected.append(0.0)
        else:
            expected.append(both / ((b - a) + (d - c) - both))
    assert parsable_spans(predictions(rows), NOBODY) == pytest.approx(expected)


# --- each fault, and what the strict score says -------------------------------------------------------------------


def scores(name: str, rows: Sequence[tuple[Item, Outcome | None]], **referees: Any) -> tuple[dict, dict]:
    """Both scores of some rows; None is a run that could not be made."""
    benchmark: Benchmark = load_benchmark(name)
    items, made = [row for row, _ in rows], [one for _, one in rows if one is not None]
    found = Referees(**referees)
    return (
        official_marks(benchmark, items, made, found).score(),
        strict_marks(benchmark, items, made, found, 1).score(),
    )


@pytest.mark.parametrize("name", ["mmau", "mmar"])
def test_word_sets_skip_what_has_no_prediction(name: str) -> None:
    first, second = item(1), item(2)
    official, strict = scores(name, [(first, outcome(first, "Big dog", "Big dog")), (second, None)])
    assert (official["accuracy"], official["n"], official["over"]) == (1.0, 2, 1)
    assert (strict["accuracy"], strict["n"], strict["over"]) == (0.5, 2, 2)


@pytest.mark.parametrize("name", ["mmau", "mmar"])
def test_word_sets_take_a_denial_for_the_answer(name: str) -> None:
    row = item()
    official, strict = scores(name, [(row, outcome(row, "It is not the big dog"))])
    assert (official["correct"], strict["correct"]) == (1, 0)


def test_word_sets_refuse_an_answer_that_mentions_a_wrong_choice() -> None:
    row = item()
    official, strict = scores("mmau", [(row, outcome(row, "Big dog, no bird", "Big dog"))])
    assert (official["correct"], strict["correct"]) == (1, 1), (
        "the answer is handed in, not the talk around it"
    )
    official, _ = scores("mmau", [(row, outcome(row, "Big dog, no bird"))])
    assert official["correct"] == 0


def test_mmsu_answers_an_empty_response_with_the_row_before() -> None:
    first, second = item(1), item(2)
    official, strict = scores(
        "mmsu", [(first, outcome(first, "Big dog", "Big dog")), (second, outcome(second, ""))]
    )
    assert (official["correct"], official["over"]) == (2, 2)
    assert (strict["correct"], strict["over"]) == (1, 2)


@pytest.mark.parametrize("name", ["mmsu", "air-bench-foundation"])
def test_rows_without_a_letter_leave_the_denominator(name: str) -> None:
    first, second = item(1), item(2)
    rows = [(first, outcome(first, "Big dog", "Big dog")), (second, outcome(second, "no idea"))]
    official, strict = scores(name, rows)
    assert (official["accuracy"], official["over"], official["n"]) == (1.0, 1, 2)
    assert (strict["accuracy"], strict["over"]) == (0.5, 2)


@pytest.mark.parametrize("name", ["mmsu", "air-bench-foundation"])
def test_a_word_is_taken_for_its_first_letter(name: str) -> None:
    row = item()
    official, strict = scores(name, [(row, outcome(row, "Because I cannot hear it"))])
    assert (official["correct"], strict["correct"]) == (1, 0)


def test_voice_giraffe_takes_the_last_letter_that_stands_alone() -> None:
    row = item()
    official, strict = scores("voice-giraffe", [(row, outcome(row, "Plan A fails, vitamin B helps"))])
    assert (official["correct"], strict["correct"]) == (1, 0)


def test_lat_bench_leaves_out_what_it_cannot_read() -> None:
    fields: dict[str, Any] = {"choices": None, "kind": "grounding", "gold_spans": [(10.0, 20.0)]}
    first, second = item(1, "[00:10-00:20]", **fields), item(2, "[00:10-00:20]", **fields)
    rows = [
        (first, outcome(first, "[00:10-00:20]", "[00:10-00:20]")),
        (second, outcome(second, "somewhere", "somewhere")),
    ]
    official, strict = scores("lat-bench", rows)
    assert (official["mIoU"], official["R@0.7"], official["over"]) == (1.0, 1.0, 1)
    assert (strict["mIoU"], strict["R@0.7"], strict["over"]) == (0.5, 0.5, 2)


class Letters:
    """Embeds a text by how often it holds each letter."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[text.lower().count(letter) for letter in string.ascii_lowercase] for text in texts]


def test_mmau_pro_is_never_unparsed() -> None:
    from echo_agent.benchmarks.nearest import nearest_by

    row = item()
    rows = [(row, outcome(row, "gob gid"))]
    official, strict = scores("mmau-pro", rows, nearest=nearest_by(Letters()))  # type: ignore[arg-type]
    assert (official["correct"], strict["correct"]) == (1, 0)
    official, _ = scores("mmau-pro", rows)
    assert (official["over"], official["accuracy"]) == (0, None), (
        "nothing is made up without the embedding model"
    )


def test_mmau_pro_scores_the_ground_truth_where_there_are_no_predictions() -> None:
    first, second = item(1), item(2)
    assert mmau_pro(predictions([(first, None), (second, None)]), NOBODY) == [1.0, 1.0]
    official, strict = scores("mmau-pro", [(first, None), (second, None)])
    assert (official["accuracy"], strict["accuracy"]) == (None, 0.0), "no run is no column"


class Silent:
    """A judge that gives no marks."""

    def rate(self, question: str, reference: str, answer: str) -> dict[str, float | None]:
        return dict.fromkeys(("correctness", "relevance", "completeness", "clarity", "overall"))

    def beside(self, item: Item, answer: str) -> tuple[float | None, float | None]:
        return (None, 8.0)

    def strict(self, item: Item, answer: str, *, beside: bool) -> float:
        return 0.4 if beside else 0.0


def test_mmau_pro_counts_a_missing_score_as_three_of_five() -> None:
    row = item(1, "a dog that barks", choices=None, kind="open")
    official, strict = scores("mmau-pro", [(row, outcome(row, "x", "x"))], judge=Silent())
    assert (official["accuracy"], strict["accuracy"]) == (0.6, 0.0)
    official, strict = scores("mmau-pro", [(row, outcome(row, "x", "x"))])
    assert official["over"] == strict["over"] == 0, "without a judge it is not scored"


def test_air_bench_chat_leaves_out_an_order_that_cannot_be_read() -> None:
    row = item(1, "a dog that barks", choices=None, kind="open", source={"meta_info": "a dog"})
    official, strict = scores("air-bench-chat", [(row, outcome(row, "x", "x"))], judge=Silent())
    assert (official["accuracy"], strict["accuracy"]) == (0.8, 0.4)


@pytest.mark.parametrize(
    ("rule", "kwargs", "good", "bad"),
    [
        ("Include Keywords", {"keywords": "dog, bell"}, "A Bell, a dog", "a dog"),
        ("Keyword Frequency", {"keyword": "dog", "N": 2}, "Dog dog dogs", "dog dogs"),
        ("Forbidden Words", {"forbidden_words": "cat"}, "dog", "Category"),
        ("Number Paragraphs", {"N": 2}, "a *** b", "a\n\nb"),
        ("Number Words (range)", {"N1": 2, "N2": 3}, "a b c", "a b c d"),
        ("Number Sentences (at most)", {"N": 1}, "One.", "One. Two."),
        ("Postscript", {"postscript_marker": "P.S."}, "x\np.s. y", "x y"),
        ("Number Placeholder", {"N": 2}, "[a] [b] [c]", "[a]"),
        ("Number Bullets", {"N": 2}, "* a\n* b", "- a\n- b"),
        ("Title", {}, "<<T>> x", "T"),
        ("Two Responses", {}, "a ****** b", "a ****** A"),
        ("All Lowercase", {}, "abc", "Abc"),
        ("All-capital Words (at least)", {"N": 1}, "A dog", "a dog"),
        ("Start Checker", {"start_phrase": "Well, yes"}, "well yes it is", "it is well yes"),
        ("End Checker", {"end_phrase": "the end"}, "It is The End.", "The end it is"),
        ("Quotation", {}, ' "a" ', 'a"'),
        ("No Commas", {}, "a b", "a, b"),
        ("Repeat Prompt", {}, "what is heard? A dog", "A dog"),
        ("unheard of", {}, None, "anything"),
    ],
)
def test_instructions(rule: str, kwargs: dict[str, Any], good: str | None, bad: str) -> None:
    source = {"task_identifier": rule, "kwargs": kwargs, "question": "What is heard?"}
    row = item(1, None, choices=None, kind="instruction", source=source)
    assert row.scored and not row.is_right(bad)
    assert good is None or row.is_right(good)
