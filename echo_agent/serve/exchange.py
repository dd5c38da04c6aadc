"""One request for an answer, from its first byte to the last of the reply, or to the moment when the client leaves.

Two things go on at once: the work, and the watch for the client's end of the connection. Whichever ends first ends the
other, so that a client that leaves takes its run out of the batch.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from echo_agent.serve.failures import Refused

LEFT = 499
"""The status that is counted for a client that left; nobody is there to get it."""
DRAIN = 10.0
"""Seconds for which the body of a refused request is read on, so that the client gets to read why."""


class Exchange:
    """The reply side of a connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Take a connection, from which at most ``most`` bytes are read."""
        self._request = Request(scope, receive)
        self._receive, self._send, self._most = receive, send, most
        self._read = False
        self.status = 0
        """The HTTP status of the reply, once it has begun."""
        self.ended = False
        """All of the reply was sent."""

    @property
    def begun(self) -> bool:
        """Whether something was sent."""
        return self.status > 0

    async def body(self) -> bytes:
        """All of the request's body.

        Raises:
            Refused: It is larger than is taken, or not said to be JSON.
            ClientDisconnect: The client left.
        """
        kind = self._request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415, "send the request as application/json", "unsupported_media_type")
        length = self._request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._most:
            raise self._too_large()
        found = bytearray()
        async for chunk in self._request.stream():
            found += chunk
            if len(found) > self._most:
                raise self._too_large()
        self._read = True
        return bytes(found)

    def _too_large(self) -> Refused:
        return Refused(413, f"the request is larger than the {self._most} bytes that are taken", "too_large")

    async def unless_left(self, work: Awaitable[None]) -> None:
        """Do the work; if the client leaves before it is done, it is cancelled. Raises ClientDisconnect then."""
        doing = asyncio.ensure_future(work)
        watch = asyncio.create_task(self._leaves())
        try:
            await asyncio.wait({doing, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise ClientDisconnect
            await doing
        finally:
            for task in (doing, watch):
                task.cancel()
            await asyncio.gather(doing, watch, return_exceptions=True)

    async def _leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    # --- sending ------------------------------------------------------------------------------------------------

    async def json(
        self, status: int, data: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a whole reply."""
        body = json.dumps(data, separators=(",", ":")).encode()
        await self._begin(status, "application/json", {"Content-Length": f"{len(body)}", **(headers or {})})
        self.ended = True
        await self._send({"type": "http.response.body", "body": body})

    async def chunk(self, data: bytes) -> None:
        """Send a piece of a stream of events."""
        if not self.begun:
            await self._begin(200, "text/event-stream; charset=utf-8", {"Cache-Control": "no-store"})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        self.ended = True
        await self._send({"type": "http.response.body", "body": b""})

    async def refuse(self, failure: Refused) -> None:
        """Say what went wrong: as the reply, or as the last event of a stream that has begun."""
        if self.begun:
            await self.chunk(f"data: {json.dumps(failure.body())}\n\n".encode())
            await self.end()
            return
        if not self._read:
            await self._drain()
        await self.json(failure.status, failure.body(), failure.headers)

    async def _drain(self) -> None:
        """Read on, and keep nothing: who is still writing does not read."""
        left = self._most
        try:
            async with asyncio.timeout(DRAIN):
                while left > 0:
                    message = await self._receive()
                    left -= max(1, len(message.get("body", b"")))
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return
        except TimeoutError:
            return

    async def _begin(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        self.status = status
        pairs = {"Content-Type": kind, **headers}
        start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs.items()],
        }
        await self._send(start)
