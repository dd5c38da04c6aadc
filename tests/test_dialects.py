"""Calls, replies and answers in both dialects."""

import json
import math

import pytest

from echo_agent.audio.recording import AudioRef, Transform
from echo_agent.dialects import Call, InlineDialect, TurnsDialect, dialect_named, prompt
from echo_agent.tools import RelistenArgs
from tests.tiny import tiny_family

INLINE, TURNS = InlineDialect(), TurnsDialect()
REF = AudioRef(source="memory:0", sha256="0" * 64, duration=20.0, start=2.0, end=4.0)


@pytest.fixture(scope="module")
def family():
    return tiny_family("qwen2.5-omni")


def text_of(family, pieces):
    return "".join("[audio]" if piece.audio else piece.text for piece in pieces)


def one_call(text, dialect=INLINE):
    parsed = dialect.parse(text)
    assert len(parsed.calls) == 1 and not parsed.invalid and not parsed.unclosed
    return parsed.calls[0].arguments


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("12.4, 15.0", {"start": 12.4, "end": 15.0}),
        ("32,36", {"start": 32.0, "end": 36.0}),
        (" 1.5s , 2s ", {"start": 1.5, "end": 2.0}),
        ("-3, .5", {"start": -3.0, "end": 0.5}),
        (
            "12.4, 15.0; speed=0.5; band=300-3400; gain=6",
            {"start": 12.4, "end": 15.0, "speed": 0.5, "low_hz": 300.0, "high_hz": 3400.0, "gain_db": 6.0},
        ),
        ("1, 2; band=300-", {"start": 1.0, "end": 2.0, "low_hz": 300.0, "high_hz": None}),
        (
            "1, 2; band=-3400; gain=-6",
            {"start": 1.0, "end": 2.0, "low_hz": None, "high_hz": 3400.0, "gain_db": -6.0},
        ),
        ("1, 2; recording=2", {"start": 1.0, "end": 2.0, "recording": 2}),
        ("inf, 2", {"start": math.inf, "end": 2.0}),
    ],
)
def test_inline_calls_are_read(body, arguments):
    assert one_call(f"<think>at <seg>{body}</seg>") == arguments


def test_nan_is_read_and_left_to_the_tool_to_refuse():
    assert math.isnan(one_call("<seg>nan, 2</seg>")["start"])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "12",
        "12 15",
        "12, 15, 16",
        "twelve, 15",
        "12, 15; louder",
        "12, 15; speed",
        "12, 15; speed=",
        "12, 15; speed=fast",
        "12, 15; band=-",
        "12, 15; volume=3",
        "12, 15; recording=two",
        "12, 15; recording=²",
        "12, 15;",
        "12, 15; speed=1; speed=2",
        "12, <seg>13, 14",
        "1" * 50 + "e, 2",
    ],
)
def test_malformed_inline_calls_are_invalid_with_a_reason(body):
    parsed = INLINE.parse(f"a <seg>{body}</seg>")
    assert not parsed.calls and len(parsed.invalid) == 1 and not parsed.unclosed
    assert parsed.invalid[0].error and len(parsed.invalid[0].error) < 60


def test_a_call_that_is_never_closed_is_invalid_and_said_so():
    parsed = INLINE.parse("<think>listen <seg>12, 15")
    assert parsed.unclosed and len(parsed.invalid) == 1 and not parsed.calls
    assert parsed.invalid[0].text == "<seg>12, 15"


def test_a_closing_tag_alone_is_invalid():
    parsed = INLINE.parse("12, 15</seg>")
    assert len(parsed.invalid) == 1 and not parsed.unclosed


def test_an_answer_ends_the_reading_of_an_open_call():
    parsed = INLINE.parse("<seg>12 and <answer>dog</answer>")
    assert parsed.answer == "dog" and not parsed.unclosed and not parsed.invalid


def test_text_without_calls_has_none():
    parsed = INLINE.parse("<think>no need</think><answer>dog</answer>")
    assert (parsed.calls, parsed.invalid, parsed.answer, parsed.unclosed) == ((), (), "dog", False)


@pytest.mark.parametrize("dialect", [INLINE, TURNS], ids=lambda d: d.name)
@pytest.mark.parametrize(
    "transform",
    [
        Transform(),
        Transform(speed=0.5),
        Transform(low_hz=300, high_hz=3400, gain_db=-6),
        Transform(high_hz=800.5),
    ],
)
@pytest.mark.parametrize("recording", [1, 2])
def test_calls_read_back_as_they_were_written(dialect, transform, recording):
    text = dialect.format_call(12.4, 15.0, transform, recording)
    args = RelistenArgs.model_validate(one_call(f"hm {text}", dialect))
    assert (args.start, args.end, args.recording) == (12.4, 15.0, recording)
    assert (
        Transform(speed=args.speed, low_hz=args.low_hz, high_hz=args.high_hz, gain_db=args.gain_db)
        == transform
    )


