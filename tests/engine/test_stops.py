"""Stop strings and streams over tokens that do not fall together with characters and words."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from echo_agent.engine.stops import StopStrings, TextStream, is_loop

PIECES = [b"<seg>", b"</seg>", b"</", b"seg", b">", b">.", b"a", b" b", b"</answer>\n", b"", b"x</seg>y"]
BYTES = "é€😀</seg>".encode()
VOCABULARY = PIECES + [bytes([value]) for value in sorted(set(BYTES))]
SEG, CLOSE, OPENING, NAME, END, END_DOT, A, B, ANSWER, EMPTY, INSIDE = range(len(PIECES))


def detokenize(ids: Sequence[int]) -> str:
    return b"".join(VOCABULARY[i] for i in ids).decode("utf-8", errors="replace")


def of(text: str) -> list[int]:
    """One token per byte."""
    return [VOCABULARY.index(bytes([value]), len(PIECES)) for value in text.encode()]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([A, CLOSE], "</seg>"),  # one token
        ([A, OPENING, NAME, END], "</seg>"),  # spread over several
        ([A, OPENING, NAME, END_DOT], "</seg>"),  # ends inside a token
        ([A, INSIDE], "</seg>"),  # begins and ends inside
        ([B, ANSWER], "</answer>"),
        ([OPENING, EMPTY, EMPTY, NAME, EMPTY, END], "</seg>"),  # tokens without text between
        (of("</seg>"), "</seg>"),  # a token per byte
        ([A, OPENING, NAME], None),
        ([SEG, END], None),
    ],
)
def test_a_stop_string_is_found_with_the_token_that_completes_it(
    ids: list[int], expected: str | None
) -> None:
    stops = StopStrings(("</seg>", "</answer>"), detokenize)
    for length in range(1, len(ids)):
        assert stops.found(ids[:length]) is None
    assert stops.found(ids) == expected


def test_long_before_does_not_matter() -> None:
    stops = StopStrings(("</seg>",), detokenize)
    assert stops.found([A] * 5000 + of("</seg>")) == "</seg>"


def test_of_several_the_one_that_ends_first_counts() -> None:
    ids = [A, INSIDE]
    assert StopStrings(("</seg>y", "seg>"), detokenize).found(ids) == "seg>"
    assert StopStrings(("seg>", "</seg>"), detokenize).found(ids) == "</seg>"  # both end here: the longer one


def test_characters_of_several_tokens_end_a_run_too() -> None:
    ids = of("a€"[1:])
    stops = StopStrings(("€",), detokenize)
    assert [stops.found(ids[:n]) for n in (1, 2, 3)] == [None, None, "€"]


def test_no_stop_strings_never_stop() -> None:
    assert StopStrings((), detokenize).found([CLOSE]) is None


def test_a_token_without_the_last_character_costs_no_text() -> None:
    asked: list[int] = []

    def counting(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return detokenize(ids)

    stops = StopStrings(("</seg>",), counting)
    ids: list[int] = []
    for token in [A, B, OPENING, NAME] * 50:
        ids.append(token)
        assert stops.found(ids) is None
    assert asked == [1, 1, 1, 1]  # once per token id


def test_a_stream_gives_whole_characters_and_everything() -> None:
    stream = TextStream(detokenize)
    given = [stream.push(token) for token in of("é😀")]
    assert given[0] is None and given[1] == (of("é"), "é")
    assert given[2:5] == [None, None, None] and given[5] == (of("😀"), "😀")
    assert stream.rest() == ([], "")


def test_what_never_becomes_a_character_comes_with_the_rest() -> None:
    stream = TextStream(detokenize)
    broken = of("😀")[:2]
    assert stream.push(A) == ([A], "a")
    assert [stream.push(token) for token in broken] == [None, None]
    assert stream.rest() == (broken, detokenize(broken))


def test_pieces_put_together_are_the_text() -> None:
    draw = random.Random(1)
    for _ in range(200):
        ids = [draw.randrange(len(VOCABULARY)) for _ in range(draw.randrange(1, 30))]
        stream = TextStream(detokenize)
        pieces = [piece for token in ids if (piece := stream.push(token)) is not None]
        pieces.append(stream.rest())
        assert [token for new, _ in pieces for token in new] == ids
        assert "".join(text for _, text in pieces) == detokenize(ids)


@pytest.mark.parametrize(
    ("ids", "loop"),
    [
        ([1, 2] * 4, True),
        ([9, 9, 7, *[1, 2] * 4], True),
        ([1, 2] * 4 + [1], True),  # wherever the block is thought to begin
        ([1, 2] * 3, False),
        ([1, 2] * 3 + [1], False),
        ([5] * 8, True),
        ([5] * 7, False),  # a row of dots, or a number with many zeros
        ([*range(64)] * 4, True),
        ([*range(65)] * 4, False),
        ([1, 2, 3, 1, 2, 4, 1, 2, 3, 1, 2, 4], False),
        ([1, 2, 3, 1, 2, 4] * 4, True),
        ([], False),
        ([1], False),
    ],
)
def test_a_loop_is_a_block_and_three_repeats(ids: list[int], loop: bool) -> None:
    assert is_loop(ids, 3) == loop
