"""The server: many clients, one engine.

``POST /v1/chat/completions`` is OpenAI's interface, ``GET /v1/models`` says what can be asked, ``/health`` whether the
server is there, and ``/metrics`` what it did, for Prometheus. ``/openapi.json`` describes all of it.

A request passes, in this order: the key, a place (or 429), its body within limits, its recordings within limits, its
turn to run. Then it is a run like any other, which the engine decodes together with all that are running.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from echo_agent.errors import EchoAgentError
from echo_agent.serve.conversation import asked_in
from echo_agent.serve.exchange import LEFT, Exchange
from echo_agent.serve.failures import Refused, refused
from echo_agent.serve.gate import Full, Gate
from echo_agent.serve.metrics import CONTENT_TYPE, Metrics
from echo_agent.serve.protocol import ChatRequest, read_request
from echo_agent.serve.replies import Reply
from echo_agent.serve.schema import described
from echo_agent.serve.settings import Settings, is_loopback
from echo_agent.serve.uploads import recordings_of

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent
    from echo_agent.results import EchoResult


class Server:
    """What all requests share."""

    def __init__(self, agent: EchoAgent, settings: Settings) -> None:
        """Serve an agent; it is not closed here."""
        self.agent, self.settings = agent, settings
        self.gate = Gate(settings.running, settings.waiting)
        self.metrics = Metrics(agent, self.gate)
        self.began = int(time.time())

    def admit(self, headers: Mapping[str, str]) -> None:
        """Let a client in; raises Refused."""
        key = self.settings.key
        if key is None:
            named = headers.get("host", "")
            host = named[1:].partition("]")[0] if named.startswith("[") else named.partition(":")[0]
            if not is_loopback(host):  # a page in a browser whose name was made to lead here
                raise Refused(403, "this server is for this machine: call it localhost or 127.0.0.1", "host")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
            raise Refused(401, "this server wants its key: Authorization: Bearer KEY", "invalid_api_key")

    async def answer(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        """Answer one request; whatever is wrong with it is said to the client."""
        began = time.perf_counter()
        try:
            try:
                async with asyncio.timeout(self.settings.timeout):
                    self.admit(headers)
                    with self.gate.place():
                        data = await exchange.body()
                        await exchange.unless_left(self._run(exchange, data))
            except Full:
                raise Refused(
                    429, "there are too many requests at once: try again", "too_many_requests"
                ) from None
            except TimeoutError:
                limit = f"{self.settings.timeout:g} s"
                raise Refused(
                    504, f"this took longer than the {limit} that a request may take", "timeout"
                ) from None
            except EchoAgentError as error:
                raise refused(error) from error
        except Refused as failure:
            await exchange.refuse(failure)
        except ClientDisconnect:
            pass
        finally:
            self.metrics.request(exchange.status if exchange.ended else LEFT, time.perf_counter() - began)

    async def _run(self, exchange: Exchange, data: bytes) -> None:
        """Read a request, run it, and reply."""
        agent, settings = self.agent, self.settings
        request = await asyncio.to_thread(read_request, data)
        if request.model != settings.name:
            raise Refused(
                404, f"there is no model {request.model[:80]!r}; there is {settings.name}", "model_not_found"
            )
        options = request.options(settings.max_relistens, settings.max_new_tokens)
        asked = asked_in(
            request.messages,
            reads_conversation=agent.family.reads_conversation,
            most_characters=settings.max_characters - sum(map(len, request.echo.choices or ())),
        )
        heard: Any = await recordings_of(asked.audio, settings, agent.family.sample_rate)
        call = (heard, asked.question, request.echo.choices)
        reply = Reply(settings.name, agent.fingerprint)
        async with self.gate.turn():
            if request.stream:
                await self._stream(exchange, request, reply, call, options)
            else:
                result = await agent.aask(*call, **options)
                self.metrics.run(result)
                await exchange.json(200, reply.whole(result))

    async def _stream(
        self,
        exchange: Exchange,
        request: ChatRequest,
        reply: Reply,
        call: tuple[Any, ...],
        options: dict[str, Any],
    ) -> None:
        """Send what happens as it does; nothing is sent before the run has begun, so that errors have their status."""
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        run: asyncio.Task[EchoResult] = asyncio.create_task(
            self.agent.aask(*call, on_event=events.put_nowait, **options)
        )
        run.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                if not exchange.begun:
                    await exchange.chunk(reply.first())
                if (chunk := reply.event(event)) is not None:
                    await exchange.chunk(chunk)
            result = await run
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
        self.metrics.run(result)
        if not exchange.begun:  # nothing happened: the model was not asked
            await exchange.chunk(reply.first())
        usage = request.stream_options is not None and bool(request.stream_options.include_usage)
        await exchange.chunk(reply.last(result, usage=usage))
        await exchange.end()


class _Answer(Response):
    """A response that does its own work, so that it sees the client leave and holds its place until the last byte."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._server.settings.max_bytes)
        await self._server.answer(exchange, Request(scope).headers)


def build_app(agent: EchoAgent, settings: Settings) -> FastAPI:
    """The server as an ASGI application.

    Args:
        agent: Answers; the caller closes it once the application has stopped.
        settings: What is allowed.
    """
    server = Server(agent, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        agent.engine.check_process()
        _ = agent.fingerprint  # of the weights, computed once
        yield

    app = FastAPI(title="echo-agent", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server

    @app.exception_handler(Refused)
    async def _refused(_: Request, failure: Refused) -> JSONResponse:
        return JSONResponse(failure.body(), failure.status, failure.headers)

    @app.exception_handler(HTTPException)
    async def _unknown(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{request.method} {request.url.path[:80]}: {error.detail}"
        return JSONResponse(Refused(error.status_code, message).body(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> JSONResponse:
        """A mistake of ours: its traceback goes to the log, and not to the client."""
        return JSONResponse(Refused(500, "something unexpected went wrong", "unexpected").body(), 500)

    @app.post("/v1/chat/completions", **described("chat"))
    async def chat() -> Response:
        """Ask a question about the recordings of a conversation."""
        return _Answer(server)

    @app.get("/v1/models", **described("models"))
    async def models(request: Request) -> dict[str, Any]:
        """What can be asked."""
        server.admit(request.headers)
        model = {"id": settings.name, "object": "model", "created": server.began, "owned_by": "echo-agent"}
        return {"object": "list", "data": [model]}

    @app.get("/health", **described("health"))
    async def health() -> dict[str, str]:
        """Whether the server is there."""
        return {"status": "ok"}

    @app.get("/metrics", **described("metrics"))
    async def metrics(request: Request) -> Response:
        """Counters, in the text form of Prometheus."""
        server.admit(request.headers)
        return Response(server.metrics.text(), media_type=CONTENT_TYPE)

    return app
