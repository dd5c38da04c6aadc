"""The listening graph: budgets, mended and malformed calls, controls, streams, and other models in its place."""

import asyncio
import base64
import io
import json
import time
from typing import Any

import numpy as np
import pytest
import soundfile
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import END, START, MessagesState, StateGraph

from echo_agent.errors import ContextError, QuestionError, RecordingError
from echo_agent.graphs import Budget, ListeningContext, ListeningState, build_listening_graph, initial_state
from echo_agent.graphs.calls import replies_of
from echo_agent.messages import audio_block, trajectory_of, transcript
from tests import scripted
from tests.graphs.conftest import CHOICES, comparable
from tests.scripted import ASK_FOREVER, ASK_ONCE, EOS, HEARD, TOLD, UNSURE
from tests.tiny import KINDS

ANSWER = {"<answer>": "a dog", "a dog": "</answer>"}
THINK = {scripted.START: "<think>"}


def calling(call, then="</think><answer>a dog</answer>"):
    """A policy that makes one call and answers once it is told something or hears something."""
    return {**THINK, "<think>": call, HEARD: then, TOLD: then}


def tools(state):
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


def text(state):
    return transcript(state["messages"])


def test_it_listens_again_and_answers(setup):
    state = setup.run(ASK_ONCE)
    assert (state["answer"], state["status"], state["choice_index"]) == ("a dog", "answered", 0)
    assert (
        state["spent"]["relistens"] == 1
        and state["spent"]["seconds"] == 2.0
        and state["spent"]["tokens"] == 7
    )
    assert not state["budget_exhausted"]
    assert trajectory_of(state["messages"]).audio == (setup.ref, setup.ref.span(2.0, 4.0))


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_runs_through_it(setup, kind):
    assert setup.run(ASK_ONCE, kind=kind)["answer"] == "a dog"


def test_open_questions_have_answers_too(setup):
    state = setup.run(ASK_ONCE, choices=None)
    assert (state["answer"], state["choice_index"]) == ("a dog", None)


# --- no answer is ever invented ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        {**THINK, "<think>": "a dog barks", "a dog barks": EOS},
        {**THINK, "<think>": "<answer>a dog or a cat</answer>"},
        {**THINK, "<think>": "<answer>dog</answer>"},
        {**THINK, "<think>": "<answer></answer>"},
        {**THINK, "<think>": "a dog</answer>"},
        {**THINK, "<think>": EOS},
    ],
)
def test_what_is_not_an_answer_is_unparsed(setup, script):
    state = setup.run(script)
    assert (state["answer"], state["status"], state["choice_index"]) == (None, "unparsed", None)
    assert not state["budget_exhausted"]


def test_an_answer_may_miss_its_end_only_where_the_turn_ended(setup):
    state = setup.run({**THINK, "<think>": "<answer>", "<answer>": "a dog", "a dog": EOS}, guided=False)
    assert state["answer"] == "a dog"
    forever = {**THINK, "<think>": "<answer>", "<answer>": "a cat", "a cat": "<answer>"}
    state = setup.run(forever, budget=Budget(max_new_tokens=4, answer_tokens=3), guided=False)
    assert state["status"] == "unparsed"


# --- guided answers ---------------------------------------------------------------------------------------------

