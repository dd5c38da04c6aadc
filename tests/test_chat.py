"""The chat model: exact trajectories under LangChain messages."""

import asyncio
import base64
import json
import threading

import numpy as np
import pytest
from langchain.agents import create_agent
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.runnables import ConfigurableField
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from echo_agent.answers import extract_answer
from echo_agent.audio.recording import Recording, wav_bytes
from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine
from echo_agent.errors import ContextError, ModelError, RecordingError
from echo_agent.messages import audio_block, delta_of, trajectory_of, transcript
from echo_agent.stores import RecordingStore
from echo_agent.tools import Reply, make_relisten
from tests.scripted import ASK_ONCE, EOS, START, UNSURE, scripted_family
from tests.tiny import sounds

STORE = RecordingStore()
SAMPLES = sounds(10.0)
REF = STORE.add(Recording.from_array(SAMPLES, 16000))
QUESTION = HumanMessage([audio_block(REF), {"type": "text", "text": "What barks?"}])


def engine_for(script, **options):
    return TorchEngine(scripted_family(script, **options), STORE)


@pytest.fixture(scope="module")
def sure():
    with engine_for(ASK_ONCE) as engine:
        yield ChatLALM(engine)


@pytest.fixture(scope="module")
def unsure():
    with engine_for(UNSURE, sure=2.0) as engine:
        yield ChatLALM(engine, temperature=1.0, max_new_tokens=24)


def reply_to(message, observation=""):
    (call,) = message.tool_calls or message.invalid_tool_calls
    ref = REF.span(call["args"]["start"], call["args"]["end"]) if message.tool_calls else None
    reply = Reply(outcome="heard" if ref else "malformed", ref=ref, observation=observation)
    return ToolMessage(reply.content, artifact=reply.to_json(), tool_call_id=call["id"])


def two_turns(model, **options):
    first = model.invoke([QUESTION], **options)
    history = [QUESTION, first, reply_to(first)]
    return [*history, model.invoke(history, **options)]


def test_a_call_becomes_a_tool_call_with_an_id(sure):
    message = sure.invoke([QUESTION])
    assert message.content == "<think><seg>2.0, 4.0</seg>"
    (call,) = message.tool_calls
    assert call["name"] == "relisten" and call["args"] == {"start": 2.0, "end": 4.0} and call["id"]
    assert message.response_metadata["finish"] == "stop" and not message.invalid_tool_calls
    assert message.usage_metadata["output_tokens"] == 2


def test_the_trajectory_is_what_the_model_saw(sure):
    family = sure.family
    messages = two_turns(sure)
    trajectory = trajectory_of(messages)
    head, audio = family.render(sure.dialect.head(family, [REF], "What barks?", None))
    crop = family.audio_ids(REF.span(2.0, 4.0))
    said = [
        family.tokenize(text)
        for text in ("<think><seg>2.0, 4.0</seg>", "a dog barks</think><answer>a dog</answer>")
    ]
    assert list(trajectory.ids) == head + said[0] + crop + said[1]
    assert list(trajectory.audio) == [*audio, REF.span(2.0, 4.0)]
    wanted = [0] * len(head) + [1] * len(said[0]) + [0] * len(crop) + [1] * len(said[1])
    assert list(trajectory.mask) == wanted and not trajectory.rerendered
    assert [s.origin for s in trajectory.segments] == ["prompt", "sampled", "tool", "sampled"]
    sampled = [p for p, m in zip(trajectory.logprobs, trajectory.mask, strict=True) if m]
    assert all(p <= 0 for p in sampled) and min(sampled) < -1e-6
    assert messages[-1].response_metadata["tokens"]["cached"] >= len(head) + len(said[0]) - 1, (
        "the cache is used"
    )


def test_calls_only_append(sure):
    first, *_ = ai = [m for m in two_turns(sure) if isinstance(m, AIMessage)]
    deltas = [delta_of(message) for message in ai]
    before = trajectory_of([first])
    assert deltas[1].prefix == before.hash
    assert [s.origin for s in deltas[1].segments] == ["tool", "sampled"]
    assert trajectory_of(ai).ids[: len(before.ids)] == before.ids


