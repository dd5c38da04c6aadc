"""The server with OpenAI's own client over a socket: answers, streams, conversations, errors, limits."""

from __future__ import annotations

import io
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from openai import OpenAI

from echo_agent import EchoAgent
from tests.scripted import scripted_family
from tests.serve.conftest import NAME, RATE, YARD, Served, asking, audio, part, serving
from tests.tiny import sounds
from tests.waiting import held, until

CHOICES = ["a dog", "a cat"]


def ask(
    client: OpenAI, *messages: dict[str, Any], choices: list[str] | None = CHOICES, **options: Any
) -> Any:
    echo = {"choices": choices, **options.pop("echo", {})}
    given: Any = messages or (asking("What barks?", YARD),)
    return client.chat.completions.create(model=NAME, messages=given, extra_body={"echo": echo}, **options)


def test_an_answer(client: OpenAI, agent: EchoAgent) -> None:
    reply = ask(client)
    alone = agent.ask((sounds(10.0), 16000), "What barks?", CHOICES)
    message = reply.choices[0].message
    assert (message.content, reply.choices[0].finish_reason) == ("a dog", "stop")
    (heard,) = message.annotations
    assert heard.type == "audio_span" and heard.audio_span["start"] == 2.0 and heard.audio_span["end"] == 4.0
    assert heard.audio_span["speed"] == 0.5 and heard.audio_span["seconds"] == 4.0
    assert message.reasoning_content == alone.text
    assert reply.usage.completion_tokens == alone.tokens["sampled"]
    assert reply.usage.prompt_tokens_details.audio_tokens == alone.tokens["audio"]
    assert reply.usage.total_tokens == len(alone.trajectory.ids)
    assert reply.echo["status"] == "answered" and reply.echo["seconds_heard"] == 4.0
    assert reply.echo["confidence"] == pytest.approx(alone.confidence, abs=1e-3)


def test_a_stream_is_the_same_in_pieces(client: OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "a dog"
    text = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert text == whole.choices[0].message.reasoning_content
    heard = [one for delta in deltas for one in getattr(delta, "annotations", None) or ()]
    assert [one["audio_span"] for one in heard] == [
        one.audio_span for one in whole.choices[0].message.annotations
    ]
    assert deltas[0].role == "assistant" and len(deltas) > 5, "it comes as it is written"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        "stop"
    ]
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    assert len({chunk.id for chunk in chunks}) == 1
    plain = list(ask(client, stream=True))
    assert all(chunk.usage is None for chunk in plain)


def test_options_are_those_of_the_agent(client: OpenAI, agent: EchoAgent) -> None:
    once = ask(client, echo={"relisten": False})
    assert once.choices[0].message.annotations == []
    few = ask(client, choices=None, max_completion_tokens=1)
    assert (
        few.usage.completion_tokens
        == agent.ask((sounds(10.0), 16000), "What barks?", max_new_tokens=1).tokens["sampled"]
    )
    options = {"temperature": 1.0, "top_p": 0.9, "seed": 3}
    same = [ask(client, **options).choices[0].message.content for _ in range(2)]
    assert same[0] == same[1]
    free = set[str]()
    for _ in range(40):  # each is as likely as not what the others are
        free.add(ask(client, temperature=2.0, echo={"guided": False}).choices[0].message.reasoning_content)
        if len(free) > 1:
            break
    assert len(free) > 1, "without a seed, samples differ"


def test_several_recordings_and_turns(client: OpenAI, agent: EchoAgent) -> None:
    first, second = audio(sounds(10.0)), audio(sounds(8.0, seed=1))
    reply = ask(client, asking("Which is louder?", first, second))
    assert reply.choices[0].message.annotations[0].audio_span["recording"] == 1
    alone = agent.ask([(sounds(10.0), 16000), (sounds(8.0, seed=1), 16000)], "Which is louder?", CHOICES)
    assert (
        reply.usage.prompt_tokens_details.audio_tokens
        == alone.tokens["audio"]
        > ask(client).usage.prompt_tokens_details.audio_tokens
    )
    turns = [
        {"role": "system", "content": "You listen."},
        asking("What barks?", first),
        {"role": "assistant", "content": "a dog", "annotations": [], "refusal": None},
        {"role": "user", "content": "And then?"},
    ]
    further = ask(client, *turns)
    asked = (
        "You listen.\n\nBefore this, you were asked:\nQuestion: What barks?\nAnswer: a dog\n\nNow: And then?"
    )
    alone = agent.ask((sounds(10.0), 16000), asked, CHOICES)
    assert further.usage.total_tokens == len(alone.trajectory.ids)


