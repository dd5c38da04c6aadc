"""A server that speaks the OpenAI protocol by a script, in one piece or as a stream, and is as strict as some are."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_openai import ChatOpenAI

Script = Callable[[dict[str, Any], int], dict[str, Any] | tuple[int, str]]
"""From the request's body and its number to the assistant's message, or to a status and the words of an error."""


def calling(*spans: tuple[float, float]) -> dict[str, Any]:
    """A message that asks to listen again to each of some spans."""
    calls = [
        {
            "id": f"call_{start:g}_{end:g}",
            "type": "function",
            "function": {"name": "relisten", "arguments": json.dumps({"start": start, "end": end})},
        }
        for start, end in spans
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def saying(text: str) -> dict[str, Any]:
    """A message of text."""
    return {"role": "assistant", "content": text}


class Server:
    """Answers by a script, and keeps the requests."""

    def __init__(self, script: Script, usage: int | None) -> None:
        self.requests: list[dict[str, Any]] = []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.requests)
                    outer.requests.append(body)
                fault = misplaced(body["messages"])
                said = (400, fault) if fault else script(body, number)
                if isinstance(said, tuple):
                    self._send(said[0], json.dumps({"error": {"message": said[1], "type": "invalid"}}))
                elif body.get("stream"):
                    self._stream(said)
                else:
                    self._send(200, json.dumps(whole(said, usage)))

            def _send(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def _stream(self, said: dict[str, Any]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                try:
                    for delta in deltas(said):
                        self.wfile.write(f"data: {json.dumps(delta)}\n\n".encode())
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:  # the client has read enough
                    pass

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True

    def model(self, **options: Any) -> ChatOpenAI:
        """A client of it."""
        url = f"http://127.0.0.1:{self.http.server_port}/v1"
        return ChatOpenAI(model="tests", base_url=url, api_key="none", max_retries=0, **options)  # pyright: ignore

    def tools(self) -> list[bool]:
        """Whether a tool was offered, by request."""
        return ["tools" in request for request in self.requests]


def misplaced(messages: list[dict[str, Any]]) -> str:
    """What a strict server objects to: calls that are not all answered right after the message that made them."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                return "a tool message must follow the message that called"
            waiting.remove(message["tool_call_id"])
            if not isinstance(message["content"], str):
                return "tool messages hold text"
        elif waiting:
            return f"an assistant message with 'tool_calls' must be followed by tool messages: {waiting} are missing"
        waiting += [call["id"] for call in message.get("tool_calls") or ()]
    return "the last calls are not answered" if waiting else ""


def whole(said: dict[str, Any], usage: int | None) -> dict[str, Any]:
    """A response in one piece; ``usage`` is what it is said to have cost."""
    choice = {"index": 0, "finish_reason": "tool_calls" if "tool_calls" in said else "stop", "message": said}
    counted = {"usage": {"prompt_tokens": 9, "completion_tokens": usage, "total_tokens": 9 + (usage or 0)}}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "tests", "choices": [choice]} | (
        counted if usage is not None else {}
    )


def deltas(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A response in pieces, word by word, without usage, as servers stream that are not asked for it."""

    def piece(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "tests",
            "choices": [choice],
        }

    for word in said["content"].split(" ") if said["content"] else ():
        yield piece({"role": "assistant", "content": f"{word} "})
    for i, call in enumerate(said.get("tool_calls", ())):
        yield piece({"role": "assistant", "tool_calls": [{"index": i, **call}]})
    yield piece({}, "tool_calls" if said.get("tool_calls") else "stop")


@contextmanager
def serving(script: Script, usage: int | None = None) -> Iterator[Server]:
    """A server on a free port of this machine."""
    server = Server(script, usage)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()