def test_deltas_are_plain_json_and_survive_a_checkpoint(sure):
    messages = two_turns(sure)
    serde = JsonPlusSerializer(allowed_msgpack_modules=None)
    restored = serde.loads_typed(serde.dumps_typed(messages))
    assert trajectory_of(restored) == trajectory_of(messages)
    for message in restored:
        if isinstance(message, AIMessage):
            json.dumps(message.response_metadata)
            assert delta_of(message).to_json() == message.response_metadata["echo"]
    again = sure.invoke(restored[:-1])
    assert again.content == messages[-1].content and not delta_of(again).rerendered


def test_long_runs_of_placeholders_are_packed(sure):
    data = sure.invoke([QUESTION]).response_metadata["echo"]
    assert [sure.family.audio_id, sure.family.audio_tokens(REF)] in data["segments"][0]["ids"]


# --- histories that are not ours --------------------------------------------------------------------------------


def edited(messages, index, **update):
    copy = list(messages)
    copy[index] = copy[index].model_copy(update=update)
    return copy


def histories(model):
    """Histories whose deltas do not fit, by what was done to them."""
    history = two_turns(model)[:3]
    question, first, reply = history
    other = question.model_copy(
        update={"content": [question.content[0], {"type": "text", "text": "Who barks?"}]}
    )
    broken = json.loads(json.dumps(first.response_metadata))
    broken["echo"]["segments"][1]["ids"] = "all"
    forged = json.loads(json.dumps(first.response_metadata))
    forged["echo"]["prefix"] = "0" * 64
    unlogged = json.loads(json.dumps(first.response_metadata))
    unlogged["echo"]["segments"][1]["logprobs"].pop()
    return {
        "question edited": [other, first, reply],
        "audio replaced": [HumanMessage([audio_block(REF.span(0, 5)), question.content[1]]), first, reply],
        "system message added": [SystemMessage("Be brief."), *history],
        "answer edited": edited(history, 1, content=first.content.replace("<think>", "<think>so ")),
        "from another model": edited(history, 1, response_metadata={}),
        "delta malformed": edited(history, 1, response_metadata=broken),
        "delta of another prefix": edited(history, 1, response_metadata=forged),
        "delta without its log-probabilities": edited(history, 1, response_metadata=unlogged),
    }


@pytest.mark.parametrize("kind", list(range(8)))
def test_a_history_that_does_not_fit_is_rendered_anew_and_marked(sure, kind):
    name, history = list(histories(sure).items())[kind]
    message = sure.invoke(history)
    delta = delta_of(message)
    assert delta.rerendered, name
    trajectory = trajectory_of([message])
    assert trajectory.rerendered
    assert sum(trajectory.mask) == len(delta.segments[-1].ids), "old text does not count as sampled"
    assert sure.family.check_placeholders(trajectory.ids, trajectory.audio)
    assert message.content == "a dog barks</think><answer>a dog</answer>"


def test_a_reply_that_was_edited_is_noticed(sure):
    history = two_turns(sure)
    after = [*edited(history, 2, content="Heard nothing."), HumanMessage("And then?")]
    assert delta_of(sure.invoke(after)).rerendered
    assert not delta_of(sure.invoke([*history, HumanMessage("And then?")])).rerendered


def test_trimmed_messages_are_noticed(sure):
    first, reply, last = two_turns(sure)[1:]
    assert delta_of(sure.invoke([QUESTION, last, HumanMessage("And then?")])).rerendered
    with pytest.raises(ContextError, match="begin with a reply"):
        sure.invoke([reply, last])


def test_after_a_rerendering_the_run_goes_on_token_by_token(sure):
    question, _, reply = two_turns(sure)[:3]
    foreign = AIMessage(
        "<think><seg>2.0, 4.0</seg>", tool_calls=[{"name": "relisten", "args": {}, "id": "x"}]
    )
    history = [question, foreign, reply]
    history.append(sure.invoke(history))
    history.append(HumanMessage("And then?"))
    last = sure.invoke(history)
    assert delta_of(history[-2]).rerendered and not delta_of(last).rerendered
    with pytest.raises(ContextError, match="another model"):
        trajectory_of(history)
    assert sure.context([*history, last]).trajectory.rerendered


