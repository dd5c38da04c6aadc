"""The tool: what is mended, what is refused, and what any agent gets."""

import base64
import io
import json
import math

import numpy as np
import pytest
import soundfile
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from echo_agent.audio.recording import Recording
from echo_agent.families.base import Limits
from echo_agent.messages import audio_block
from echo_agent.stores import RecordingStore
from echo_agent.tools import DEFAULT_LIMITS, Heard, Reply, check_call, hearable, make_relisten, not_heard

LIMITS = Limits(shortest=0.5, longest_crop=8.0, longest_recording=60.0)
RATE = 8000


def noise(seconds, seed=0):
    return Recording.from_array(np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)), RATE)


REF = noise(20.0).ref()
OTHER = noise(3.0, seed=1).ref()


def hear(start, end, heard=(), recordings=(REF, OTHER), limits=LIMITS, **options):
    return check_call({"start": start, "end": end, **options}, recordings, limits, heard)


def span(heard: Heard):
    assert heard.ref is not None, heard.observation
    return heard.ref.start, heard.ref.end


def test_a_good_call_is_heard_as_asked_without_a_word():
    heard = hear(12.4, 15.0)
    assert span(heard) == (12.4, 15.0) and heard.ok and not heard.mended and heard.observation == ""
    assert heard.ref.sha256 == REF.sha256


@pytest.mark.parametrize(
    ("start", "end", "options", "expected", "word"),
    [
        (15.0, 12.4, {}, (12.4, 15.0), "swapped"),
        (-3.0, 2.0, {}, (0.0, 2.0), "clamped"),
        (18.0, 25.0, {}, (18.0, 20.0), "clamped"),
        (25.0, 18.0, {}, (18.0, 20.0), "swapped, clamped"),
        (5.0, 5.0, {}, (4.75, 5.25), "widened"),
        (5.0, 5.1, {}, (4.8, 5.3), "widened"),
        (0.0, 0.0, {}, (0.0, 0.5), "widened"),
        (19.9, 20.0, {}, (19.5, 20.0), "widened"),
        (19.99, 90.0, {}, (19.5, 20.0), "clamped, widened"),
        (2.0, 15.0, {}, (2.0, 10.0), "cut"),
        (2.0, 2.6, {"speed": 2.0}, (1.8, 2.8), "widened"),
        (2.0, 15.0, {"speed": 0.5}, (2.0, 6.0), "cut"),
        (2.0, 4.0, {"recording": 2}, (2.0, 3.0), "clamped"),
    ],
)
def test_what_can_be_mended_is_mended_and_said_so(start, end, options, expected, word):
    heard = hear(start, end, **options)
    assert span(heard) == pytest.approx(expected, abs=1e-9)
    assert heard.mended and word in heard.observation
    low, high = (round(x, 2) for x in expected)
    assert heard.observation.startswith(f"heard {low:g}-{high:g}: ")


@pytest.mark.parametrize(
    ("options", "field", "value", "word"),
    [
        ({"speed": 9.0}, "speed", 2.0, "speed set to 2"),
        ({"speed": -1.0}, "speed", 0.25, "speed set to 0.25"),
        ({"gain_db": 99.0}, "gain_db", 40.0, "gain set to 40"),
        ({"low_hz": 3000, "high_hz": 300}, "high_hz", 3000.0, "band swapped"),
        ({"low_hz": 300, "high_hz": 300}, "low_hz", None, "band left out"),
        ({"low_hz": -5, "high_hz": 300}, "low_hz", None, ""),
    ],
)
def test_options_out_of_range_are_mended(options, field, value, word):
    heard = hear(2.0, 4.0, **options)
    assert getattr(heard.ref.transform, field) == value and word in heard.observation


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"start": math.nan, "end": 3.0}, "finite"),
        ({"start": 1.0, "end": math.inf}, "finite"),
        ({"start": 1.0, "end": 2.0, "speed": math.nan}, "finite"),
        ({"start": 1.0}, "end is missing"),
        ({"start": "soon", "end": 3.0}, "start must be a number"),
        ({"start": 1.0, "end": 2.0, "volume": 3}, "volume is not an option"),
        ({"start": 1.0, "end": 2.0, "recording": 3}, "no recording 3"),
        ({"start": 1.0, "end": 2.0, "recording": 0}, "no recording 0"),
        ({"start": 20.0, "end": 22.0}, "outside of 0-20"),
        ({"start": 99.0, "end": 95.0}, "outside of 0-20"),
        ({"start": -5.0, "end": -1.0}, "outside of 0-20"),
        ({}, "missing"),
    ],
)
def test_what_cannot_be_mended_is_answered_with_the_reason(arguments, words):
    heard = check_call(arguments, (REF, OTHER), LIMITS)
    assert heard.ref is None and not heard.ok
    assert heard.observation.startswith("not heard: ") and words in heard.observation


