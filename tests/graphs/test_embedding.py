"""The listening graph inside graphs of other people: any state, any context, any saver; nothing heard twice."""

from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph, add_messages
from langgraph.types import Command, Send
from pydantic import BaseModel
from typing_extensions import TypedDict

from echo_agent import EchoAgent, ListeningContext, audio_block
from echo_agent.errors import QuestionError, RecordingError
from echo_agent.graphs import Budget, build_listening_graph
from echo_agent.graphs.calls import replies_of
from echo_agent.messages import trajectory_of
from tests.scripted import ASK_FOREVER, ASK_ONCE, UNSURE, scripted_family
from tests.tiny import sounds

CONFIG: Any = {"configurable": {"thread_id": "t"}}


class Theirs(BaseModel):
    """A context of somebody else's."""

    user: str = "anybody"


class Spoken(MessagesState):
    """Somebody's state, with a place for the answer."""

    answer: str | None


@pytest.fixture(scope="module")
def agent():
    with EchoAgent(scripted_family(ASK_ONCE)) as agent:
        yield agent


def asking(*refs, text="What barks?"):
    return HumanMessage([*(audio_block(ref) for ref in refs), {"type": "text", "text": text}])


def around(ear, state=MessagesState, context=None, **options):
    """Somebody's graph with an ear in it."""
    return StateGraph(state, context).add_node("ear", ear).add_edge(START, "ear").compile(**options)


def asked(state):
    return [message for message in state["messages"] if "echo_question" in message.additional_kwargs]


# --- a context that is bound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("context", [None, Theirs(user="me")], ids=["none", "theirs"])
async def test_a_graph_with_its_model_bound_is_a_node_of_any_graph(agent, use_async, context):
    ref = agent.ref((sounds(10.0), 16000))
    graph = around(agent.graph(), Spoken, type(context) if context else None)
    given: Any = {"messages": [asking(ref)]}
    run: Any = graph.ainvoke(given, context=context) if use_async else graph.invoke(given, context=context)
    done = await run if use_async else run
    assert done["answer"] == "a dog" and set(done) == {"messages", "answer"}
    assert trajectory_of(done["messages"]).audio == (ref, ref.span(2.0, 4.0))
    assert "</think><answer>a dog</answer>" in around(agent.graph()).invoke(given)["messages"][-1].text


def test_a_context_that_is_given_comes_before_the_one_that_is_bound(setup):
    ear = build_listening_graph(setup.context(ASK_ONCE))
    assert ear.invoke(setup.state())["answer"] == "a dog"
    given = setup.context(ASK_FOREVER, budget=Budget(max_relistens=2))
    assert ear.invoke(setup.state(), context=given)["spent"]["relistens"] == 2
    parent = around(ear, Spoken, ListeningContext)
    done = parent.invoke({"messages": [asking(setup.ref)]}, context=given)
    assert len(replies_of(done["messages"])) == 3, "two that are heard, and the one that is too many"


def test_without_any_context_it_says_what_it_needs(setup):
    with pytest.raises(TypeError, match="in the call or in build_listening_graph"):
        around(build_listening_graph()).invoke({"messages": [asking(setup.ref)]})


def test_its_schemas_are_known_to_whatever_shows_them(agent):
    graph = agent.graph()
    assert graph.get_context_jsonschema() is None
    assert set(graph.get_input_jsonschema()["properties"]) >= {"messages", "question", "recordings"}
    assert {"answer", "spent"} <= set(graph.get_output_jsonschema()["properties"])


def test_options_of_a_graph_are_those_of_a_question(agent):
    ref = agent.ref((sounds(10.0), 16000))
    done = agent.graph(relisten=False).invoke({"messages": [asking(ref)]})
    assert done["settings"]["control"] == "off" and done["spent"]["relistens"] == 0
    for wrong in ({"max_relisten": 3}, {"thread": "t"}, {"run": 1}):
        with pytest.raises(QuestionError, match=next(iter(wrong))):
            agent.graph(**wrong)


def test_it_asks_as_the_agent_does():
    with EchoAgent.from_pretrained("echo-nano", device="cpu") as nano:
        ref = nano.ref((sounds(6.0), 16000))
        done = nano.graph(max_relistens=0).invoke({"messages": [asking(ref, text="Is a bell heard?")]})
        assert done["answer"] in ("yes", "no")
        assert done["answer"] == nano.ask((sounds(6.0), 16000), "Is a bell heard?", max_relistens=0).answer


# --- conversations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointer", [None, True, False])
def test_a_newer_message_is_the_next_question_about_what_was_heard_before(agent, checkpointer):
    graph = around(agent.graph(checkpointer), Spoken, checkpointer=InMemorySaver())
    one, other = agent.ref((sounds(10.0), 16000)), agent.ref((sounds(8.0, seed=1), 16000))
    heard = []
    for message in (asking(one), HumanMessage("And what else?"), asking(other), HumanMessage("And here?")):
        done = graph.invoke({"messages": [message]}, CONFIG)
        heard.append(asked(done)[-1].content[0]["extras"]["echo"]["sha256"])
        assert done["answer"] == "a dog" and message.text in asked(done)[-1].text
    assert heard == [one.sha256, one.sha256, other.sha256, other.sha256]


def test_what_was_heard_is_not_encoded_again(agent):
    graph = around(agent.graph(), checkpointer=InMemorySaver())
    ref = agent.ref((sounds(9.0, seed=3), 16000))
    graph.invoke({"messages": [asking(ref)]}, CONFIG)
    before = agent.engine.stats()
    done = graph.invoke({"messages": [HumanMessage("What barks? And who?")]}, CONFIG)
    after = agent.engine.stats()
    assert len(asked(done)) == 2 and after["encoded_crops"] == before["encoded_crops"]


