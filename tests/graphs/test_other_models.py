"""Models of other makers behind real servers: budgets, answers that are forced, and models that are deaf."""

import pytest

from echo_agent.errors import ModelError
from echo_agent.graphs import Budget, ListeningContext
from echo_agent.graphs.calls import replies_of
from echo_agent.graphs.hearing import refuses_audio
from echo_agent.graphs.usage import CHARACTERS_PER_TOKEN
from tests.graphs.chat_server import calling, saying, serving

ANSWER = saying("<answer>a dog</answer>")
STREAMED = pytest.mark.parametrize("stream_tokens", [False, True], ids=["whole", "streamed"])


def ask(setup, server, stream_tokens, **options):
    budget = options.pop("budget", Budget())
    context = ListeningContext(server.model(**options), setup.store, budget, stream_tokens=stream_tokens)
    return setup.graph.invoke(setup.state(), context=context)


# --- budgets ----------------------------------------------------------------------------------------------------


@STREAMED
def test_tokens_are_counted_where_the_server_does_not_say_how_many(setup, stream_tokens):
    with serving(lambda body, number: calling((2, 4)) if "tools" in body else ANSWER) as server:
        state = ask(setup, server, stream_tokens, budget=Budget(max_relistens=50, max_new_tokens=40))
    assert 40 <= state["spent"]["tokens"] < 60, "the last call may pass the limit"
    assert state["budget_exhausted"] and state["answer"] == "a dog" and len(server.requests) < 10


@STREAMED
def test_the_forced_turn_offers_no_tool(setup, stream_tokens):
    with serving(lambda body, number: calling((number, number + 2)) if "tools" in body else ANSWER) as server:
        state = ask(setup, server, stream_tokens, budget=Budget(max_relistens=2))
    assert server.tools() == [True, True, True, False] and state["answer"] == "a dog"
    assert [reply.outcome for reply in replies_of(state["messages"])] == ["heard", "heard", "exhausted"]


async def test_the_forced_turn_offers_no_tool_in_an_event_loop(setup):
    with serving(lambda body, number: calling((2, 4)) if "tools" in body else ANSWER) as server:
        context = ListeningContext(server.model(), setup.store, Budget(max_relistens=1))
        state = await setup.graph.ainvoke(setup.state(), context=context)
    assert server.tools() == [True, True, False] and state["answer"] == "a dog"


@pytest.mark.parametrize("use_async", [False, True])
async def test_an_endless_stream_is_ended(setup, use_async):
    endless = saying("and a dog " * 200_000)
    with serving(lambda body, number: endless if number == 0 else ANSWER) as server:
        context = ListeningContext(server.model(), setup.store, Budget(max_new_tokens=50))
        if use_async:
            state = await setup.graph.ainvoke(setup.state(), context=context)
        else:
            state = setup.graph.invoke(setup.state(), context=context)
    first = state["messages"][1]
    assert 50 <= len(first.text) / CHARACTERS_PER_TOKEN < 60
    assert state["budget_exhausted"] and state["answer"] == "a dog" and state["spent"]["tokens"] < 60


def test_what_the_server_says_is_counted(setup):
    with serving(lambda body, number: ANSWER, usage=7) as server:
        assert ask(setup, server, False)["spent"]["tokens"] == 7


# --- models that cannot hear ------------------------------------------------------------------------------------


def test_a_profile_without_audio_is_refused_before_anything_is_sent(setup):
    with serving(lambda body, number: ANSWER) as server:
        with pytest.raises(ModelError, match="tests cannot hear.*takes audio as input"):
            ask(setup, server, False, profile={"audio_inputs": False})
        assert server.requests == []
        assert ask(setup, server, False, profile={"audio_inputs": True})["answer"] == "a dog"


@STREAMED
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "At most 0 audio(s) may be provided in one prompt."),
        (500, "audio input is not supported - hint: you may need to provide the mmproj"),
        (422, "messages[0]: unknown variant `input_audio`, expected `text`"),
        (400, "'messages.0' : content must be a string"),
    ],
)
def test_a_server_that_refuses_audio_is_named(setup, stream_tokens, status, words):
    with (
        serving(lambda body, number: (status, words)) as server,
        pytest.raises(ModelError, match="tests refused the audio it was given.*echo-agent models"),
    ):
        ask(setup, server, stream_tokens)


def test_other_refusals_stay_what_they_are(setup):
    with serving(lambda body, number: (429, "slow down with your audio")) as server:
        with pytest.raises(Exception, match="slow down") as caught:
            ask(setup, server, False)
        assert not isinstance(caught.value, ModelError)
    assert not refuses_audio(ValueError("temperature must be positive"), "tests")
    assert refuses_audio(ValueError("Unsupported message content type: input_audio"), "tests")
    assert not refuses_audio(ValueError("there is no model some-audio-preview"), "some-audio-preview")