WRONG = {**THINK, "<think>": "</think>", "</think>": "<answer>", "<answer>": "a cow", "a cow": "</answer>"}
"""Answers with what is none of the choices."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_guided_policy_answers_with_one_of_the_choices(setup, kind):
    free = setup.run(WRONG, kind=kind, guided=False)
    assert (free["status"], "<answer>a cow</answer>" in text(free)) == ("unparsed", True)
    state = setup.run(WRONG, kind=kind)
    assert state["status"] == "answered" and state["answer"] in CHOICES
    assert state["settings"]["guided"] and not free["settings"]["guided"]
    assert setup.run(WRONG, kind=kind, choices=None)["answer"] == "a cow", "an open question is free"


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_that_is_asked_for_is_guided_too(setup, kind):
    script = {**ASK_FOREVER, "<answer>": "<seg>2.0, 4.0</seg>"}
    state = setup.run(script, kind=kind, control="off")
    assert text(state).startswith("<think><seg>2.0, 4.0</seg></think><answer>")
    assert state["budget_exhausted"] and state["answer"] in CHOICES
    assert setup.run(script, kind=kind, control="off", guided=False)["status"] == "unparsed"


def test_guidance_writes_no_answer_for_a_policy_that_writes_none(setup):
    never = {**THINK, "<think>": "a dog", "a dog": ["a dog", EOS]}
    assert setup.run(never)["status"] == "unparsed"
    short = setup.run(WRONG, budget=Budget(max_new_tokens=3, answer_tokens=1))
    assert short["status"] == "unparsed", "an answer that the budget cuts off is none"


def test_an_answer_that_the_budget_cut_off_is_guided_to_its_end(setup):
    cut = setup.run(WRONG, budget=Budget(max_new_tokens=4))
    first, second = (message.text for message in cut["messages"] if isinstance(message, AIMessage))
    assert first.partition("<answer>")[2] and second and "<answer>" not in second
    whole = setup.run(WRONG)
    assert text(cut) == text(whole) and cut["answer"] == whole["answer"] is not None


# --- calls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "span", "word"),
    [
        ("<seg>8.0, 15.0</seg>", (8.0, 10.0), "clamped"),
        ("<seg>4.0, 2.0</seg>", (2.0, 4.0), "swapped"),
        ("<seg>5.0, 5.0</seg>", (4.9, 5.1), "widened"),
        ("<seg>5.0, 5.05</seg>", (4.925, 5.125), "widened"),
    ],
)
def test_calls_that_can_be_mended_are_heard_and_the_policy_is_told(setup, call, span, word):
    state = setup.run(calling(call))
    (reply,) = replies_of(state["messages"])
    assert (reply.ref.start, reply.ref.end) == pytest.approx(span) and word in reply.observation
    assert f"{call} ({reply.observation})</think>" in text(state) and state["answer"] == "a dog"
    trajectory = trajectory_of(state["messages"])
    assert trajectory.audio[-1] == reply.ref and trajectory.segments[2].origin == "tool"


@pytest.mark.parametrize(
    ("call", "outcome", "words"),
    [
        ("<seg>nan, 3.0</seg>", "refused", "finite"),
        ("<seg>30, 33</seg>", "refused", "outside of 0-10"),
        ("<seg>1, 2; recording=2</seg>", "refused", "no recording 2"),
        ("<seg>soon</seg>", "malformed", "start, end in seconds"),
        ("<seg>1, 2; volume=3</seg>", "malformed", "volume"),
        ("12, 15</seg>", "malformed", "never opened"),
    ],
)
def test_calls_that_cannot_be_mended_are_answered_with_the_reason(setup, call, outcome, words):
    state = setup.run(calling(call))
    (reply,) = replies_of(state["messages"])
    assert reply.outcome == outcome and reply.ref is None and words in reply.observation
    assert tools(state)[0].status == "error" and f"{call} ({reply.observation})" in text(state)
    assert state["answer"] == "a dog" and state["spent"]["relistens"] == 1 and state["spent"]["seconds"] == 0


@pytest.mark.parametrize(
    ("kind", "opened"),
    [
        ("qwen2.5-omni", "<|im_end|></seg>\n<|im_start|>assistant\n"),
        ("echo-nano", "<|end|></seg><|assistant|>"),
    ],
)
def test_a_call_never_closed_is_answered_after_the_end_of_turn(setup, kind, opened):
    script = {**THINK, "<think>": "<seg>12, 15", "<seg>12, 15": EOS, TOLD: "</think><answer>a dog</answer>"}
    state = setup.run(script, kind=kind)
    (reply,) = replies_of(state["messages"])
    assert reply.outcome == "malformed" and "not closed" in reply.observation and state["answer"] == "a dog"
    assert (
        text(state)
        == "<think><seg>12, 15</seg> (not heard: the call was not closed)</think><answer>a dog</answer>"
    )
    family = setup.context(script, kind=kind).model.family
    ids = [i for i in trajectory_of(state["messages"]).ids if i != family.audio_id]
    assert f"<seg>12, 15{opened} (not heard: the call was not closed)</think>" in family.detokenize(ids)


def test_a_call_cut_off_by_the_budget_is_answered_and_the_answer_asked_for(setup):
    script = {**THINK, "<think>": "<seg>12, 15", "<seg>12, 15": "<think>", **ANSWER}
    state = setup.run(script, budget=Budget(max_new_tokens=2))
    (reply,) = replies_of(state["messages"])
    assert reply.outcome == "malformed" and state["budget_exhausted"] and state["answer"] == "a dog"
    assert text(state) == (
        "<think><seg>12, 15</seg> (not heard: the call was not closed)</think><answer>a dog</answer>"
    )


def test_repeats_are_noted_and_heard(setup):
    state = setup.run(ASK_FOREVER, budget=Budget(max_relistens=3))
    first, *again = replies_of(state["messages"])[:3]
    assert first.observation == "" and all("heard before" in reply.observation for reply in again)
    assert state["spent"]["seconds"] == 6.0


# --- budgets ----------------------------------------------------------------------------------------------------


def test_at_the_end_of_its_calls_the_policy_is_asked_and_answers(setup):
    state = setup.run(ASK_FOREVER)
    replies = replies_of(state["messages"])
    assert [reply.outcome for reply in replies] == ["heard"] * 8 + ["exhausted"], "eight by default"
    assert state["budget_exhausted"] and state["answer"] == "a dog" and state["spent"]["relistens"] == 8
    assert text(state).endswith("<seg>2.0, 4.0</seg></think><answer>a dog</answer>")
    last = trajectory_of(state["messages"]).segments[-2]
    assert (
        last.origin == "tool" and setup.model(ASK_FOREVER).family.detokenize(last.ids) == "</think><answer>"
    )


def test_malformed_calls_use_up_the_budget_too(setup):
    state = setup.run(
        {**calling("<seg>soon</seg>", then="<seg>soon</seg>"), **ANSWER}, budget=Budget(max_relistens=3)
    )
    assert [reply.outcome for reply in replies_of(state["messages"])] == ["malformed"] * 3 + ["exhausted"]
    assert state["answer"] == "a dog"


def test_seconds_heard_are_limited(setup):
    state = setup.run(ASK_FOREVER, budget=Budget(max_seconds=5.0))
    heard = [reply.ref.seconds for reply in replies_of(state["messages"]) if reply.ref]
    assert heard == [2.0, 2.0, 1.0] and state["spent"]["seconds"] == 5.0
    assert state["budget_exhausted"] and state["answer"] == "a dog"


def test_new_tokens_are_limited_and_the_answer_has_its_own(setup):
    endless = {**THINK, "<think>": "a dog barks", "a dog barks": "and a", "and a": "<think>", **ANSWER}
    state = setup.run(endless, budget=Budget(max_new_tokens=9))
    assert state["spent"]["tokens"] == 9 and state["budget_exhausted"] and state["answer"] == "a dog"
    assert text(state).endswith("</think><answer>a dog</answer>")


def test_a_crop_at_the_last_token_is_not_heard(setup):
    state = setup.run(ASK_ONCE, budget=Budget(max_new_tokens=2))
    assert [reply.outcome for reply in replies_of(state["messages"])] == ["exhausted"] and state[
        "answer"
    ] == "a dog"


def test_a_policy_that_will_not_answer_is_asked_once(setup):
    state = setup.run(
        {**ASK_FOREVER, "<answer>": "<seg>2.0, 4.0</seg>"}, budget=Budget(max_relistens=1), guided=False
    )
    assert state["status"] == "unparsed" and state["budget_exhausted"]
    assert sum(isinstance(m, HumanMessage) for m in state["messages"]) == 2


def test_a_full_context_is_the_end_of_the_budget_not_an_error(setup):
    context = setup.context(ASK_FOREVER, budget=Budget(max_relistens=10**6))
    used = len(context.model.context(setup.run(ASK_ONCE)["messages"][:1]).ids)
    family = context.model.family
    limit, family.context_length = family.context_length, used + 400
    try:
        state = setup.graph.invoke(setup.state(), context=context)
    finally:
        family.context_length = limit
    assert state["budget_exhausted"] and state["answer"] == "a dog" and len(replies_of(state["messages"])) > 2
    forced = next(m for m in state["messages"] if "echo_force_answer" in m.additional_kwargs)
    assert forced.additional_kwargs["echo_force_answer"] == "context"


def test_a_question_that_does_not_fit_is_an_error_at_once(setup):
    with pytest.raises(ContextError, match="shorten the question"):
        setup.run(ASK_ONCE, question="What barks? " * 5000)


# --- controls ---------------------------------------------------------------------------------------------------


def test_off_answers_the_first_call_with_the_request(setup):
    state = setup.run(ASK_ONCE, control="off")
    assert text(state) == "<think><seg>2.0, 4.0</seg></think><answer>a dog</answer>"
    assert state["spent"]["relistens"] == 0 and trajectory_of(state["messages"]).audio == (setup.ref,)


def test_wrong_crop_delivers_another_place_and_speaks_of_what_was_asked(setup):
    gold = ((5.0, 6.0),)
    state = setup.run(ASK_ONCE, control="wrong-crop", gold_spans=gold, seed=3)
    (reply,) = replies_of(state["messages"])
    assert reply.asked == setup.ref.span(2.0, 4.0) and reply.content == "Heard 2 to 4 s."
    assert reply.ref.seconds == pytest.approx(2.0) and reply.overlap == 0
    assert reply.ref.end <= 2.0 or reply.ref.start >= 4.0
    assert reply.ref.end <= 5.0 or reply.ref.start >= 6.0
    assert trajectory_of(state["messages"]).audio[-1] == reply.ref
    assert state["spent"]["seconds"] == 2.0
    on = trajectory_of(setup.run(ASK_ONCE)["messages"])
    assert len(trajectory_of(state["messages"]).ids) == len(on.ids), "equal budgets"


def test_silence_delivers_nothing_at_the_same_cost(setup):
    state = setup.run(ASK_ONCE, control="silence")
    (reply,) = replies_of(state["messages"])
    assert reply.asked == setup.ref.span(2.0, 4.0) and reply.content == "Heard 2 to 4 s."
    assert (reply.ref.start, reply.ref.end) == (2.0, 4.0)
    assert not setup.store.crop(reply.ref, 16000).any() and setup.store.crop(reply.asked, 16000).any()
    on = trajectory_of(setup.run(ASK_ONCE)["messages"])
    assert len(trajectory_of(state["messages"]).ids) == len(on.ids), "equal budgets"


# --- streams and ways of calling --------------------------------------------------------------------------------


def test_the_custom_stream_tells_the_run(setup):
    context = setup.context(ASK_FOREVER, stream_tokens=True, budget=Budget(max_relistens=2))
    events = list(setup.graph.stream(setup.state(), context=context, stream_mode="custom"))
    assert "".join(e["text"] for e in events if e["type"] == "token") == text(
        setup.run(ASK_FOREVER, budget=Budget(max_relistens=2))
    )
    relistens = [e for e in events if e["type"] == "relisten"]
    assert [(e["index"], e["start"], e["end"], e["seconds"], e["outcome"]) for e in relistens] == [
        (1, 2.0, 4.0, 2.0, "heard"),
        (2, 2.0, 4.0, 2.0, "heard"),
    ]
    assert events[-1] == {"type": "answer", "answer": "a dog", "status": "answered", "choice_index": 0}
    assert any(e.get("origin") == "tool" for e in events)
    json.dumps(events)


async def test_the_async_stream_is_the_same(setup):
    context = setup.context(ASK_ONCE, stream_tokens=True)
    sync = list(setup.graph.stream(setup.state(), context=context, stream_mode="custom"))
    events = [
        event async for event in setup.graph.astream(setup.state(), context=context, stream_mode="custom")
    ]
    assert events == sync


async def test_streaming_messages_changes_nothing(setup):
    context = setup.context(calling("<seg>soon</seg>"))
    pieces = [
        p
        async for p in setup.graph.astream(setup.state(), context=context, stream_mode=["messages", "values"])
    ]
    whole = setup.graph.invoke(setup.state(), context=context)
    assert sum(mode == "messages" for mode, _ in pieces) > 4
    assert comparable(pieces[-1][1]["messages"])[1:2] != [] and text(pieces[-1][1]) == text(whole)
    assert trajectory_of(pieces[-1][1]["messages"]) == trajectory_of(whole["messages"])
    assert replies_of(pieces[-1][1]["messages"]) == replies_of(whole["messages"])


async def test_all_ways_of_calling_give_the_same_and_batches_are_batched(setup):
    context = setup.context(UNSURE, sure=2.0, temperature=1.0, seed=7, budget=Budget(max_new_tokens=20))
    states = [setup.state(run=run) for run in range(6)]
    alone = [setup.graph.invoke(state, context=context) for state in states]
    assert len({text(state) for state in alone}) > 1, "runs differ"
    engine = context.model.engine
    before = engine.stats()["decode_steps"], engine.stats()["decoded_tokens"]
    together = await setup.graph.abatch(states, context=context)
    steps, tokens = (
        after - b
        for after, b in zip(
            (engine.stats()["decode_steps"], engine.stats()["decoded_tokens"]), before, strict=True
        )
    )
    assert tokens > 1.5 * steps, "decoded together"
    gathered = await asyncio.gather(*(setup.graph.ainvoke(state, context=context) for state in states))
    threaded = await asyncio.to_thread(setup.graph.batch, states, {"max_concurrency": 6}, context=context)
    for way in (together, gathered, threaded):
        for ours, single in zip(way, alone, strict=True):
            assert text(ours) == text(single) and ours["answer"] == single["answer"]
            a, b = trajectory_of(ours["messages"]), trajectory_of(single["messages"])
            assert a.ids == b.ids and np.allclose(a.logprobs, b.logprobs, atol=1e-4)


def test_the_graph_itself_costs_little(setup):
    context = setup.context(ASK_FOREVER, budget=Budget(max_relistens=12))
    setup.graph.invoke(setup.state(), context=context)
    began = time.thread_time()  # the engine works in another thread
    state = setup.graph.invoke(setup.state(), context=context)
    steps = 2 * len(replies_of(state["messages"])) + 3
    assert (time.thread_time() - began) / steps < 0.01, "seconds per step: a fifth of that on an idle machine"


# --- in a larger graph ------------------------------------------------------------------------------------------


def test_it_is_a_node_of_a_larger_graph_with_the_same_context(setup):
    parent = StateGraph(ListeningState, context_schema=ListeningContext)
    parent.add_node("ear", build_listening_graph())
    parent.add_node("mouth", lambda state: {"messages": [AIMessage(f"It is {state['answer']}.")]})
    parent.add_edge(START, "ear")
    parent.add_edge("ear", "mouth")
    parent.add_edge("mouth", END)
    given = {**setup.state(), "messages": [HumanMessage("Hello"), AIMessage("Hi, play me something.")]}
    graph = parent.compile()
    state = graph.invoke(given, context=setup.context(ASK_ONCE))
    assert state["messages"][-1].content == "It is a dog." and state["messages"][0].content == "Hello"
    ours = [m for m in state["messages"] if "echo" in m.response_metadata]
    assert not trajectory_of(ours).rerendered, "what was said before is not part of the run"
    events = list(graph.stream(given, context=setup.context(ASK_ONCE), stream_mode="custom", subgraphs=True))
    assert any(event["type"] == "relisten" for _, event in events)


def test_it_can_be_called_from_a_node_with_another_state(setup):
    def listen(state: MessagesState) -> Any:
        done = setup.graph.invoke(setup.state(state["messages"][-1].content), context=setup.context(ASK_ONCE))
        return {"messages": [AIMessage(done["answer"])]}

    parent = StateGraph(MessagesState)
    parent.add_node("listen", listen)
    parent.add_edge(START, "listen")
    state = parent.compile().invoke({"messages": [HumanMessage("What barks?")]})
    assert state["messages"][-1].content == "a dog"


# --- with another model in ChatLALM's place ---------------------------------------------------------------------


class FakeAudioModel(BaseChatModel):
    """Answers with prepared messages, and notes what it was shown."""

    answers: list[Any]
    seen: list[Any] = []
    bound: list[Any] = []

    @property
    def _llm_type(self) -> str:
        return "fake-audio"

    def bind_tools(self, tools, **kwargs):
        self.bound.append(tools)
        return self.bind(**kwargs)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        answer = self.answers[sum(isinstance(m, AIMessage) for m in messages)]
        return ChatResult(generations=[ChatGeneration(message=answer.model_copy(deep=True))])


def call(id="c1", name="relisten", **args):
    return {"name": name, "args": args, "id": id, "type": "tool_call"}


def run_fake(setup, *answers, use_async=False, **options):
    model = FakeAudioModel(answers=list(answers), seen=[], bound=[])
    context = ListeningContext(model=model, recordings=setup.store, **options)
    if use_async:
        return model, asyncio.run(setup.graph.ainvoke(setup.state(), context=context))
    return model, setup.graph.invoke(setup.state(), context=context)


def heard_seconds(message):
    found = []
    for block in message.content:
        if isinstance(block, dict) and block["type"] == "audio":
            assert set(block) >= {"base64", "mime_type"} and "extras" not in block
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(block["base64"])))
            found.append(len(samples) / rate)
    return found


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("stream_tokens", [False, True])
def test_any_chat_model_that_hears_and_calls_tools_will_do(setup, use_async, stream_tokens):
    model, state = run_fake(
        setup,
        AIMessage("Let me listen.", tool_calls=[call(start=2, end=4), call("c2", start=8, end=15)]),
        AIMessage(
            "<answer>A dog.</answer>",
            usage_metadata={"input_tokens": 9, "output_tokens": 5, "total_tokens": 14},
        ),
        use_async=use_async,
        stream_tokens=stream_tokens,
    )
    assert (state["answer"], state["choice_index"]) == ("a dog", 0)
    assert state["spent"] == {"relistens": 2, "seconds": 4.0, "tokens": 19 + 5}, (
        "estimated where the model does not say"
    )
    assert model.bound[0][0]["function"]["name"] == "relisten"
    first, second = model.seen
    assert heard_seconds(first[0]) == [10.0] and "<answer>" in first[0].text
    kinds = [type(message).__name__ for message in second]
    assert kinds == ["HumanMessage", "AIMessage", "ToolMessage", "ToolMessage", "HumanMessage"]
    assert [m.tool_call_id for m in second[2:4]] == ["c1", "c2"] and heard_seconds(second[4]) == [2.0, 2.0]
    assert "base64" not in json.dumps([m.model_dump(mode="json") for m in state["messages"]]), "kept nowhere"


def test_calls_of_other_models_are_checked_too(setup):
    bad = {"name": "relisten", "args": "{start", "id": "c3", "error": "not JSON", "type": "invalid_tool_call"}
    model, state = run_fake(
        setup,
        AIMessage(
            "", tool_calls=[call(start=30, end=33), call("c2", "search", q="dog")], invalid_tool_calls=[bad]
        ),
        AIMessage("", tool_calls=[call("c4", start=float("nan"), end=3)]),
        AIMessage("<answer>a cat</answer>"),
    )
    told = {m.tool_call_id: m.content for m in tools(state)}
    assert "outside" in told["c1"] and "no tool 'search'" in told["c2"] and "not JSON" in told["c3"]
    assert "finite" in told["c4"] and state["answer"] == "a cat" and state["spent"]["relistens"] == 4


def test_other_models_are_asked_for_their_answer_in_words(setup):
    model, state = run_fake(
        setup,
        AIMessage("", tool_calls=[call(start=2, end=4)]),
        AIMessage("", tool_calls=[call("c2", start=2, end=4)]),
        AIMessage("<answer>a cat</answer>"),
        budget=Budget(max_relistens=1),
    )
    assert state["budget_exhausted"] and state["answer"] == "a cat"
    *_, told, asked = model.seen[-1]
    assert isinstance(told, ToolMessage) and told.tool_call_id == "c2" and "<answer>" in asked.content


def test_other_models_are_unparsed_like_ours(setup):
    _, state = run_fake(setup, AIMessage("It is a dog."))
    assert state["status"] == "unparsed"
    cut = AIMessage("<answer>a dog", response_metadata={"finish_reason": "length"})
    _, state = run_fake(setup, cut, cut)
    assert state["status"] == "unparsed" and state["budget_exhausted"]
    _, state = run_fake(setup, AIMessage("<answer>a dog", response_metadata={"finish_reason": "stop"}))
    assert state["answer"] == "a dog"


def test_the_wrong_crop_is_not_betrayed_to_other_models(setup):
    model, _ = run_fake(
        setup,
        AIMessage("", tool_calls=[call(start=2, end=4)]),
        AIMessage("<answer>a cat</answer>"),
        control="wrong-crop",
    )
    assert model.seen[-1][-1].text == "The audio from 2 to 4 s:"


# --- bad input --------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_where_it_comes_in(setup):
    with pytest.raises(QuestionError):
        initial_state(" ", [setup.ref])
    with pytest.raises(RecordingError):
        initial_state("What?", [])
    context = setup.context(ASK_ONCE)
    for broken, error in (
        ({"question": ""}, QuestionError),
        ({"choices": ["a dog"]}, QuestionError),
        ({"recordings": []}, RecordingError),
        ({"recordings": [{"source": "x"}]}, RecordingError),
        ({"recordings": ["talk.wav"]}, RecordingError),
    ):
        with pytest.raises(error):
            setup.graph.invoke({**setup.state(), **broken}, context=context)
    with pytest.raises(TypeError, match="context=ListeningContext"):
        setup.graph.invoke(setup.state())


def test_state_is_plain(setup):
    state = setup.run(ASK_ONCE)
    json.dumps({key: value for key, value in state.items() if key != "messages"})
    assert state["settings"]["model"] == "tiny-qwen2.5-omni" and state["settings"]["seed"] == 0
    assert audio_block(setup.ref) == state["messages"][0].content[0]