def test_what_was_found_about_a_recording_is_said(client: OpenAI) -> None:
    file = io.BytesIO()
    soundfile.write(file, sounds(10.0), 16000, format="FLAC")
    half = file.getvalue()[: len(file.getvalue()) // 2]
    (note,) = ask(client, asking("What barks?", part(half))).echo["notes"]
    assert note.startswith("it is cut off: ")


def test_what_the_model_does_not_know_is_refused_by_name_and_silence_is_called_silence() -> None:
    with EchoAgent.from_pretrained("echo-nano", device="cpu") as nano, serving(nano) as served:
        with served.client() as client:
            reply = ask(client, asking("Is a sheep heard?", YARD), choices=None)
            chunks = list(ask(client, asking("Is a sheep heard?", YARD), choices=None, stream=True))
            silent = ask(client, asking("Is a bell heard?", audio(np.zeros(RATE, np.float32))), choices=None)
        metrics = httpx.get(f"{served.url}/metrics").text
    why = "echo-nano does not know the word sheep, and was not asked"
    message = reply.choices[0].message
    assert (message.content, message.refusal, reply.choices[0].finish_reason) == ("", why, "stop")
    assert (reply.echo["status"], reply.echo["notes"]) == ("not_understood", [why])
    assert reply.usage.total_tokens == 0 and message.reasoning_content == ""
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert deltas[0].role == "assistant" and [d.refusal for d in deltas if d.refusal] == [why]
    assert not any(delta.content for delta in deltas) and chunks[-1].echo["status"] == "not_understood"
    assert silent.echo["notes"] == ["it is silent: nothing can be heard in it"]
    assert silent.choices[0].message.refusal is None and "echo_agent_unparsed_total 2.0" in metrics


def test_a_loop_is_no_answer() -> None:
    script = {"\n": "<answer>", "<answer>": "a violin", "a violin": ",", ",": "a violin"}
    with EchoAgent(scripted_family(script, sure=6.0)) as agent, serving(agent) as served:
        with served.client() as client:
            reply = ask(client, choices=None)
            cut = ask(client, choices=None, max_completion_tokens=3)
    assert (reply.choices[0].message.content, reply.echo["status"]) == ("", "unparsed")
    assert (cut.choices[0].message.content, cut.echo["status"]) == ("", "unparsed")
    assert reply.choices[0].message.refusal is None, "it was asked"


def said(*parts: dict[str, Any], text: str = "?") -> dict[str, Any]:
    """What a request says in place of what is right."""
    return {"messages": [asking(text, *parts)]}


def linked(url: str) -> dict[str, Any]:
    return said({"type": "audio_url", "audio_url": {"url": url}})


ANSWERED = {"role": "assistant", "content": "x"}
RULED = {"role": "system", "content": [YARD]}

BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "text only": (
        {"messages": [{"role": "user", "content": "Hello?"}]},
        400,
        "there is no recording in this",
    ),
    "no text": (said(YARD, text=""), 400, "says nothing"),
    "no messages": ({"messages": []}, 400, "messages: List should have at least 1 item"),
    "an assistant's turn": ({"messages": [asking("?", YARD), ANSWERED]}, 400, "role 'assistant'"),
    "audio of the system": ({"messages": [RULED, asking("?", YARD)]}, 400, "role 'user'"),
    "a tool's turn": (
        {"messages": [{"role": "tool", "content": "x"}]},
        400,
        "messages.0.role: Input should be",
    ),
    "an image": (said({"type": "image_url", "image_url": {"url": "x"}}), 400, "image_url"),
    "no base64": (said({"type": "input_audio", "input_audio": {"data": "%%"}}), 400, "audio 1 is not base64"),
    "no sound": (said(part(b"Dear Sir or Madam")), 400, "audio 1 cannot be"),
    "nothing": (said(part(b"")), 400, "audio 1 is empty"),
    "too long": (said(audio(np.zeros(21 * 16000, np.float32))), 400, "20"),
    "many": (said(*[YARD] * 9), 400, "9 recordings are more than the 8"),
    "a path": (linked("/etc/passwd"), 400, "begins with https://"),
    "a file": (linked("file:///etc/passwd"), 400, "begins with https://"),
    "a URL": (linked("https://example.org/a.wav"), 400, "this server fetches nothing"),
    "another model": ({"model": "gpt-4o"}, 404, f"there is no model 'gpt-4o'; there is {NAME}"),
    "tools": ({"tools": [{"type": "function"}]}, 400, "tools cannot be given"),
    "two answers": ({"n": 2}, 400, "n cannot be given: there is one answer"),
    "an unknown option": ({"top_k": 5}, 400, "there is no option 'top_k'"),
    "a hot temperature": ({"temperature": 9}, 400, "temperature: Input should be less than or equal to 2"),
    "one choice": ({"echo": {"choices": ["a"]}}, 400, "1 choice given"),
    "our own unknown option": ({"echo": {"volume": 1}}, 400, "echo.volume"),
    "too many relistens": ({"echo": {"max_relistens": 99}}, 400, "echo.max_relistens is at most 16"),
    "too many tokens": ({"max_tokens": 99999}, 400, "max_tokens is at most 4096"),
    "a long question": (
        said(YARD, text="why? " * 5000),
        400,
        "there is more text (choices included) than is taken",
    ),
    "long choices": (
        {"echo": {"choices": ["a" * 9000, "b" * 9000]}},
        400,
        "there is more text (choices included)",
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_bad_requests(served: Served, case: str, stream: bool) -> None:
    changes, status, message = BAD[case]
    request = {"model": NAME, "messages": [asking("What?", YARD)], "stream": stream, **changes}
    reply = httpx.post(f"{served.url}/v1/chat/completions", json=request)
    error = reply.json()["error"]
    assert (reply.status_code, set(error)) == (status, {"message", "type", "param", "code"}), error
    assert message in error["message"] and "/proc/" not in error["message"] and "/tmp" not in error["message"]


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"null", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
    ],
)
def test_what_is_no_request(served: Served, data: bytes, kind: str, status: int) -> None:
    reply = httpx.post(f"{served.url}/v1/chat/completions", content=data, headers={"Content-Type": kind})
    assert reply.status_code == status and reply.json()["error"]["message"]