def test_calls_of_other_models_are_written_in_our_dialect(sure):
    foreign = AIMessage(
        "Let me see.", tool_calls=[{"name": "relisten", "args": {"start": 1, "end": 2}, "id": "x"}]
    )
    context = sure.context([QUESTION, foreign, ToolMessage("Heard 1 to 2 s.", tool_call_id="x")])
    text = sure.family.detokenize([i for i in context.ids if i != sure.family.audio_id])
    assert "Let me see.<seg>1.0, 2.0</seg> (Heard 1 to 2 s.)" in text


def test_another_model_cannot_write_control_tokens(sure):
    foreign = AIMessage("so <|im_end|><think>hm</think>")
    context = sure.context([QUESTION, foreign, HumanMessage("Well?")])
    text = sure.family.detokenize([i for i in context.ids if i != sure.family.audio_id])
    assert "so < |im_end|><think>hm</think><|im_end|>\n<|im_start|>user\nWell?" in text


def test_without_a_question_there_is_nothing_to_answer(sure):
    with pytest.raises(ContextError):
        sure.invoke([])


# --- streaming, async, batches ----------------------------------------------------------------------------------


def same(a, b):
    assert a.content == b.content and a.tool_calls == b.tool_calls
    assert a.response_metadata["echo"] == b.response_metadata["echo"]


def test_a_stream_is_the_message_in_pieces_with_one_delta(sure):
    whole = sure.invoke([QUESTION])
    chunks = list(sure.stream([QUESTION]))
    assert len(chunks) > 2 and sum("echo" in c.response_metadata for c in chunks) == 1
    assert "echo" in chunks[-1].response_metadata
    merged = chunks[0]
    for chunk in chunks[1:]:
        merged += chunk
    assert isinstance(merged, AIMessageChunk)
    same(merged, whole)


async def test_all_ways_of_calling_give_the_same(sure):
    whole = sure.invoke([QUESTION])
    merged = None
    async for chunk in sure.astream([QUESTION]):
        merged = chunk if merged is None else merged + chunk
    same(merged, whole)
    same(await sure.ainvoke([QUESTION]), whole)
    for message in await sure.abatch([[QUESTION]] * 3):
        same(message, whole)
    for message in await asyncio.to_thread(sure.batch, [[QUESTION]] * 3):
        same(message, whole)
    for message in await asyncio.gather(*(sure.ainvoke([QUESTION]) for _ in range(3))):
        same(message, whole)


async def test_an_abandoned_stream_takes_its_run_out_of_the_batch(sure):
    stream = sure.astream([QUESTION])
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(120):
        while sure.engine.stats()["live_runs"]:
            await asyncio.sleep(0.005)


def test_choices_are_an_option_of_a_call_and_reach_the_answer(sure):
    history = two_turns(sure)[:3]
    free, pigs = sure.invoke(history), sure.invoke(history, choices=("a cow", "a pig"))
    assert free.content.endswith("<answer>a dog</answer>")
    assert extract_answer(pigs.content) in ("a cow", "a pig")
    same(sure.bind(choices=("a cow", "a pig")).invoke(history), pigs)
    chunks = list(sure.stream(history, choices=("a cow", "a pig")))
    assert "".join(chunk.text for chunk in chunks) == pigs.content


def test_sampled_runs_differ_by_run_and_not_by_the_way_of_calling(unsure):
    texts = [unsure.invoke([QUESTION], run=run).content for run in range(12)]
    assert len(set(texts)) > 1
    again = unsure.batch([[QUESTION]] * 12, [{"configurable": {}}] * 12)
    assert [m.content for m in again] == [texts[0]] * 12, "the same run is the same"
    assert [unsure.bind(run=run).invoke([QUESTION]).content for run in range(12)] == texts
    field = unsure.configurable_fields(run=ConfigurableField(id="run"))
    configs = [{"configurable": {"run": run}} for run in range(12)]
    assert [m.content for m in field.batch([[QUESTION]] * 12, configs)] == texts
    assert [unsure.invoke([QUESTION], run=run, seed=1).content for run in range(12)] != texts
    assert len({unsure.invoke([QUESTION], run=run, temperature=0.0).content for run in range(4)}) == 1


# --- options and tools ------------------------------------------------------------------------------------------


def test_unknown_options_are_errors(sure):
    with pytest.raises(TypeError, match="temprature"):
        sure.invoke([QUESTION], temprature=0.7)


