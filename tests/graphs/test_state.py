"""Schemas: what goes in, what comes out, several runs side by side, and checkpoints of older releases."""

from typing import Annotated, Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.types import Send
from typing_extensions import TypedDict

from echo_agent.graphs import ListeningContext, ListeningOutput, build_listening_graph
from tests.scripted import ASK_ONCE


def test_the_schemas_say_what_goes_in_and_what_comes_out(setup):
    given = setup.graph.get_input_jsonschema()
    assert set(given["properties"]) == {"messages", "question", "choices", "recordings", "run"}
    out = setup.graph.get_output_jsonschema()
    assert set(out["properties"]) == set(ListeningOutput.__annotations__)
    done = setup.run(ASK_ONCE)
    assert set(done) == set(out["properties"]) and not set(done) & {
        "question",
        "recordings",
        "choices",
        "run",
    }
    assert set(setup.state()) <= set(given["properties"])


def test_runs_side_by_side_do_not_write_to_the_same_keys(setup):
    class Many(TypedDict):
        question: str
        recordings: list[dict[str, Any]]
        questions: list[str]
        messages: Annotated[list[Any], add_messages]

    def fan(state: Many) -> list[Send]:
        return [Send("ear", setup.state(question)) for question in state["questions"]]

    parent = StateGraph(Many, ListeningContext)
    parent.add_node("ear", build_listening_graph())
    parent.add_conditional_edges(START, fan, ["ear"])
    parent.add_edge("ear", END)
    given = {
        "question": "Which?",
        "recordings": [],
        "questions": ["What barks?", "Who meows?"],
        "messages": [],
    }
    done = parent.compile().invoke(given, context=setup.context(ASK_ONCE))
    assert done["question"] == "Which?" and len(done["messages"]) == 2 * 4


def test_a_checkpoint_keeps_all_of_it(setup):
    graph = build_listening_graph(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    graph.invoke(setup.state("What barks?", run=3), config, context=setup.context(ASK_ONCE))
    values = graph.get_state(config).values
    assert (values["question"], values["run"], values["answer"]) == ("What barks?", 3, "a dog")
    assert values["recordings"] == setup.state()["recordings"] and values["settings"]