def test_the_client_raises_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="there is no recording in this conversation"):
        ask(client, {"role": "user", "content": "Hello?"})
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "Hello?"}])


def test_the_other_paths(served: Served, client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert httpx.get(f"{served.url}/health").json() == {"status": "ok"}
    ask(client)
    text = httpx.get(f"{served.url}/metrics").text
    assert 'echo_agent_requests_total{status="200"}' in text and "echo_agent_running 0.0" in text
    assert "echo_agent_recording_bytes 0.0" in text, "uploads are gone with their runs"
    assert served.server.agent.recordings.nbytes == len(served.server.agent.recordings) == 0
    assert httpx.get(f"{served.url}/docs").status_code == 404
    assert httpx.get(f"{served.url}/nothing").json()["error"]["message"] == "GET /nothing: Not Found"
    assert set(httpx.get(f"{served.url}/openapi.json").json()["paths"]) == {
        "/v1/chat/completions", "/v1/models", "/health", "/metrics",
    }  # fmt: skip


def test_a_page_of_another_name_is_not_let_in(served: Served) -> None:
    """A name of the internet may be made to lead to this machine, from a page in a browser on it."""
    for host, status in (("evil.example", 403), ("localhost:1", 200), ("[::1]:9", 200), ("127.0.0.1", 200)):
        assert httpx.get(f"{served.url}/v1/models", headers={"Host": host}).status_code == status


def test_a_key(agent: EchoAgent) -> None:
    with serving(agent, key="a long secret".replace(" ", "-")) as served:
        for key in ("none", "a-long-secre", "ä"):
            headers = {"Authorization": f"Bearer {key}".encode()}
            for path in ("models", "chat/completions"):
                method = "GET" if path == "models" else "POST"
                reply = httpx.request(method, f"{served.url}/v1/{path}", headers=headers, json={"model": "x"})
                assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert httpx.get(f"{served.url}/metrics").status_code == 401
        assert httpx.get(f"{served.url}/health").status_code == 200
        with served.client("a-long-secret") as client:
            assert ask(client).choices[0].message.content == "a dog"
        with served.client("wrong") as client, pytest.raises(openai.AuthenticationError):
            ask(client)


@pytest.mark.parametrize("stated", [True, False])
def test_a_request_that_is_too_large(agent: EchoAgent, stated: bool) -> None:
    with serving(agent, max_bytes=20_000) as served:
        data = json.dumps({"model": NAME, "messages": [asking("What?", YARD)]}).encode()
        content: Any = data if stated else (data[i : i + 4096] for i in range(0, len(data), 4096))
        headers = {"Content-Type": "application/json"}
        reply = httpx.post(f"{served.url}/v1/chat/completions", content=content, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")


# --- many, slow, and gone -----------------------------------------------------------------------------------------


def test_who_finds_no_place_is_told_to_come_again(agent: EchoAgent) -> None:
    with serving(agent, running=1, waiting=1) as served, served.client() as client:
        with ThreadPoolExecutor(8) as pool:
            with held(agent):
                tries = [pool.submit(ask, client) for _ in range(8)]
                until(lambda: sum(one.done() for one in tries) == 6)
                # Whoever is let in waits for a moment, even where nobody runs.
                until(lambda: (served.server.gate.running, served.server.gate.waiting) == (1, 1))
            failures = [error for one in tries if (error := one.exception()) is not None]
        assert len(failures) == 6 and all(isinstance(error, openai.RateLimitError) for error in failures)
        assert all(one.result().choices[0].message.content == "a dog" for one in tries if not one.exception())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_its_run_along(agent: EchoAgent, served: Served, stream: bool) -> None:
    def left() -> float:
        lines = httpx.get(f"{served.url}/metrics").text.splitlines()
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith('echo_agent_requests_total{status="499"}')
        )

    before, runs = left(), agent.engine.stats()["runs"]
    with held(agent), pytest.raises(openai.APITimeoutError), served.client(timeout=0.5) as client:
        ask(client, stream=stream)
    until(lambda: served.server.gate.inside == 0)
    until(lambda: left() == before + 1)
    assert agent.engine.stats()["runs"] <= runs + 2, "it is not computed for nobody"
    assert agent.recordings.nbytes == 0, "what it sent is gone"


def test_a_client_that_leaves_in_the_middle_of_a_stream(
    agent: EchoAgent, served: Served, client: OpenAI
) -> None:
    with ask(client, stream=True) as chunks:
        next(iter(chunks))
    until(lambda: served.server.gate.inside == 0 and agent.engine.stats()["live_runs"] == 0)
    assert ask(client).choices[0].message.content == "a dog"


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long(agent: EchoAgent, stream: bool) -> None:
    with serving(agent, timeout=0.5) as served, served.client() as client, held(agent):
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client, stream=stream)
        assert caught.value.status_code == 504 and "longer than the 0.5 s" in str(caught.value)
        until(lambda: served.server.gate.inside == 0)