def test_without_recordings_nothing_is_heard():
    assert "no recording" in hear(1.0, 2.0, recordings=()).observation


def test_a_repeat_is_noted_and_heard():
    before = hear(12.4, 15.0).ref
    again = hear(12.4, 15.0, heard=[before])
    assert again.ok and "heard before" in again.observation and not again.mended
    assert hear(12.4, 15.0, heard=[before], gain_db=6).observation == ""
    assert hear(12.4, 15.1, heard=[before]).observation == ""


def test_a_recording_shorter_than_the_shortest_crop_is_heard_whole():
    blip = noise(0.02).ref()
    heard = hear(0.0, 1.0, recordings=[blip], speed=2.0)
    assert span(heard) == (0.0, blip.duration) and heard.ref.transform.speed == 1.0
    assert hear(0.0, blip.duration, recordings=[blip]).observation == ""


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_heard_lies_in_the_recording_and_in_the_limits(seed):
    draw = np.random.default_rng(seed)
    start, end = draw.choice([-1e9, -1.0, 0.0, 1e-9, 7.77777, 19.9996, 20.0, 1e9], 2) + draw.normal(0, 1)
    speed = float(draw.choice([0.1, 0.25, 1.0, 1.7, 2.0, 8.0]))
    heard = hear(float(start), float(end), speed=speed)
    if heard.ok:
        assert 0 <= heard.ref.start < heard.ref.end <= 20.0
        assert LIMITS.shortest - 2e-3 <= heard.ref.seconds <= LIMITS.longest_crop + 4e-3
    else:
        assert heard.observation


def test_an_observation_never_looks_like_a_tag():
    heard = check_call({"start": 1.0, "end": 2.0, "<answer>x</answer>": 1}, [REF], LIMITS)
    assert "<" not in heard.observation and "<" not in not_heard("cannot read '</seg>'")


# --- replies ----------------------------------------------------------------------------------------------------


def test_a_reply_survives_json_and_knows_when_it_was_edited():
    reply = Reply(outcome="heard", observation="heard 1-2: widened", ref=REF.span(1.0, 2.0))
    artifact = json.loads(json.dumps(reply.to_json()))
    message = ToolMessage(reply.content, artifact=artifact, tool_call_id="1")
    assert Reply.of(message) == reply
    assert Reply.of(message.model_copy(update={"content": "Heard nothing."})) is None
    assert Reply.of(message.model_copy(update={"artifact": artifact | {"ref": {"start": 1}}})) is None
    assert Reply.of(message.model_copy(update={"artifact": "ref"})) is None
    assert Reply.of(HumanMessage("hello")) is None


def test_under_a_control_the_reply_speaks_of_what_was_asked():
    reply = Reply(outcome="heard", ref=REF.span(1.0, 2.0), asked=REF.span(5.0, 6.0))
    assert reply.content == "Heard 5 to 6 s."


# --- in other agents --------------------------------------------------------------------------------------------


