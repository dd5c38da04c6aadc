"""Chat models to test with: one that is scripted, and a server that speaks the OpenAI protocol over HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from echo_agent.finetune.data.records import Event, Record

PROMPT, COMPLETION = 70, 30
"""Tokens that every call is said to cost."""


class ScriptedChat(BaseChatModel):
    """Says one text after another, the last one for ever, and keeps what it was told; has no structured output."""

    texts: list[str]
    told: list[list[BaseMessage]] = []

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.told.append(list(messages))
        text = self.texts[min(len(self.told), len(self.texts)) - 1]
        usage = {"input_tokens": PROMPT, "output_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION}
        message = AIMessage(text, usage_metadata=usage)  # pyright: ignore[reportArgumentType]
        return ChatResult(generations=[ChatGeneration(message=message)])


@dataclass
class Say:
    """What the server does with one request."""

    text: str = ""
    status: int = 200
    finish: str = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    usage: bool = True
    hang: bool = False
    """Never answer, until the server is closed."""


Script = Callable[[dict[str, Any], int], Say]
"""From the request's body and its number, from 0."""


class ChatServer:
    """Answers by a script, and keeps the requests."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.closing = threading.Event()
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    number = len(outer.requests)
                    outer.requests.append(body)
                said = outer.script(body, number)
                if said.hang:
                    outer.closing.wait(30)
                    self.close_connection = True
                    return
                data = json.dumps(_payload(said)).encode()
                try:
                    self.send_response(said.status)
                    for name, value in {"Content-Type": "application/json", **said.headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # whoever asked was killed
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def texts(self) -> list[str]:
        """What users said last, per request."""
        return [request["messages"][-1]["content"] for request in self.requests]


def _payload(said: Say) -> dict[str, Any]:
    if said.status != 200:
        return {"error": {"message": said.text, "type": "error"}}
    message = {"role": "assistant", "content": said.text}
    usage = {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION}
    return {
        "id": "chat", "object": "chat.completion", "created": 1, "model": "tests",
        "choices": [{"index": 0, "finish_reason": said.finish, "message": message}],
    } | ({"usage": usage} if said.usage else {})  # fmt: skip


@contextmanager
def serving(script: Script) -> Iterator[ChatServer]:
    """A server on a free port of this machine."""
    server = ChatServer(script)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.http.shutdown()
        thread.join()
        server.http.server_close()


def make_records(count: int = 1) -> list[Record]:
    """Recordings in which a dog, a bell and a car are heard one after the other."""
    events = (
        Event("dog", "sound", 1.0, 2.0),
        Event("bell", "burst", 5.0, 7.0, hits=3),
        Event("car", "sound", 10.0, 14.0),
    )
    return [
        Record(
            id=f"clip {n}",
            audio=f"{n}.wav",
            duration=20.0 + n,
            events=events,
            corpus="tests",
            licence="CC0-1.0",
        )
        for n in range(count)
    ]


def question(text: str = "Which sound follows the dog?", **changes: Any) -> dict[str, Any]:
    """A question about them to which there is no objection, or with changes to which there is."""
    return {
        "question": text,
        "choices": ["a bell", "a car", "a horn", "a drum"],
        "answer": "a bell",
        "spans": [{"start": 5.0, "end": 7.0}],
        "reasoning": "The dog is early <seg>0, 3</seg> and barks. Then <seg>4, 8</seg> a bell is struck.",
    } | changes


def written(*questions: dict[str, Any]) -> str:
    """The reply of a writer."""
    return json.dumps({"questions": list(questions)})
