"""A server of ours that stands in for ``vllm serve``: its token endpoint over a real socket, and its faults.

It does what the real one was seen to do, also where that is silent: a clip takes the place of one placeholder, whatever
stands around it; parts of a kind that it does not know are passed over; under a uuid that it knows it hears what it
heard then; of a context it knows whole blocks, and never all. Sampling is a loop of its own around the family's text
model, with a cache that lives for one request, so that what it gives owes nothing to the engine in this process.

What can go wrong is in ``tests/token_faults.py``, the weights that it samples with in ``tests/token_weights.py``.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import soundfile
import torch

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.families.base import Family
from tests.token_faults import Faults
from tests.token_weights import ServedWeights

BLOCK = 16
"""Tokens of a block of the prefix cache."""
RELOADING = ("/pause?mode=wait", "/collective_rpc", "/update_weight_version", "/resume")


class TokenServer:
    """See the module."""

    def __init__(self, family: Family, *, name: str | None = None, max_model_len: int | None = None) -> None:
        """Serve ``family``, under its own name unless it is given another."""
        self.family, self.name = family, name or family.name
        self.max_model_len = max_model_len or family.context_length
        self.faults = Faults()
        self.requests: list[dict[str, Any]] = []
        """Bodies of all requests to the token endpoint, in order."""
        self.aborted = 0
        """Streams whose reader went away."""
        self.heard: dict[str, tuple[AudioRef, list[dict[str, torch.Tensor]]]] = {}
        """Audio by uuid: what it is, and its features."""
        self.weights = ServedWeights(family)
        self.open = threading.Event()
        """Set unless it is paused: what is asked meanwhile waits."""
        self.open.set()
        self.blocks: set[tuple[Any, ...]] = set()
        """What stands in the prefix cache: contexts up to the end of each block."""
        self.piece = 1
        """Most tokens of one piece of a stream: the real one sends what has come since the last."""
        self.on_token: Any = None
        """Called before each token is sent."""
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            served = 0

            def do_GET(self) -> None:
                if not self.idle():
                    outer.get(self)

            def do_POST(self) -> None:
                if not self.idle():
                    outer.post(self, json.loads(self.body() or b"{}"))

            def body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def idle(self) -> bool:
                """Whether the connection was closed before the request was read; seen by the client in two ways."""
                self.served += 1
                if self.served == 1 or not outer.faults.idle:
                    return False
                outer.faults.idle -= 1
                if outer.faults.idle % 2:
                    self.body()  # what is read goes out with an end of the stream, what is not with a reset
                self.close_connection = True
                return True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._handler = Handler
        self.http = self._listen(0)
        self.port = self.http.server_port

    def _listen(self, port: int) -> ThreadingHTTPServer:
        http = _Server(("127.0.0.1", port), self._handler)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self._thread = thread
        return http

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Go down: no connection is taken any more, and those that are open are closed."""
        self.http.shutdown()
        self._thread.join()
        self.http.drop()
        self.http.server_close()

    def start_again(self) -> None:
        """Come back at the same address, without what was known before."""
        self.forget()
        self.http = self._listen(self.port)

    def forget(self) -> None:
        """Be as one that was started anew, at once."""
        self.heard.clear()
        self.blocks.clear()
        self.weights.forget()

    # --- routes ---------------------------------------------------------------------------------------------------

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        if not self._may(handler):
            return
        if handler.path == "/weight_info" and not self.faults.no_reload:
            return _send(handler, 200, {"weight_version": self.weights.version})
        if handler.path != "/v1/models":
            return _send(handler, 404, {"detail": "Not Found"})
        cards = [{"id": self.name, "object": "model", "root": self.name, "max_model_len": self.max_model_len}]
        cards += [
            {"id": name, "object": "model", "root": name, "parent": self.name}
            for name in self.weights.adapters
        ]
        _send(handler, 200, {"object": "list", "data": cards})

    def post(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        if not self._may(handler):
            return
        if handler.path == "/v1/load_lora_adapter":
            with self._lock:
                self.weights.load(body["lora_name"], Path(body["lora_path"]))
            return _send(handler, 200, {})
        if handler.path == "/v1/unload_lora_adapter":
            self.weights.adapters.pop(body["lora_name"], None)
            return _send(handler, 200, {})
        if handler.path in RELOADING and not self.faults.no_reload:
            return _send(handler, *self._reload(handler.path, body))
        if handler.path != "/inference/v1/generate" or self.faults.no_endpoint:
            return _send(handler, 404, {"detail": "Not Found"})
        self.open.wait()
        if not body.get("stream"):  # a probe
            return self._probe(handler, body)
        self.requests.append(body)
        if self.faults.statuses:
            status, headers = self.faults.statuses.pop(0)
            return _send(
                handler, status, {"error": {"message": "as the test wants it", "code": status}}, headers
            )
        time.sleep(self.faults.hang)
        if body["model"] != self.name and body["model"] not in self.weights.adapters:
            return _send(handler, 404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        try:
            context = self._context(body)
        except ValueError as error:
            return _send(handler, 400, {"error": {"message": str(error), "code": 400}})
        except OverflowError as error:
            return _send(handler, 500, {"error": {"message": str(error), "code": 500}})
        self._stream(handler, body, *context)

    def _reload(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """A step of an exchange of weights; the answer."""
        match path:
            case "/pause?mode=wait":
                self.open.clear()
                self.blocks.clear()
                self.heard.clear()
            case "/collective_rpc":
                assert body["method"] == "reload_weights" and not self.open.is_set()
                if self.faults.reload_fails:
                    self.faults.reload_fails -= 1
                    return 500, {"error": {"message": "the disk is gone", "code": 500}}
                with self._lock:
                    self.weights.reload(Path(body["kwargs"]["weights_path"]))
            case "/update_weight_version":
                self.weights.version = body["new_version"]
            case _:
                self.open.set()
        return 200, {}

    def _may(self, handler: BaseHTTPRequestHandler) -> bool:
        if self.faults.key and handler.headers.get("Authorization") != f"Bearer {self.faults.key}":
            _send(handler, 401, {"error": "Unauthorized"})
            return False
        return True

    def _probe(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        (token,) = body["sampling_params"]["allowed_token_ids"]
        value = 3.0 if self.faults.scores else 0.0 if self.faults.processed else -2.5
        content = (
            None if self.faults.no_logprobs else [{"token_id": token, "logprob": value, "top_logprobs": []}]
        )
        choice = {
            "index": 0,
            "token_ids": [token],
            "logprobs": {"content": content},
            "finish_reason": "length",
        }
        _send(handler, 200, {"choices": [choice]})

    # --- contexts -------------------------------------------------------------------------------------------------

    def _context(self, body: dict[str, Any]) -> tuple[list[int], list[tuple[int, AudioRef, str]]]:
        """The expanded ids, and where the audio begins; ValueError for what the real one refuses."""
        parts = [part for part in body.get("content_parts") or () if part.get("type") == "audio_url"]
        clips = [] if self.faults.deaf else [(self._clip(part), part["uuid"]) for part in parts]
        ids: list[int] = []
        placed: list[tuple[int, AudioRef, str]] = []
        waiting = iter(clips)
        for token in body["token_ids"]:
            clip = next(waiting, None) if token == self.family.audio_id else None
            if clip is None:
                ids.append(token)
                continue
            placed.append((len(ids), *clip))
            ids += [token] * self.family.audio_tokens(clip[0])
        if next(waiting, None) is not None:
            raise OverflowError("more audio than placeholders")
        if len(ids) + 1 > self.max_model_len:
            raise ValueError(f"the prompt is longer than the maximum model length of {self.max_model_len}")
        if self.faults.other_ids:
            ids[-1] += 1
        return ids, placed

    def _clip(self, part: dict[str, Any]) -> AudioRef:
        """Audio under its uuid; what is known under it is not looked at again."""
        uuid = part["uuid"]
        if uuid not in self.heard:
            if part["url"] is None:
                raise ValueError(f"no data for the item {uuid}, which is not in the cache")
            kind, _, data = part["url"].partition(",")
            assert kind == "data:audio/wav;base64"
            samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
            assert rate == self.family.sample_rate
            ref = Recording.from_array(samples, rate).ref()
            with self._lock:
                self.heard[uuid] = ref, self.weights.whole.frozen_features([(ref, samples)])
        return self.heard[uuid][0]

    # --- sampling -------------------------------------------------------------------------------------------------

    def _stream(
        self,
        handler: BaseHTTPRequestHandler,
        body: dict[str, Any],
        ids: list[int],
        placed: list[tuple[int, AudioRef, str]],
    ) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        ranges = [
            {"offset": at + self.faults.shifted, "length": self.family.audio_tokens(ref)}
            for at, ref, _ in placed
        ]
        head: dict[str, Any] = {
            "prompt_token_ids": ids,
            "mm_placeholders": {"audio": ranges} if ranges else None,
        }
        if self.faults.silent_ids:
            head = {}
        said: list[int] = []
        held: list[dict[str, Any]] = []
        cached = self._cached(body["model"], ids, placed)
        drop = self.faults.drop_after.pop(0) if self.faults.drop_after else None
        broken = self.faults.error_after.pop(0) if self.faults.error_after else None
        try:
            if self.faults.garbage:
                self.faults.garbage -= 1
                self._say(handler, "{" * 40)
                return self._end(handler)
            for number, choice in enumerate(self._choices(body, ids, placed)):
                if number == drop:
                    handler.close_connection = True
                    return
                if number == broken:
                    self._say(handler, json.dumps({"error": {"message": "the engine died", "code": 500}}))
                    return self._end(handler)
                if self.on_token is not None:
                    self.on_token(number)
                said += choice["token_ids"]
                held.append(choice)
                if len(held) < self.piece and not choice["finish_reason"]:
                    continue
                self._say(handler, json.dumps({"request_id": "r", **head, "choices": [_joined(held)]}))
                head, held = {}, []
            self._cached(body["model"], [*ids, *said], placed)
            usage = {"prompt_tokens": len(ids), "prompt_tokens_details": {"cached_tokens": cached}}
            self._say(handler, json.dumps({"request_id": "r", "choices": [], "usage": usage}))
            self._end(handler)
        except OSError:
            self.aborted += 1
            handler.close_connection = True

    def _cached(self, model: str, ids: list[int], placed: list[tuple[int, AudioRef, str]]) -> int:
        """How many tokens of a context are known; all but the last are from now on."""
        symbols: list[Any] = list(ids)
        for at, ref, uuid in placed:
            symbols[at : at + self.family.audio_tokens(ref)] = [uuid] * self.family.audio_tokens(ref)
        ends = range(BLOCK, len(ids), BLOCK)
        blocks = [(model, *symbols[:end]) for end in ends]
        with self._lock:
            known = next((n for n, block in enumerate(blocks) if block not in self.blocks), len(blocks))
            self.blocks.update(blocks)
        return known * BLOCK

    def _say(self, handler: BaseHTTPRequestHandler, data: str) -> None:
        piece = f"data: {data}\n\n".encode()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.flush()

    def _end(self, handler: BaseHTTPRequestHandler) -> None:
        self._say(handler, "[DONE]")
        handler.wfile.write(b"0\r\n\r\n")

    def _choices(
        self, body: dict[str, Any], ids: list[int], placed: list[tuple[int, AudioRef, str]]
    ) -> Iterator[dict[str, Any]]:
        """One piece per token."""
        settings = body["sampling_params"]
        family = self.weights.of(body["model"])
        noise = torch.Generator().manual_seed(settings["seed"])
        with self._lock, torch.no_grad():
            embeds = family.token_embeds(torch.tensor([ids]))
            for at, ref, uuid in placed:
                (audio,) = family.audio_embeds([ref], self.heard[uuid][1])
                embeds[0, at : at + len(audio), : audio.shape[-1]] = audio
            positions = torch.arange(len(ids))[None]
            hidden, cache = family.forward_embeds(embeds, torch.ones(1, len(ids)), positions, None)
            scores = family.logits(hidden[0, -1])
        sampled: list[int] = []
        while True:
            token, content = self._choose(settings, scores, noise)
            sampled.append(token)
            ended = token in settings["stop_token_ids"]
            text = family.detokenize(sampled)
            ended = ended or any(stop in text for stop in settings["stop"])
            finish = "stop" if ended else "length" if len(sampled) >= settings["max_tokens"] else None
            named = self.faults.versions or (self.weights.version,)
            versions = [{"version": name, "start": 0, "end": 1} for name in named]
            yield {
                "index": 0,
                "token_ids": [token],
                "logprobs": {"content": [content]},
                "finish_reason": finish,
                "weight_versions": versions if finish else None,
            }
            if finish:
                return
            with self._lock, torch.no_grad():
                length = len(ids) + len(sampled)
                embeds = family.token_embeds(torch.tensor([[token]]))
                place = torch.tensor([[length - 1]])
                hidden, cache = family.forward_embeds(embeds, torch.ones(1, length), place, cache)
                scores = family.logits(hidden[0, -1])

    def _choose(
        self, settings: dict[str, Any], scores: torch.Tensor, noise: torch.Generator
    ) -> tuple[int, dict[str, Any]]:
        temperature = settings["temperature"] or 1.0
        scores = scores.clone()
        if self.faults.bans_ignored:
            scores[self.family.audio_id] = scores.max() + 5
        raw = scores.log_softmax(-1)
        if settings.get("logit_bias") and not self.faults.bans_ignored:
            for token, bias in settings["logit_bias"].items():
                scores[int(token)] += bias
        if allowed := settings.get("allowed_token_ids"):
            left = torch.full_like(scores, float("-inf"))
            left[allowed] = scores[allowed]
            scores = left
        processed = (scores / temperature).log_softmax(-1)
        if settings["temperature"] == 0:
            token = int(scores.argmax())
        else:
            token = int(torch.multinomial(processed.exp(), 1, generator=noise))
        said = processed if self.faults.processed else raw
        top = said.topk(max(1, settings["logprobs"]))
        likely = [
            {"token_id": int(i), "logprob": max(float(v), -9999.0)}
            for v, i in zip(top.values, top.indices, strict=True)
        ]
        return token, {"token_id": token, "logprob": float(said[token]), "top_logprobs": likely}


def _joined(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Choices of one token each as one."""
    ids = [token for choice in choices for token in choice["token_ids"]]
    content = [entry for choice in choices for entry in choice["logprobs"]["content"]]
    return {**choices[-1], "token_ids": ids, "logprobs": {"content": content}}


class _Server(ThreadingHTTPServer):
    """Knows its open connections, so that it can go down as a killed process does."""

    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def drop(self) -> None:
        """Close all connections."""
        import socket

        for request in list(self._open):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed meanwhile
                pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is no news here."""


def _send(
    handler: BaseHTTPRequestHandler, status: int, said: Any, headers: dict[str, str] | None = None
) -> None:
    data = json.dumps(said).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


@contextmanager
def token_server(family: Family, **options: Any) -> Iterator[TokenServer]:
    """A server on a free port of this machine, for as long as it is wanted."""
    server = TokenServer(family, **options)
    try:
        yield server
    finally:
        server.stop()