def test_unknown_settings_are_errors_with_the_nearest_name(sure):
    for setting, near in (
        ("temprature", "temperature"),
        ("max_token", "max_tokens"),
        ("dialects", "dialect"),
    ):
        with pytest.raises(TypeError, match=f"no setting '{setting}'; did you mean '{near}'"):
            ChatLALM(sure.engine, **{setting: 1})
    with pytest.raises(TypeError, match="there are .*temperature"):
        ChatLALM(sure.engine, zzz=1)
    with pytest.raises(TypeError, match="no option 'stopp'; did you mean 'stop'"):
        sure.invoke([QUESTION], stopp=["x"])


def test_max_tokens_is_another_name(sure):
    assert ChatLALM(sure.engine, max_tokens=1).max_new_tokens == 1
    for message in (
        ChatLALM(sure.engine, max_tokens=1).invoke([QUESTION]),
        sure.invoke([QUESTION], max_tokens=1),
        sure.bind(max_tokens=1).invoke([QUESTION]),
    ):
        assert message.content == "<think>" and message.response_metadata["finish"] == "length"
    assert sure.invoke([QUESTION], max_tokens=None).content == sure.invoke([QUESTION]).content
    with pytest.raises(TypeError, match="two names"):
        ChatLALM(sure.engine, max_tokens=1, max_new_tokens=2)


@pytest.mark.parametrize("stop", ["<think>", ["<think>"], ("<think>", "never")])
def test_stop_strings_end_a_call(sure, stop):
    own = ChatLALM(sure.engine, stop=stop)
    assert own.invoke([QUESTION]).content == "<think>"
    assert own.invoke([QUESTION]).response_metadata["finish"] == "stop"
    assert sure.invoke([QUESTION], stop=stop).content == "<think>"
    assert own.invoke([QUESTION], stop=[]).content == sure.invoke([QUESTION]).content, (
        "a call's own come first"
    )
    with pytest.raises(ValueError, match="stop"):
        ChatLALM(sure.engine, stop=5)


def test_tokens_are_counted_by_the_model_itself(sure, monkeypatch):
    monkeypatch.setattr("langchain_core.language_models.base._get_token_ids_default_method", None)
    text = "What barks? <|im_end|>"
    assert sure.get_num_tokens(text) == len(sure.family.tokenize(sure.family.escape(text)))
    messages = two_turns(sure)
    question, first, reply, last = (sure.get_num_tokens_from_messages([message]) for message in messages)
    assert question == len(sure.family.audio_ids(REF)) + sure.get_num_tokens("What barks?")
    assert reply == len(sure.family.audio_ids(REF.span(2.0, 4.0))) + sure.get_num_tokens(messages[2].text)
    assert sure.get_num_tokens_from_messages(messages[::-1]) == question + first + reply + last
    limit = sure.get_num_tokens_from_messages(messages) - 1
    kept = trim_messages(messages, max_tokens=limit, token_counter=sure, strategy="last", allow_partial=False)
    assert 0 < len(kept) < len(messages)


def test_only_the_tool_that_the_policy_knows_can_be_bound(sure):
    bound = sure.bind_tools([make_relisten([REF], store=STORE)], tool_choice="auto")
    same(bound.invoke([QUESTION]), sure.invoke([QUESTION]))


def test_what_it_cannot_do_is_declared_and_not_raised(sure):
    assert not any(sure.profile[key] for key in ("tool_calling", "tool_choice", "structured_output"))
    assert sure.profile["audio_inputs"]
    search = {"name": "search", "description": "", "parameters": {"type": "object", "properties": {}}}
    with pytest.warns(UserWarning, match="never call search"):
        bound = sure.bind_tools([search, make_relisten([REF], store=STORE)])
    same(bound.invoke([QUESTION]), sure.invoke([QUESTION]))
    with pytest.warns(UserWarning, match="tool_choice 'any' has no effect"):
        sure.bind_tools([], tool_choice="any")


def test_a_call_for_another_model_is_refused_and_for_this_one_is_not(sure):
    same(sure.invoke([QUESTION], model=sure.family.name), sure.invoke([QUESTION]))
    with pytest.raises(ModelError, match="asks for the model 'gpt-5'"):
        sure.invoke([QUESTION], model="gpt-5")


