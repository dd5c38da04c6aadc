"""Which question is answered in a thread: the one that is given, or what a person said since the last one."""

import base64

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from echo_agent.audio.recording import Recording, wav_bytes
from echo_agent.errors import ContextError, QuestionError, RecordingError
from echo_agent.graphs import ListeningContext, ListeningInput, ListeningState, build_listening_graph
from echo_agent.messages import QUESTION_KEY, audio_block
from tests.graphs.conftest import CHOICES
from tests.scripted import ASK_ONCE
from tests.tiny import sounds

CONFIG = {"configurable": {"thread_id": "t"}}


@pytest.fixture
def thread(setup):
    """A thread in which the first question was answered; called with what comes in next, it gives the questions."""
    graph = build_listening_graph(checkpointer=InMemorySaver())
    context = setup.context(ASK_ONCE)
    graph.invoke(setup.state("What barks?"), CONFIG, context=context)

    def say(given):
        done = graph.invoke(given, CONFIG, context=context)
        assert done["status"] and isinstance(done["messages"][-1], AIMessage)
        values = graph.get_state(CONFIG).values
        last = asked(done["messages"])[-1]
        assert (values["question"], values["choices"]) == (last["question"], last["choices"])
        return last, values

    return say


def asked(messages):
    return [
        message.additional_kwargs[QUESTION_KEY]
        for message in messages
        if QUESTION_KEY in message.additional_kwargs
    ]


SAID = "And how many cats?"


@pytest.mark.parametrize(
    "message",
    [HumanMessage(SAID), ("user", SAID), {"role": "user", "content": SAID}],
    ids=["message", "pair", "dict"],
)
def test_a_newer_message_of_a_user_is_the_next_question(setup, thread, message):
    last, values = thread({"messages": [message]})
    assert last == {"question": "And how many cats?", "choices": None}
    assert values["recordings"] == [setup.ref.model_dump(mode="json")]
    last, _ = thread({"messages": [HumanMessage("And mice?")]})
    assert last["question"] == "And mice?"


def test_a_follow_up_may_bring_choices_of_its_own(thread):
    last, _ = thread({"messages": [HumanMessage("And how many?")], "choices": ["one", "two"]})
    assert last == {"question": "And how many?", "choices": ["one", "two"]}
    last, _ = thread({"messages": [HumanMessage("And why?")]})
    assert last == {"question": "And why?", "choices": None}


def test_a_question_that_is_given_is_asked_whatever_was_said_before(setup, thread):
    given = setup.state("Who meows?") | {"messages": [HumanMessage("Listen once more, please.")]}
    assert thread(given)[0] == {"question": "Who meows?", "choices": CHOICES}
    assert thread(setup.state("What barks?"))[0]["question"] == "What barks?", "asked once more"
    again = setup.state("Who meows?") | {"messages": [HumanMessage("Who meows?")]}
    assert thread(again)[0] == {"question": "Who meows?", "choices": CHOICES}, "said and given"


def test_a_follow_up_may_bring_a_recording(setup, thread):
    other = setup.store.add(Recording.from_array(sounds(3.0, seed=5), 16000))
    _, values = thread(
        {"messages": [HumanMessage([audio_block(other), {"type": "text", "text": "And here?"}])]}
    )
    assert values["recordings"] == [other.model_dump(mode="json")]
    data = base64.b64encode(wav_bytes(sounds(2.0, seed=6), 16000)).decode()
    block = {"type": "audio", "base64": data, "mime_type": "audio/wav"}
    last, values = thread({"messages": [HumanMessage([block, {"type": "text", "text": "And here?"}])]})
    assert values["recordings"][0]["duration"] == 2.0 and last["question"] == "And here?"


def test_what_cannot_be_asked_is_an_error(setup, thread):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(ContextError, match="image_url"):
        thread({"messages": [HumanMessage([picture, "What is this?"])]})
    with pytest.raises(QuestionError, match="empty"):
        thread({"messages": [HumanMessage([audio_block(setup.ref)])]})


def test_a_message_alone_is_a_question_where_none_was_given(setup):
    given = {"messages": [HumanMessage("What barks?")], "recordings": setup.state()["recordings"]}
    done = setup.graph.invoke(given | {"choices": CHOICES}, context=setup.context(ASK_ONCE))
    assert done["answer"] == "a dog" and asked(done["messages"]) == [
        {"question": "What barks?", "choices": CHOICES}
    ]
    with pytest.raises(RecordingError):
        setup.graph.invoke({"messages": [HumanMessage("What barks?")]}, context=setup.context(ASK_ONCE))
    with pytest.raises(QuestionError, match="nothing to ask"):
        setup.graph.invoke({"recordings": given["recordings"]}, context=setup.context(ASK_ONCE))


async def test_a_larger_graph_with_a_thread_goes_on_with_what_is_said(setup):
    parent = StateGraph(ListeningState, ListeningContext, input_schema=ListeningInput)
    parent.add_node("ear", build_listening_graph())
    parent.add_node("mouth", lambda state: {"messages": [AIMessage(f"It is {state['answer']}.")]})
    parent.add_edge(START, "ear").add_edge("ear", "mouth")
    graph, context = parent.compile(checkpointer=InMemorySaver()), setup.context(ASK_ONCE)
    await graph.ainvoke(setup.state("What barks?"), CONFIG, context=context)
    for question in ("And how many?", "And where?", "And how many?"):
        done = await graph.ainvoke({"messages": [HumanMessage(question)]}, CONFIG, context=context)
        assert asked(done["messages"])[-1] == {"question": question, "choices": None}
