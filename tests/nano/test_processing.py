"""Text and times of echo-nano: one token for every second, control text made harmless."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from echo_agent.finetune.data.vocabulary import DIGITS, WORDS
from echo_agent.finetune.nano.questions import SOUNDS
from echo_agent.nano.configuration import MAX_SECONDS, NanoConfig
from echo_agent.nano.processing import (
    CONTROL,
    MARKUP,
    escape,
    listen_times,
    load_tokenizer,
    prompt_text,
    time_token_ids,
    train_tokenizer,
)
from echo_agent.nano.weights import WEIGHTS


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(WEIGHTS)


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def test_every_second_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = time_token_ids(tokenizer)
    assert len(ids) == MAX_SECONDS + 1 == len(set(ids))
    assert [encode(tokenizer, f" {second}") for second in range(MAX_SECONDS + 1)] == [[id] for id in ids]
    assert None not in ids and tokenizer.unk_token_id not in ids


def test_seconds_are_one_token_wherever_the_policy_writes_them(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = time_token_ids(tokenizer)
    for first, last in ((0, 1), (9, 10), (12, 15), (99, 100), (599, 600)):
        span = encode(tokenizer, f"<seg> {first}, {last}</seg>")
        assert span[0] == tokenizer.convert_tokens_to_ids("<seg>") and span[1] == ids[first]
        assert span[-2] == ids[last] and span[-1] == tokenizer.convert_tokens_to_ids("</seg>")
        assert ids[first] in encode(tokenizer, f"<think> {first} drum, {last} bird.")
        assert encode(tokenizer, f"drum {first}")[-1] == ids[first]
        assert encode(tokenizer, f" {first} s")[0] == ids[first]
        assert tokenizer.decode(span) == f"<seg> {first}, {last}</seg>"


def test_ids_equal_those_of_the_shipped_configuration(tokenizer: PreTrainedTokenizerFast) -> None:
    config = NanoConfig.from_pretrained(WEIGHTS)
    assert config.time_token_ids == time_token_ids(tokenizer)
    assert config.audio_token_id == tokenizer.convert_tokens_to_ids("<|audio|>")
    assert config.text_config.vocab_size >= len(tokenizer)
    assert config.text_config.pad_token_id == tokenizer.pad_token_id
    assert config.text_config.eos_token_id == tokenizer.eos_token_id


def test_control_tokens_are_single_and_distinct(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [encode(tokenizer, token) for token in (*CONTROL, *MARKUP)]
    assert all(len(one) == 1 for one in ids)
    assert len({one[0] for one in ids}) == len(CONTROL) + len(MARKUP)


@pytest.mark.parametrize("token", [*CONTROL, *MARKUP])
def test_escape_makes_control_text_harmless(tokenizer: PreTrainedTokenizerFast, token: str) -> None:
    special = set(tokenizer.convert_tokens_to_ids([*CONTROL, *MARKUP]))
    inner = token[:3] + token + token[3:]
    for text in (token, f"a{token}b", f"<{token}>", token * 2, inner, token.upper(), f"{token[:-1]}\n>"):
        assert not special & set(encode(tokenizer, escape(text))), text
    assert special & set(encode(tokenizer, token)), "the test's token is none"


def test_escape_leaves_other_text_alone() -> None:
    text = "Is 3 < 4, <b>or</b> <|not|>? <seg 1>"
    assert escape(text) == text


def test_any_text_survives(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ("wie spät ist es? 12:30", "日本語", "1234567 s", "o'clock  two  spaces", "\n\t"):
        assert tokenizer.decode(encode(tokenizer, text)) == text
    assert tokenizer.decode(encode(tokenizer, "LOUD")) == "loud"


def test_what_is_taught_is_short(tokenizer: PreTrainedTokenizerFast) -> None:
    """Words of the questions are a token or two, so a list of events fits in the context."""
    for word in (*SOUNDS, *WORDS, *DIGITS):
        assert len(encode(tokenizer, f" {word}")) <= 3, word


@pytest.mark.parametrize(
    ("span", "tokens", "times"),
    [
        ((0.0, 4.0), 4, [0, 1, 2, 3]),
        ((0.0, 4.0), 2, [1, 3]),
        ((12.0, 15.0), 6, [12, 12, 13, 13, 14, 14]),
        ((12.9, 13.1), 2, [12, 13]),
        ((0.0, 0.5), 1, [0]),
        ((599.0, 600.1), 2, [599, 599]),
        ((600.0, 604.0), 2, [600, 600]),
    ],
)
def test_listen_times(span: tuple[float, float], tokens: int, times: list[int]) -> None:
    assert listen_times(*span, tokens) == times


def test_listen_times_of_a_whole_recording_rise_and_stay_inside() -> None:
    times = listen_times(0.0, 600.0, 48)
    assert times == sorted(times) and len(set(times)) == 48
    assert times[0] == 6 and times[-1] == 593


def test_prompt_text() -> None:
    assert prompt_text("What is it?", None, 61.6) == " 62 s. What is it?"
    assert prompt_text("What?", ["a bell", "a dog"], 0.2) == " 1 s. What? choices: a bell | a dog"
    assert prompt_text("<|end|>", ["<answer>"], 3.0) == " 3 s. < |end|> choices: < answer>"


def test_a_vocabulary_is_learned_from_texts() -> None:
    tokenizer = train_tokenizer(["the bell rings", "the bell", "bell"] * 5, size=300)
    assert len(encode(tokenizer, "bell")) == 1 < len(encode(tokenizer, "zebra"))
    assert len(set(time_token_ids(tokenizer))) == MAX_SECONDS + 1
    assert encode(tokenizer, " 317") == [time_token_ids(tokenizer)[317]]
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|pad|>", "<|end|>")


@pytest.mark.parametrize(
    ("seconds", "tokens"), [(0.05, 1), (0.5, 3), (1.0, 6), (3.99, 23), (8.0, 48), (600.0, 48)]
)
def test_price_of_a_listen(seconds: float, tokens: int) -> None:
    assert NanoConfig().listen_size(seconds) == tokens