def test_the_inline_call_is_written_as_documented():
    transform = Transform(speed=0.5, low_hz=300, high_hz=3400, gain_db=6)
    assert (
        INLINE.format_call(12.4, 15.0, transform) == "<seg>12.4, 15.0; speed=0.5; band=300-3400; gain=6</seg>"
    )
    assert INLINE.format_call(32, 36) == "<seg>32, 36</seg>"


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[1, 2]",
        '{"name": "relisten"}',
        '{"name": "search", "arguments": {}}',
        '{"name": "relisten", "arguments": [1]}',
        "[" * 3000,
    ],
)
def test_malformed_json_calls_are_invalid(body):
    parsed = TURNS.parse(f"<tool_call>\n{body}\n</tool_call>")
    assert not parsed.calls and len(parsed.invalid) == 1


def test_json_calls_are_read():
    body = json.dumps({"name": "relisten", "arguments": {"start": 1, "end": 2.5, "speed": 0.5}})
    assert one_call(f"<tool_call>\n{body}\n</tool_call>", TURNS) == {"start": 1, "end": 2.5, "speed": 0.5}


def test_several_calls_of_a_foreign_text_are_all_read():
    text = INLINE.format_call(1, 2) + " and " + INLINE.format_call(3, 4) + "<seg>x</seg>"
    parsed = INLINE.parse(text)
    assert [call.arguments["start"] for call in parsed.calls] == [1.0, 3.0] and len(parsed.invalid) == 1


def test_inline_reply_is_the_observation_then_the_audio(family):
    assert text_of(family, INLINE.tool_reply(family, "", REF)) == "[audio]"
    assert (
        text_of(family, INLINE.tool_reply(family, "heard 0-2: clamped", REF))
        == " (heard 0-2: clamped)[audio]"
    )
    assert text_of(family, INLINE.tool_reply(family, "not heard: why", None)) == " (not heard: why)"
    assert text_of(family, INLINE.tool_reply(family, "", None)) == ""


def test_an_unclosed_call_is_closed_and_an_ended_turn_opened_again(family):
    reply = text_of(family, INLINE.tool_reply(family, "not heard: open", None, unclosed=True))
    assert reply == "</seg> (not heard: open)"
    reply = text_of(family, INLINE.tool_reply(family, "not heard: open", None, unclosed=True, ended=True))
    assert reply == "</seg>\n<|im_start|>assistant\n (not heard: open)"


def test_turns_reply_ends_the_turn_and_opens_the_next(family):
    reply = text_of(family, TURNS.tool_reply(family, "", REF))
    assert reply.startswith("<|im_end|>\n<|im_start|>user\n<tool_response>\n")
    assert reply.endswith("\n</tool_response>\n[audio]<|im_end|>\n<|im_start|>assistant\n")
    after_eos = text_of(family, TURNS.tool_reply(family, "", REF, ended=True))
    assert after_eos == reply.removeprefix("<|im_end|>")


def test_observations_cannot_write_control_tokens(family):
    ids, _ = family.render(INLINE.tool_reply(family, "not heard: <|im_end|>", None))
    assert not set(ids) & set(family.eos_ids)


@pytest.mark.parametrize(
    ("said", "opening"),
    [
        ("<think>it barks <seg>1, 2</seg>", "</think><answer>"),
        ("<think>it barks</think> so", "<answer>"),
        ("it barks", "<answer>"),
        ("<think>it barks</think><answer>a d", ""),
        ("<think>no</think><answer>a <seg>1, 2</seg>", "<answer>"),
        ("<answer>one</answer> or", "<answer>"),
    ],
)
def test_the_request_opens_the_answer_where_the_policy_is(family, said, opening):
    assert INLINE.answer_opening(said) == opening
    assert text_of(family, INLINE.force_answer(family, said)) == opening
    again = text_of(family, INLINE.force_answer(family, said, ended=True))
    assert again == f"\n<|im_start|>assistant\n{opening}"


def test_the_turns_prompt_shows_the_tool_as_it_is():
    line = next(line for line in prompt("turns").splitlines() if line.startswith('{"type": "function"'))
    shown = json.loads(line)["function"]["parameters"]
    schema = RelistenArgs.model_json_schema()
    assert list(shown["properties"]) == list(schema["properties"]) and shown["required"] == schema["required"]


def test_the_turns_head_holds_audio_and_question_escaped(family):
    pieces = TURNS.head(family, [REF], "What barks?<|im_end|>", ["a dog", "a cat"])
    ids, audio = family.render(pieces)
    assert audio == [REF] and family.check_placeholders(ids, audio)
    text = text_of(family, pieces)
    assert (
        text.count("<|im_end|>") == 2
        and "- a dog\n- a cat\n" in text
        and text.endswith("<|im_start|>assistant\n")
    )


@pytest.mark.parametrize("dialect", [INLINE, TURNS], ids=lambda d: d.name)
def test_calls_of_other_models_are_written_or_left_out(dialect):
    assert one_call(dialect.write_call({"start": 1, "end": 2, "gain_db": 6}), dialect)["gain_db"] == 6
    assert dialect.write_call({"from": 1}) == ""
    assert dialect.write_call({"start": "soon", "end": 2}) == ""


def test_dialects_have_names():
    assert isinstance(dialect_named("inline"), InlineDialect) and isinstance(
        dialect_named("turns"), TurnsDialect
    )
    with pytest.raises(ValueError, match="inline"):
        dialect_named("morse")


def test_calls_are_plain_data():
    assert isinstance(INLINE.parse("<seg>1, 2</seg>").calls[0], Call)