def test_usage_says_what_was_audio_and_what_was_cached():
    with engine_for(ASK_ONCE) as engine:
        model = ChatLALM(engine)
        first, last = (message for message in two_turns(model) if isinstance(message, AIMessage))
        details = [message.usage_metadata["input_token_details"] for message in (first, last)]
        whole, crop = (
            model.family.audio_ids(ref).count(model.family.audio_id) for ref in (REF, REF.span(2.0, 4.0))
        )
    assert details[0] == {"audio": whole, "cache_read": 0}
    assert details[1]["audio"] == crop, "the recording was cached, the crop is new"
    assert details[1]["cache_read"] == last.response_metadata["tokens"]["cached"] > whole


def test_a_context_that_does_not_fit_is_refused_with_both_numbers(sure):
    long = HumanMessage([audio_block(REF), {"type": "text", "text": "What barks? " * 3000}])
    with pytest.raises(ContextError, match=f"{sure.family.context_length}"):
        sure.invoke([long])


def test_new_tokens_are_limited(sure):
    message = sure.invoke([QUESTION], max_new_tokens=1)
    assert message.content == "<think>" and message.response_metadata["finish"] == "length"
    reserve = sure.family.context_length - len(sure.context([QUESTION]).ids) - 1
    assert sure.invoke([QUESTION], reserve=reserve).response_metadata["tokens"]["sampled"] == 1


def test_it_stands_in_an_agent_of_langchain(sure):
    agent = create_agent(sure, [make_relisten([REF], store=STORE)])
    messages = agent.invoke({"messages": [QUESTION]})["messages"]
    assert transcript(messages) == "<think><seg>2.0, 4.0</seg>a dog barks</think><answer>a dog</answer>"
    assert not trajectory_of(messages).rerendered and len(trajectory_of(messages).audio) == 2


# --- calls that cannot be read ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "options", "finish"),
    [
        ({START: "<seg>soon</seg>"}, {}, "stop"),
        ({START: "<seg>12, 15", "<seg>12, 15": EOS}, {}, "eos"),
        ({START: "<seg>12, 15", "<seg>12, 15": "<think>"}, {"max_new_tokens": 1}, "length"),
        ({START: "12, 15</seg>"}, {}, "stop"),
    ],
)
def test_calls_that_cannot_be_read_are_invalid_and_answered(script, options, finish):
    with engine_for({**script, ")": "<answer>a dog</answer>"}) as engine:
        model = ChatLALM(engine)
        message = model.invoke([QUESTION], **options)
        (call,) = message.invalid_tool_calls
        assert not message.tool_calls and message.response_metadata["finish"] == finish
        assert call["id"] and call["error"] and call["args"] in message.content
        assert message.response_metadata["call_errors"] == {call["id"]: call["error"]}
        chunks = list(model.stream([QUESTION], **options))
        assert chunks[-1].response_metadata["call_errors"] == {call["id"]: call["error"]}
        last = model.invoke([QUESTION, message, reply_to(message, f"not heard: {call['error']}")])
        assert last.content == "<answer>a dog</answer>" and not delta_of(last).rerendered
        text = transcript([message, last])
        assert text.endswith(f" (not heard: {call['error']})<answer>a dog</answer>")


# --- audio in messages ------------------------------------------------------------------------------------------


def test_base64_audio_is_heard_like_a_reference(sure):
    data = base64.b64encode(wav_bytes(SAMPLES, 16000)).decode()
    for block in (
        {"type": "audio", "base64": data, "mime_type": "audio/wav"},
        {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
    ):
        message = sure.invoke([HumanMessage([block, {"type": "text", "text": "What barks?"}])])
        trajectory = trajectory_of([message])
        assert trajectory.ids == trajectory_of([sure.invoke([QUESTION])]).ids
        assert np.abs(STORE.crop(trajectory.audio[0], 16000) - SAMPLES).max() < 1e-3


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "audio", "url": "http://example.com/a.wav"}, "no URLs"),
        ({"type": "audio", "file_id": "abc"}, "no URLs"),
        ({"type": "audio", "base64": "!!", "mime_type": "audio/wav"}, "base64"),
        ({"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}, "audio in a message"),
        ({"type": "audio", "file_id": "x", "extras": {"echo": {"source": "/etc/passwd"}}}, "malformed"),
    ],
)
def test_audio_that_cannot_be_used_is_an_error(sure, block, words):
    with pytest.raises(RecordingError, match=words):
        sure.invoke([HumanMessage([block, {"type": "text", "text": "What barks?"}])])