def test_two_recordings_can_be_asked_about_together(agent):
    refs = [agent.ref((sounds(10.0), 16000)), agent.ref((sounds(8.0, seed=1), 16000))]
    done = around(agent.graph(), Spoken).invoke({"messages": [asking(*refs, text="Which barks?")]})
    assert trajectory_of(done["messages"]).audio[:2] == tuple(refs)


def test_a_message_without_a_recording_is_an_error_that_says_how(agent):
    with pytest.raises(RecordingError, match="audio_block"):
        around(agent.graph()).invoke({"messages": [HumanMessage("What barks?")]})


# --- what is saved where ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checkpointer", "steps"), [(None, True), (True, True), (False, False)], ids=["inherit", "own", "none"]
)
def test_a_checkpointer_is_inherited_or_left_out(agent, checkpointer, steps):
    saver = InMemorySaver()
    graph = around(agent.graph(checkpointer), checkpointer=saver)
    graph.invoke({"messages": [asking(agent.ref((sounds(10.0), 16000)))]}, CONFIG)
    spaces = {saved.config["configurable"]["checkpoint_ns"] for saved in saver.list(None)}
    assert any(space.startswith("ear") for space in spaces) == steps and "" in spaces


# --- streams ----------------------------------------------------------------------------------------------------


def test_what_happens_inside_is_seen_outside(agent):
    graph = around(agent.graph())
    given: Any = {"messages": [asking(agent.ref((sounds(10.0), 16000)))]}
    events = [event for _, event in graph.stream(given, stream_mode="custom", subgraphs=True)]
    assert [event["type"] for event in events if event["type"] != "token"] == ["relisten", "answer"]
    assert "a dog barks" in "".join(event["text"] for event in events if event["type"] == "token")
    modes = list(graph.stream(given, stream_mode=["updates", "messages", "custom"], subgraphs=True))
    inside = [(mode, part) for space, mode, part in modes if space and space[0].startswith("ear")]
    steps = [step for mode, part in inside if mode == "updates" for step in part]
    assert steps == ["listen", "reason", "relisten", "reason", "answer"]
    assert sum(mode == "messages" for mode, _ in inside) > 4


# --- side by side -----------------------------------------------------------------------------------------------


class Folder(TypedDict):
    """A map over recordings."""

    paths: list[str]
    messages: Annotated[list[Any], add_messages]
    answers: Annotated[list[str], lambda old, new: old + new]


async def test_recordings_are_mapped_over_in_one_batch(agent):
    refs = [agent.ref((sounds(6.0 + i, seed=i), 16000)) for i in range(4)]
    ear = agent.graph()

    async def listen(state: Any) -> dict[str, list[str]]:
        return {"answers": [(await ear.ainvoke({"messages": [asking(state["ref"])]}))["answer"]]}

    graph: Any = StateGraph(Folder).add_node("listen", listen)
    graph.add_conditional_edges(START, lambda _: [Send("listen", {"ref": ref}) for ref in refs], ["listen"])
    before = agent.engine.stats()
    done = await graph.compile().ainvoke({"paths": [], "messages": [], "answers": []})
    after = agent.engine.stats()
    assert done["answers"] == ["a dog"] * 4
    steps, tokens = (after[key] - before[key] for key in ("decode_steps", "decoded_tokens"))
    assert tokens > 1.5 * steps, "decoded together"


# --- a person, and time travel ----------------------------------------------------------------------------------


def test_a_person_decides_in_the_shapes_of_langchains_middleware(agent):
    from langchain.agents.middleware.human_in_the_loop import HITLRequest

    graph = around(agent.graph(interrupt_before_tool=True), Spoken, checkpointer=InMemorySaver())
    given: Any = {"messages": [asking(agent.ref((sounds(10.0), 16000)))]}
    (waiting,) = graph.invoke(given, CONFIG)["__interrupt__"]
    assert set(waiting.value) == set(HITLRequest.__annotations__)
    (action,), (config,) = waiting.value["action_requests"], waiting.value["review_configs"]
    assert action["name"] == config["action_name"] == "relisten"
    assert action["args"] == {"start": 2.0, "end": 4.0} and "2.0" in action["description"]
    edited = {"name": "relisten", "args": {"start": 5.0, "end": 7.0}}
    resume = {"decisions": [{"type": "edit", "edited_action": edited}]}
    done = graph.invoke(Command(resume=resume), CONFIG)
    (reply,) = replies_of(done["messages"])
    assert (reply.ref.start, reply.ref.end) == (5.0, 7.0) and done["answer"] == "a dog"


def test_a_run_inside_another_graph_is_branched_from_its_steps():
    with EchoAgent(scripted_family(UNSURE, sure=2.0)) as unsure:
        ear = unsure.graph(temperature=1.0, seed=11, max_new_tokens=24)
        graph = around(ear, Spoken, checkpointer=InMemorySaver())
        given: Any = {"messages": [asking(unsure.ref((sounds(10.0), 16000)))]}
        whole = graph.invoke(given, CONFIG)
        steps = [step for step in graph.get_state_history(CONFIG) if step.next == ("ear",)]
        again = graph.invoke(None, steps[0].config)
        ids = [trajectory_of([m for m in s["messages"] if m.type == "ai"]).ids for s in (whole, again)]
        assert ids[0] == ids[1] and isinstance(again["messages"][-1], AIMessage)
        inside = f"ear:{steps[0].tasks[0].id}"
        below: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": inside}}
        assert {step.next for step in graph.get_state_history(below)} >= {("reason",), ("answer",)}
