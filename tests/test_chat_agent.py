"""Models behind chat servers: what a server is sent, what is read of its answers, and what its failures are called."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from echo_agent import chat_agent
from echo_agent.chat_agent import ChatAgent, named
from echo_agent.cli import main
from echo_agent.errors import ModelError, QuestionError, RecordingTooLongError, ServerError
from echo_agent.turns_chat import system_prompt
from tests.graphs.chat_server import Server, saying, serving
from tests.tiny import sounds

CHOICES = ["a dog", "a cat"]
CALL = 'It is early.\n<tool_call>\n{"name": "relisten", "arguments": {"start": 2, "end": 4.5}}\n'
"""As servers give it: without the string that stopped it."""
ANSWER = "I heard it bark.\n<answer>a dog"
Said = Callable[[dict[str, Any], int], Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_agent, "TRIES", 0)
    monkeypatch.delenv(chat_agent.KEY, raising=False)


@pytest.fixture
def sound(tmp_path: Path) -> str:
    path = tmp_path / "yard.flac"
    soundfile.write(path, sounds(8.0), 16000)
    return str(path)


def address(server: Server) -> str:
    return f"openai:tests@http://127.0.0.1:{server.http.server_port}"


def by_turns(*texts: str) -> Said:
    """A script that says one text after another, and the last one from then on."""
    return lambda body, number: saying(texts[min(number, len(texts) - 1)])


def parts(message: dict[str, Any]) -> Iterator[str]:
    """What a message holds: its texts, and its audio as seconds."""
    content = message["content"]
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if part["type"] == "text":
            yield part["text"]
        else:
            assert part["type"] == "input_audio" and part["input_audio"]["format"] == "wav"
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(part["input_audio"]["data"])))
            yield f"{len(samples) / rate:g} s of audio"


def test_the_crop_comes_in_the_next_user_message(sound: str) -> None:
    with serving(by_turns(CALL, ANSWER), usage=7) as server:
        with ChatAgent.from_pretrained(address(server)) as agent:
            result = agent.ask(sound, "What barks?", CHOICES)
    assert (result.answer, result.choice_index, result.status) == ("a dog", 0, "answered")
    assert [(one.start, one.end) for one in result.relistens] == [(2.0, 4.5)] and not result.forced
    assert result.confidence is None and result.model == address(server)
    assert result.tokens == {"prompt": 9, "sampled": 14, "audio": 0}
    first, second = server.requests
    assert "tools" not in first and set(first["stop"]) == {"</tool_call>", "</answer>"}
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first["messages"][0]["content"] == system_prompt()
    assert list(parts(first["messages"][1]))[:2] == ["Recording 1 (8.0 seconds):", "8 s of audio"]
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "user"]
    assert second["messages"][2]["content"] == f"{CALL}</tool_call>"
    assert list(parts(second["messages"][3])) == [
        "<tool_response>\nHeard 2 to 4.5 s.\n</tool_response>",
        "2.5 s of audio",
    ]


async def test_the_async_twin_is_the_same(sound: str) -> None:
    with serving(by_turns(CALL, ANSWER)) as server:
        agent = ChatAgent.from_pretrained(address(server))
        events: list[dict[str, Any]] = []
        result = await agent.aask(sound, "What barks?", CHOICES, on_event=events.append)
    assert result.answer == "a dog" and result.seconds_heard == 2.5
    assert [event["type"] for event in events] == ["token", "relisten", "token", "answer"]
    assert result.tokens["sampled"] > 10, "the server does not count them: they are estimated"


def test_at_the_end_of_the_budget_the_answer_is_asked_for(sound: str) -> None:
    """The model calls whenever it may; without the tool it answers."""

    def script(body: dict[str, Any], number: int) -> Any:
        asked = "Give your answer now" in json.dumps(body["messages"][-1])
        return saying(ANSWER if asked else CALL.replace("4.5", str(3 + number)))

    with serving(script) as server, ChatAgent.from_pretrained(address(server)) as agent:
        result = agent.ask(sound, "What barks?", CHOICES, max_relistens=2)
        once = agent.ask(sound, "What barks?", CHOICES, relisten=False)
    assert result.answer == "a dog" and result.forced and len(result.relistens) == 2
    assert once.answer == "a dog" and once.relistens == []


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("<tool_call>\nlisten to the end please\n", "this is not JSON"),
        ('<tool_call>{"name": "relisten", "arguments": {"start": 99, "end": 100}}', "outside of 0-8"),
        ('<tool_call>{"name": "search", "arguments": {}}', "there is no tool 'search'"),
    ],
)
def test_a_call_that_cannot_be_heard_is_answered(sound: str, call: str, told: str) -> None:
    with serving(by_turns(call, ANSWER)) as server, ChatAgent.from_pretrained(address(server)) as agent:
        result = agent.ask(sound, "What barks?", CHOICES)
    (said,) = parts(server.requests[1]["messages"][-1])
    assert told in said and result.answer == "a dog" and result.failed_calls == 1


def test_what_a_model_makes_up_after_its_call_is_cut_off(sound: str) -> None:
    made_up = f"{CALL}</tool_call>\n<tool_response>A dog.</tool_response>\n<answer>a cat</answer>"
    with serving(by_turns(made_up, ANSWER)) as server, ChatAgent.from_pretrained(address(server)) as agent:
        result = agent.ask(sound, "What barks?", CHOICES)
    assert result.answer == "a dog" and "tool_response" not in result.text
    assert server.requests[1]["messages"][2]["content"] == f"{CALL}</tool_call>"


def test_a_thread_goes_on(sound: str, tmp_path: Path) -> None:
    with serving(by_turns(CALL, ANSWER)) as server:
        agent = ChatAgent.from_pretrained(address(server), checkpoints=tmp_path / "threads.sqlite")
        first = agent.ask(sound, "What barks?", CHOICES, thread="mine")
        assert agent.ask(sound, "What barks?", CHOICES, thread="mine").text == first.text
        assert len(server.requests) == 2
        with pytest.raises(QuestionError, match="mine"):
            agent.ask(sound, "What else?", CHOICES, thread="mine")
    assert b"UklGR" not in (tmp_path / "threads.sqlite").read_bytes(), "there is audio in a checkpoint"


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (401, "bad key", "refuses the key; it is read from the environment variable OPENAI_API_KEY"),
        (404, "no model tests", "there is no such model"),
        (429, "slow down", "too much to do"),
        (500, "it broke", "failed or refused: .*it broke"),
        (400, "audio input is not supported", "refused the audio it was given"),
    ],
)
def test_failures_are_sentences(sound: str, status: int, words: str, said: str) -> None:
    with serving(lambda body, number: (status, words)) as server:
        with ChatAgent.from_pretrained(address(server)) as agent, pytest.raises(ModelError, match=said):
            agent.ask(sound, "What barks?")


def test_a_server_that_is_not_there(sound: str) -> None:
    with pytest.raises(ServerError, match="cannot be reached"):
        ChatAgent.from_pretrained("openai:tests@http://127.0.0.1:9/v1").ask(sound, "What barks?")


def test_a_recording_that_is_too_long_is_not_sent(sound: str) -> None:
    with serving(by_turns(ANSWER)) as server:
        with ChatAgent.from_pretrained(address(server), longest=5.0) as agent:
            with pytest.raises(RecordingTooLongError):
                agent.ask(sound, "What barks?")
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "model", "url"),
    [
        ("openai:gpt-4o-audio-preview", "gpt-4o-audio-preview", None),
        ("openai:Qwen/Q@http://host:8000", "Qwen/Q", "http://host:8000/v1"),
        ("openai:Qwen/Q@http://host:8000/v1", "Qwen/Q", "http://host:8000/v1"),
        ("openai:g@https://host/v1beta/openai", "g", "https://host/v1beta/openai"),
    ],
)
def test_names(name: str, model: str, url: str | None) -> None:
    assert named(name) == (model, url)


@pytest.mark.parametrize(
    "name", ["openai:", "openai:@http://host", "openai:a b", "openai:a@host:8000", "openai:a@http://me:k@h"]
)
def test_names_that_cannot_be_read(name: str) -> None:
    with pytest.raises(ModelError, match="openai:"):
        named(name)


def test_openais_own_models_need_a_key() -> None:
    with pytest.raises(ModelError, match="put your key into the environment variable OPENAI_API_KEY"):
        ChatAgent.from_pretrained("openai:gpt-4o-audio-preview")


# --- the command line ---------------------------------------------------------------------------------------------


def test_ask_and_eval_take_such_a_name(
    sound: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the key stands nowhere."""
    monkeypatch.setenv(chat_agent.KEY, "sk-secret")
    monkeypatch.setenv("ECHO_AGENT_HOME", str(tmp_path))
    trace, rows = tmp_path / "trace.json", tmp_path / "rows.jsonl"
    row = {"id": "1", "audio": sound, "question": "What barks?", "choices": CHOICES, "answer": "a dog"}
    rows.write_text(json.dumps(row) + "\n")
    with serving(lambda body, number: saying(CALL if len(body["messages"]) == 2 else ANSWER)) as server:
        ask = ["ask", sound, "What barks?", "--model", address(server)]
        assert main([*ask, "--trace", str(trace), "--plot", str(tmp_path / "run.png"), "--thread", "t"]) == 0
        assert (
            main(
                [
                    "eval",
                    str(rows),
                    "--model",
                    address(server),
                    "--json",
                    "--out",
                    str(tmp_path / "out.jsonl"),
                ]
            )
            == 0
        )
        assert main([*ask, "--server", "http://localhost:1"]) == 2
    out, err = capfd.readouterr()
    assert out.startswith("a dog\n") and '"correct": 1' in out.replace('"correct":1', '"correct": 1')
    assert "leave out --server" in err
    assert json.loads(trace.read_text())["result"]["relistens"][0]["start"] == 2.0
    written = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert not any(b"sk-secret" in data for data in [*written, out.encode(), err.encode()])