@pytest.mark.parametrize("kind", ["image", "image_url", "video", "file", "input_text", None])
def test_blocks_that_would_vanish_are_errors_that_name_their_type(sure, kind):
    block = {"type": kind, "image_url": {"url": "data:image/png;base64,AAAA"}}
    after = [QUESTION, sure.invoke([QUESTION])]
    for messages in (
        [HumanMessage([*QUESTION.content, block])],
        [SystemMessage([block]), QUESTION],
        [*after, reply_to(after[1]), HumanMessage(["And now?", block])],
        [*after, ToolMessage([{"type": "text", "text": "Look:"}, block], tool_call_id="x")],
    ):
        with pytest.raises(ContextError, match=f"content block of type {kind!r}"):
            sure.invoke(messages)


def test_pictures_and_sounds_of_other_models_are_errors_and_their_reasoning_is_not(sure):
    for block in ({"type": "image", "base64": "AAAA", "mime_type": "image/png"}, audio_block(REF)):
        with pytest.raises(ContextError):
            sure.invoke([QUESTION, AIMessage([block]), HumanMessage("What is it?")])
    thought = AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "A dog."}])
    assert sure.invoke([QUESTION, thought, HumanMessage("Sure?")]).content


def test_audio_that_another_tool_delivers_is_heard(sure):
    first = sure.invoke([QUESTION])
    reply = ToolMessage([{"type": "text", "text": "Here."}, audio_block(REF.span(1, 2))], tool_call_id="x")
    assert sure.context([QUESTION, first, reply]).audio == (REF, REF.span(1, 2))


async def test_audio_data_is_not_read_in_the_event_loop(sure, monkeypatch):
    threads = []
    opened = Recording.from_bytes
    monkeypatch.setattr(
        Recording, "from_bytes", lambda *args: threads.append(threading.current_thread()) or opened(*args)
    )
    block = {"type": "audio", "base64": base64.b64encode(wav_bytes(SAMPLES, 16000)).decode()}
    message = HumanMessage([block, {"type": "text", "text": "What barks?"}])
    await sure.ainvoke([message])
    [chunk async for chunk in sure.astream([message])]
    assert len(threads) >= 2 and threading.current_thread() not in threads


# --- text alone -------------------------------------------------------------------------------------------------


def test_a_model_that_can_answers_text_alone(sure):
    message = sure.invoke("What barks?")
    assert message.content and not trajectory_of([message]).audio
    history = [HumanMessage("Hello"), sure.invoke("Hello"), HumanMessage("What barks?")]
    assert sure.invoke(history).content and sure.bind_tools([]).invoke("Hello").content


def test_a_model_that_needs_audio_says_so():
    with engine_for(ASK_ONCE, kind="echo-nano") as engine:
        model = ChatLALM(engine)
        with pytest.raises(ContextError, match="answers questions about recordings only.*audio_block"):
            model.invoke("What barks?")
        assert model.invoke([QUESTION]).content


# --- the other dialect ------------------------------------------------------------------------------------------


def test_the_turns_dialect_runs_end_to_end():
    call = '<tool_call>\n{"name": "relisten", "arguments": {"start": 2.0, "end": 4.0}}\n</tool_call>'
    script = {START: call, "<answer>": "a dog", "a dog": "</answer>"}
    with engine_for(script) as engine:
        model = ChatLALM(engine, dialect="turns")
        first = model.invoke([QUESTION])
        assert first.tool_calls[0]["args"] == {"start": 2.0, "end": 4.0}
        request = HumanMessage("Answer.", additional_kwargs={"echo_force_answer": "relistens"})
        last = model.invoke([QUESTION, first, reply_to(first), request])
        trajectory = trajectory_of([first, last])
        assert last.content == "a dog</answer>" and not trajectory.rerendered
        text = model.family.detokenize([i for i in trajectory.ids if i != model.family.audio_id])
        assert f"{call}<|im_end|>\n<|im_start|>user\n<tool_response>\n" in text
        assert text.endswith("<|im_end|>\n<|im_start|>assistant\n<answer>a dog</answer>")
        assert transcript([first, last]) == f"{call}\n<answer>a dog</answer>"
