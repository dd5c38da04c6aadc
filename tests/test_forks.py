"""A process that was forked after a model was loaded is answered or refused at once, whatever was held then."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from echo_agent.forks import FORKED

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.slow,
]

CODE = textwrap.dedent(
    """
    import asyncio, contextlib, multiprocessing, os, signal, sys, threading

    import torch
    from torch.utils.data import DataLoader

    from echo_agent import EchoAgent, EchoAgentError, ListeningContext, Recording, build_listening_graph, forks
    from echo_agent.finetune.config import RolloutConfig
    from echo_agent.finetune.rollouts import Rollouts
    from echo_agent.graphs import initial_state
    from echo_agent.tools import make_relisten
    from tests.scripted import ASK_ONCE, scripted_family
    from tests.tiny import sounds

    torch.ones(1000, 1000) @ torch.ones(1000, 1000)  # OpenMP has workers for this thread, too
    agent = EchoAgent(scripted_family(ASK_ONCE))
    model, engine, store = agent.model, agent.engine, agent.recordings
    audio, question = (sounds(5.0), 16000), "What barks?"
    assert agent.ask(audio, question).answer == "a dog"

    ref = store.add(Recording.from_array(*audio))
    graph, state = build_listening_graph(), initial_state(question, [ref])
    context = ListeningContext(model=model, recordings=store)
    messages = graph.invoke(state, context=context)["messages"][:1]
    rollouts = Rollouts(model, store, RolloutConfig())
    begun = model.stream(messages)
    next(begun)


    @contextlib.contextmanager
    def held():
        '''Another thread is in the middle of everything.'''
        taken, done = threading.Event(), threading.Event()

        def hold():
            with contextlib.ExitStack() as stack:
                for lock in [*forks._locks, agent._lock, engine._scheduler.inbox._signal]:
                    stack.enter_context(lock)
                taken.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        taken.wait()
        try:
            yield
        finally:
            done.set()
            thread.join()


    def forked(ask, leave=os._exit):
        '''What a child says; "ended with -14" if it hangs.'''
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(60)
            try:
                said = str(ask())
            except EchoAgentError as error:
                said = str(error)
            os.write(writing, said.encode())
            leave(7)
        os.close(writing)
        with open(reading) as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return said if code == 7 else f"ended with {code}"


    async def streamed(stream):
        return [piece async for piece in stream]


    refused = {
        "ask": lambda: agent.ask(audio, question),
        "aask": lambda: asyncio.run(agent.aask(audio, question)),
        "batch": lambda: agent.batch([{"audio": audio, "question": question}]),
        "generate": lambda: engine.generate([1]),
        "agenerate": lambda: asyncio.run(engine.agenerate([1])),
        "submit": lambda: engine.submit([1]),
        "features": lambda: engine.features([ref]),
        "weights_changed": engine.weights_changed,
        "graph.invoke": lambda: graph.invoke(state, context=context),
        "graph.ainvoke": lambda: asyncio.run(graph.ainvoke(state, context=context)),
        "graph.stream": lambda: list(graph.stream(state, context=context)),
        "graph.astream": lambda: asyncio.run(streamed(graph.astream(state, context=context))),
        "model.invoke": lambda: model.invoke(messages),
        "model.ainvoke": lambda: asyncio.run(model.ainvoke(messages)),
        "model.batch": lambda: model.batch([messages]),
        "model.stream": lambda: list(model.stream(messages)),
        "model.astream": lambda: asyncio.run(streamed(model.astream(messages))),
        "model.context": lambda: model.context(messages),
        "model.head": lambda: model.head([ref], question),
        "rollouts.run": lambda: rollouts.run([], 0),
        "rollouts.weights_changed": rollouts.weights_changed,
    }
    answered = {
        "a stream that had begun": begun.close,
        "agent.close": agent.close,
        "rollouts.close": rollouts.close,
        "stats": lambda: engine.stats()["waiting_runs"],
        "fingerprint": lambda: agent.fingerprint.count("@"),
        "model.get_num_tokens": lambda: model.get_num_tokens_from_messages(messages) > 0,
        "store.crop": lambda: len(store.crop(ref)),
        "relisten": lambda: make_relisten([ref], store=store).invoke({"start": 1, "end": 2}),
    }


    def own():
        with EchoAgent(scripted_family(ASK_ONCE)) as other:
            return other.ask(audio, question).answer


    def ask(index=0):
        return agent.ask(audio, question).answer


    class Asks(torch.utils.data.Dataset):
        __len__ = lambda self: 2
        __getitem__ = lambda self, index: ask(index)


    def loaded():
        return list(DataLoader(Asks(), num_workers=1, multiprocessing_context="fork", timeout=60))


    def pooled():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply_async(ask).get(60)


    with held():
        print("own", "exit", forked(lambda: None, leave=sys.exit), sep="|", flush=True)
        for kind, ways in {"refused": refused, "answered": answered}.items():
            for name, way in ways.items():
                print(kind, name, forked(way), sep="|", flush=True)
        for name, work in {"DataLoader": loaded, "Pool": pooled}.items():
            try:
                print("workers", name, work(), sep="|")
            except EchoAgentError as error:
                print("workers", name, " ".join(str(error).split()), sep="|", flush=True)
        print("own", "model", forked(own), sep="|", flush=True)
    list(begun)
    print("own", "parent", agent.ask(audio, question).answer, sep="|")
    rollouts.close()
    """
)
"""A parent that has loaded a model, children that ask it in every public way, and what they say."""

Said = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def said() -> Said:
    """What each child says, by kind and way."""
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    found: Said = {}
    for line in done.stdout.splitlines():
        kind, way, outcome = line.split("|")
        found.setdefault(kind, {})[way] = outcome
    return found


def test_whatever_needs_the_engine_is_refused(said: Said) -> None:
    assert len(said["refused"]) == 21
    assert {way: outcome for way, outcome in said["refused"].items() if outcome != FORKED} == {}


def test_the_rest_is_answered(said: Said) -> None:
    assert said["answered"] == {
        "a stream that had begun": "None",
        "agent.close": "None",
        "rollouts.close": "None",
        "stats": "0",
        "fingerprint": "1",
        "model.get_num_tokens": "True",
        "store.crop": "80000",
        "relisten": "Heard 1 to 2 s.",
    }


def test_parents_of_workers_hear_why(said: Said) -> None:
    assert len(said["workers"]) == 2
    assert all(FORKED in outcome for outcome in said["workers"].values()), said["workers"]


def test_a_child_can_load_a_model_of_its_own_and_leaves_its_parents_alone(said: Said) -> None:
    assert said["own"] == {"exit": "None", "model": "a dog", "parent": "a dog"}