def call(args, id="c1"):
    return {"name": "relisten", "args": args, "id": id, "type": "tool_call"}


def run_tool_node(tool, *calls):
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", END)
    asked = AIMessage("", tool_calls=list(calls))
    return graph.compile().invoke({"messages": [HumanMessage("?"), asked]})["messages"][2:]


def test_as_a_tool_it_answers_with_a_reference():
    tool = make_relisten([noise(20.0)])
    message = tool.invoke(call({"start": 12.4, "end": 15.0}))
    assert message.content == "Heard 12.4 to 15 s." and message.tool_call_id == "c1"
    reply = Reply.of(message)
    assert reply.ref == REF.span(12.4, 15.0)
    json.dumps(message.artifact)


def test_bad_arguments_from_any_agent_are_answered_not_raised():
    tool = make_relisten([noise(20.0)])
    assert "finite" in tool.invoke(call({"start": math.nan, "end": 3.0})).content
    assert "outside" in tool.invoke(call({"start": 30, "end": 33})).content
    (message,) = run_tool_node(tool, call({"from": 1}))
    assert message.content.startswith("not heard: ")


def test_what_a_tool_node_answers_becomes_audio_that_a_model_can_hear():
    store = RecordingStore()
    ref = store.add(noise(20.0))
    tool = make_relisten([ref], store=store)
    calls = call({"start": 12.4, "end": 15.0, "speed": 0.5}), call({"start": 30, "end": 33}, id="c2")
    replies = run_tool_node(tool, *calls)
    asked = HumanMessage([audio_block(ref), {"type": "text", "text": "?"}])
    first, one, two, heard = hearable([asked, *replies], store, 16000)
    assert [one, two] == replies and "outside" in two.content and isinstance(heard, HumanMessage)
    (block,) = (block for block in heard.content if block["type"] == "audio")
    assert block["mime_type"] == "audio/wav"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(block["base64"])))
    assert rate == 16000 and len(samples) == round(2.6 / 0.5 * 16000)
    assert np.abs(samples - store.crop(Reply.of(one).ref, 16000)).max() < 1e-4
    assert "base64" in first.content[0] and "base64" not in asked.content[0], "only the copy holds audio"
    assert hearable([*replies, HumanMessage("Go on.")], store)[2:] == [heard, HumanMessage("Go on.")]


def test_audio_can_be_delivered_in_the_tools_own_message():
    store = RecordingStore()
    tool = make_relisten([store.add(noise(20.0))], store=store, deliver="audio")
    one, two = run_tool_node(
        tool, call({"start": 12.4, "end": 15.0}), call({"start": 30, "end": 33}, id="c2")
    )
    assert isinstance(two.content, str) and "outside" in two.content
    told, block = one.content
    assert (block["type"], block["mime_type"]) == ("file", "audio/wav")
    reply = Reply.of(one)
    assert told == {"type": "text", "text": "Heard 12.4 to 15 s."} and reply is not None
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(block["base64"])))
    assert rate == 16000 and np.abs(samples - store.crop(reply.ref, 16000)).max() < 1e-4
    assert hearable([one, two], store) == [one, two], "what is there is not said again"


def test_paths_can_be_given(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(RATE), RATE)
    message = make_relisten([path]).invoke(call({"start": 0, "end": 0.5}))
    assert Reply.of(message).ref.source == str(path)


def test_the_schema_names_every_option():
    tool = make_relisten([])
    assert tool.name == "relisten" and set(tool.args) == {
        "start",
        "end",
        "recording",
        "speed",
        "low_hz",
        "high_hz",
        "gain_db",
    }
    shown = convert_to_openai_tool(tool)["function"]["parameters"]
    assert set(shown["properties"]) == set(tool.args)


def test_default_limits_are_sane():
    assert span(hear(0.0, 20.0, limits=DEFAULT_LIMITS)) == (0.0, 20.0)
