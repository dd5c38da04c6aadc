"""A model behind an OpenAI-compatible server in the listening graph, as the page on LangChain has it."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.test_docs import blocks

ROOT = Path(__file__).parents[2]
ADDRESS = "http://localhost:8000/v1"
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "relisten", "arguments": json.dumps({"start": 11.0, "end": 14.5})},
}


def heard(body: dict[str, Any]) -> list[tuple[str, float]]:
    """Who was sent audio, and how many seconds of it."""
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "input_audio":
                assert part["input_audio"]["format"] == "wav"
                samples, rate = soundfile.read(io.BytesIO(base64.b64decode(part["input_audio"]["data"])))
                found.append((message["role"], len(samples) / rate))
    return found


@contextmanager
def serving(requests: list[dict[str, Any]]) -> Iterator[str]:
    """Answers the first request with a call, and the next with an answer; gives the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            said: dict[str, Any] = {"role": "assistant", "content": "<answer>12 s</answer>"}
            if len(requests) == 1:
                said = {"role": "assistant", "content": "Let me hear that.", "tool_calls": [CALL]}
            choice = {"index": 0, "message": said, "finish_reason": "stop"}
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            data = json.dumps(
                {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
            ).encode()
            if requests[-1].get("stream"):
                chunk = {"index": 0, "delta": said, "finish_reason": "stop"}
                if "tool_calls" in said:
                    chunk["delta"] = said | {"tool_calls": [{**CALL, "index": 0}]}
                event = {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [chunk]}
                data = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()
            self.send_response(200)
            self.send_header(
                "Content-Type", "text/event-stream" if requests[-1].get("stream") else "application/json"
            )
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_the_pages_lines_drive_a_served_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("langchain_openai")
    (block,) = (block for block in blocks(ROOT / "docs" / "langchain.md") if ADDRESS in block.code)
    requests: list[dict[str, Any]] = []
    monkeypatch.chdir(ROOT)
    with serving(requests) as url:
        exec(compile(block.code.replace(ADDRESS, url), "langchain.md", "exec"), {})
    answer, spent = capsys.readouterr().out.split(" s ", 1)
    assert answer == "12" and "'relistens': 1" in spent and "'seconds': 3.5" in spent
    first, second = requests
    assert [tool["function"]["name"] for tool in first["tools"]] == ["relisten"]
    ((role, whole),) = heard(first)
    assert role == "user" and heard(second) == [("user", whole), ("user", pytest.approx(3.5))]