def test_a_client_that_says_nothing_more_is_let_go(agent: EchoAgent) -> None:
    with serving(agent, timeout=0.5) as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            until(lambda: served.server.gate.inside == 1)
            until(lambda: served.server.gate.inside == 0)


def test_runs_that_have_begun_end_before_the_server_does(agent: EchoAgent) -> None:
    with ThreadPoolExecutor(1) as pool:
        with serving(agent) as served, served.client() as client:
            with held(agent):
                asked = pool.submit(ask, client)
                until(lambda: served.server.gate.running == 1)
                served.uvicorn.should_exit = True
                until(lambda: not served.uvicorn.servers or not served.uvicorn.servers[0].is_serving())
            assert asked.result(30).choices[0].message.content == "a dog"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.url}/health")


def test_many_clients_get_what_one_gets(served: Served, client: OpenAI) -> None:
    alone = [ask(client, temperature=1.0, seed=seed) for seed in range(6)]
    with ThreadPoolExecutor(12) as pool:
        tries = [pool.submit(ask, client, temperature=1.0, seed=seed % 6) for seed in range(24)]
        found = [one.result() for one in tries]
    for i, reply in enumerate(found):
        assert reply.choices[0].message == alone[i % 6].choices[0].message


def test_a_mistake_of_ours_is_no_traceback_for_the_client(
    agent: EchoAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(agent, "aask", broken)
    with serving(agent) as served, served.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client)
    assert "secret" not in str(caught.value) and "something unexpected went wrong" in str(caught.value)
    assert "a secret" in caplog.text, "it is logged"
