"""Checkpoints: what they hold, and that a run that was killed, resumed or branched is the run it would have been."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from echo_agent.engine import TorchEngine
from echo_agent.graphs import Budget, ListeningContext, ListeningState, build_listening_graph
from echo_agent.graphs.calls import replies_of
from echo_agent.messages import trajectory_of, transcript
from tests.graphs.conftest import comparable
from tests.scripted import ASK_FOREVER, ASK_ONCE, UNSURE

CONFIG = {"configurable": {"thread_id": "t"}}
GREEDY = {"script": ASK_FOREVER, "budget": Budget(max_relistens=3)}
SAMPLED = {"script": UNSURE, "sure": 2.0, "temperature": 1.0, "seed": 11, "budget": Budget(max_new_tokens=24)}
"""With the run number below, three calls and an answer."""


def context_of(setup, policy):
    return setup.context(**policy)


def equal_runs(a, b):
    """Messages and trajectories are equal, log-probabilities to 1e-4; what was cached and how long it took is not."""
    ours, theirs = trajectory_of(a["messages"]), trajectory_of(b["messages"])
    assert ours.ids == theirs.ids and ours.audio == theirs.audio and ours.mask == theirs.mask
    assert np.allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
    for key in ("answer", "status", "choice_index", "spent", "budget_exhausted", "settings"):
        assert a[key] == b[key], key
    for one, other in zip(comparable(a["messages"]), comparable(b["messages"]), strict=True):
        for message in (one, other):
            message["response_metadata"].pop("echo", None)  # compared above, with its log-probabilities
        assert one == other


class Stopped(Exception):
    """The process was killed here."""


def stop_at(engine, call):
    """Let an engine fail at its n-th call."""
    calls, generate, agenerate = [0], engine.generate, engine.agenerate

    def check():
        calls[0] += 1
        if calls[0] == call:
            raise Stopped

    def failing(*args, **kwargs):
        check()
        return generate(*args, **kwargs)

    async def afailing(*args, **kwargs):
        check()
        return await agenerate(*args, **kwargs)

    engine.generate, engine.agenerate = failing, afailing


# --- what a checkpoint holds ------------------------------------------------------------------------------------


def test_checkpoints_hold_no_audio_and_no_tensor(setup, tmp_path):
    path = tmp_path / "t.sqlite"
    with SqliteSaver.from_conn_string(str(path)) as saver:
        graph = build_listening_graph(checkpointer=saver)
        graph.invoke(setup.state(), CONFIG, context=setup.context(**GREEDY))
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("select type, checkpoint from checkpoints").fetchall()
        rows += database.execute("select type, value from writes").fetchall()
    assert len(rows) > 10
    samples = setup.store.crop(setup.ref, 16000)
    strict = JsonPlusSerializer(allowed_msgpack_modules=None)
    allowed = (str, int, float, bool, bytes, type(None))

    def check(value):
        if isinstance(value, dict):
            for key, item in value.items():
                check(key), check(item)
        elif isinstance(value, (list, tuple)):
            assert len(value) < 2000
            for item in value:
                check(item)
        elif isinstance(value, (AIMessage, HumanMessage, ToolMessage)):
            check(value.model_dump())
            json.dumps(value.model_dump())
        else:
            assert isinstance(value, allowed), type(value)
            assert not isinstance(value, bytes) or len(value) < 100

    for kind, data in rows:
        assert kind in ("msgpack", "null", "empty") and len(data) < 100_000
        assert samples[1000:1100].tobytes() not in data
        check(strict.loads_typed((kind, data)))


# --- stopped and resumed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(setup, tmp_path, policy, at):
    whole = setup.graph.invoke(setup.state(run=3), context=setup.context(**policy))
    assert len(replies_of(whole["messages"])) >= 2, "a run with some steps"
    options = {key: value for key, value in policy.items() if key != "script"}
    first = ListeningContext(
        **{**setup.context(**policy).__dict__, "model": setup.context(policy["script"], **options).model}
    )
    engine = TorchEngine(first.model.family, setup.store)
    stop_at(engine, at)
    first.model = type(first.model)(engine)
    path = str(tmp_path / "t.sqlite")
    with SqliteSaver.from_conn_string(path) as saver, pytest.raises(Stopped):
        build_listening_graph(checkpointer=saver).invoke(
            setup.state(run=3), CONFIG, context=first, durability="sync"
        )
    engine.close()
    with SqliteSaver.from_conn_string(path) as saver:
        graph = build_listening_graph(checkpointer=saver)
        assert graph.get_state(CONFIG).next == ("reason",)
        resumed = graph.invoke(None, CONFIG, context=setup.context(**policy))
    equal_runs(resumed, whole)


@pytest.mark.parametrize("policy", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
async def test_the_async_saver_does_the_same(setup, tmp_path, policy):
    whole = await setup.graph.ainvoke(setup.state(run=3), context=setup.context(**policy))
    context = setup.context(**policy)
    engine = TorchEngine(context.model.family, setup.store)
    stop_at(engine, 2)
    context.model = type(context.model)(engine)
    path = str(tmp_path / "t.sqlite")
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        graph = build_listening_graph(checkpointer=saver)
        with pytest.raises(Stopped):
            await graph.ainvoke(setup.state(run=3), CONFIG, context=context, durability="sync")
    engine.close()
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        graph = build_listening_graph(checkpointer=saver)
        resumed = await graph.ainvoke(None, CONFIG, context=setup.context(**policy))
    equal_runs(resumed, whole)


KILLED = textwrap.dedent(
    """
    import os, signal, sys, threading
    import soundfile
    from langgraph.checkpoint.sqlite import SqliteSaver
    from echo_agent.chat import ChatLALM
    from echo_agent.engine import TorchEngine
    from echo_agent.engine.request import Request
    from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state
    from echo_agent.audio.recording import Recording
    from echo_agent.stores import RecordingStore
    from tests.scripted import UNSURE, scripted_family

    accept = Request.accept

    heard = threading.Event()

    def until_heard(request, token):
        if len(request.audio) > 1:  # it has listened again, and is in the middle of a step
            heard.wait()
            os.kill(os.getpid(), signal.SIGKILL)
        return accept(request, token)

    Request.accept = until_heard
    database, wav = sys.argv[1:]
    store = RecordingStore()
    ref = store.add(Recording.open(wav))
    model = ChatLALM(TorchEngine(scripted_family(UNSURE, sure=2.0), store))
    context = ListeningContext(
        model=model, recordings=store, temperature=1.0, seed=11, budget=Budget(max_new_tokens=24), stream_tokens=True
    )
    with SqliteSaver.from_conn_string(database) as saver:
        graph = build_listening_graph(checkpointer=saver)
        config = {"configurable": {"thread_id": "t"}}
        state = initial_state("What barks?", [ref], ["a dog", "a cat"], run=3)
        for event in graph.stream(state, config, context=context, stream_mode="custom", durability="sync"):
            if event["type"] == "relisten":
                heard.set()
    """
)


@pytest.mark.slow
def test_a_killed_process_is_resumed_by_another(setup, tmp_path):
    import soundfile

    wav, database = tmp_path / "a.wav", str(tmp_path / "t.sqlite")
    soundfile.write(wav, setup.store.crop(setup.ref, 16000), 16000, subtype="FLOAT")
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, database, str(wav)], env=env, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    context = setup.context(**SAMPLED)
    with SqliteSaver.from_conn_string(database) as saver:
        graph = build_listening_graph(checkpointer=saver)
        state = graph.get_state(CONFIG)
        assert state.next == ("reason",) and len(replies_of(state.values["messages"])) == 1
        resumed = graph.invoke(None, CONFIG, context=context)
        begun = {**setup.state(run=3), "recordings": state.values["recordings"]}
    equal_runs(resumed, setup.graph.invoke(begun, context=context))


# --- branches ---------------------------------------------------------------------------------------------------


def test_a_run_can_be_replayed_and_branched_from_every_step(setup):
    graph = build_listening_graph(checkpointer=InMemorySaver())
    context = setup.context(**SAMPLED)
    whole = graph.invoke(setup.state(run=3), CONFIG, context=context)
    steps = [step for step in graph.get_state_history(CONFIG) if step.next]
    assert len(steps) >= 6
    for step in steps:
        equal_runs(graph.invoke(None, step.config, context=context), whole)
    before = next(
        step for step in reversed(steps) if step.next == ("reason",) and len(step.values["messages"]) > 2
    )
    prefix = trajectory_of(before.values["messages"])
    others = set()
    for run in range(8):
        fork = graph.update_state(before.config, {"run": run})
        branch = graph.invoke(None, fork, context=context)
        ids = trajectory_of(branch["messages"]).ids
        assert ids[: len(prefix.ids)] == prefix.ids and graph.get_state(CONFIG).values["run"] == run
        assert not trajectory_of(branch["messages"]).rerendered
        others.add(ids)
    assert len(others) > 1


# --- a person before the tool -----------------------------------------------------------------------------------


@pytest.fixture
def asking(setup):
    graph = build_listening_graph(checkpointer=InMemorySaver(), interrupt_before_tool=True)
    stopped = graph.invoke(setup.state(), CONFIG, context=setup.context(ASK_ONCE))
    (waiting,) = stopped["__interrupt__"]
    (action,) = waiting.value["action_requests"]
    assert action["name"] == "relisten" and action["args"] == {"start": 2.0, "end": 4.0}
    assert graph.get_state(CONFIG).next == ("relisten",) and stopped["spent"]["relistens"] == 0
    return lambda decision: graph.invoke(Command(resume=decision), CONFIG, context=setup.context(ASK_ONCE))


def deciding(kind, **more):
    return {"decisions": [{"type": kind, **more}]}


def changing(name="relisten", **args):
    return deciding("edit", edited_action={"name": name, "args": args})


@pytest.mark.parametrize("decision", [True, deciding("approve")], ids=["short", "whole"])
def test_a_person_can_allow_a_call(setup, asking, decision):
    equal_runs(asking(decision), setup.run(ASK_ONCE))


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (deciding("reject"), "it was not allowed"),
        (deciding("reject", message="not <there>"), "it was not allowed: not there"),
        (False, "it was not allowed"),
        ("yes", "it was not allowed"),
        ({"decisions": []}, "it was not allowed"),
        (deciding("respond", message="silence"), "it was not allowed"),
        (deciding("edit", edited_action={"name": "relisten"}), "it was not allowed"),
        (changing("search", start=1.0, end=2.0), "it was not allowed"),
        (changing(start=1.0), "not heard: end is missing"),
    ],
)
def test_a_person_can_forbid_a_call_and_what_is_no_decision_does(setup, asking, decision, words):
    state = asking(decision)
    (reply,) = replies_of(state["messages"])
    assert reply.outcome == "refused" and words in reply.observation and reply.ref is None


def test_a_person_can_change_a_call(setup, asking):
    state = asking(changing(start=5.0, end=7.0))
    (reply,) = replies_of(state["messages"])
    assert (reply.ref.start, reply.ref.end) == (
        5.0,
        7.0,
    ) and reply.observation == "heard 5-7: changed by a person"
    assert trajectory_of(state["messages"]).audio[-1] == reply.ref and state["answer"] == "a dog"


async def test_interrupts_work_in_async_runs_and_in_larger_graphs(setup, tmp_path):
    parent = StateGraph(ListeningState, context_schema=ListeningContext)
    parent.add_node("ear", build_listening_graph(interrupt_before_tool=True))
    parent.add_edge(START, "ear")
    parent.add_edge("ear", END)
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "t.sqlite")) as saver:
        graph = parent.compile(checkpointer=saver)
        context = setup.context(ASK_FOREVER, budget=Budget(max_relistens=2))
        state = await graph.ainvoke(setup.state(), CONFIG, context=context)
        asked = 0
        while "__interrupt__" in state:
            asked += 1
            state = await graph.ainvoke(Command(resume=deciding("approve")), CONFIG, context=context)
    assert asked == 2, "what is beyond the budget is not asked for"
    assert transcript(state["messages"]) == transcript(
        setup.run(ASK_FOREVER, budget=Budget(max_relistens=2))["messages"]
    )
