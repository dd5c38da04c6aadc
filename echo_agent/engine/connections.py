"""Requests over connections that are kept open, of which a server closes those that are idle.

Servers close a connection that was idle for some seconds (vLLM: five), and where that happens just as the next request
goes out on it, the client sees a connection that is lost. The server never saw such a request, so nothing was lost: it
goes out again at once, until it has had a connection of its own. Only what goes wrong there says something about the
server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

CLOSED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""How a closed connection shows itself before an answer has begun."""


@asynccontextmanager
async def answered(
    http: httpx.AsyncClient, method: str, url: str, given: Any
) -> AsyncIterator[httpx.Response]:
    """The answer to a request, of which status and headers have come.

    Args:
        http: The client.
        method: ``GET`` or ``POST``.
        url: Where to.
        given: JSON; None for none.

    Raises:
        httpx.TransportError: The server cannot be reached, or does not answer.
    """
    response = await _sent(http, method, url, given)
    try:
        yield response
    finally:
        await response.aclose()


async def _sent(http: httpx.AsyncClient, method: str, url: str, given: Any) -> httpx.Response:
    while True:
        connected: list[str] = []

        async def note(event: str, info: Any, connected: list[str] = connected) -> None:
            if event == "connection.connect_tcp.started":
                connected.append(event)

        request = http.build_request(method, url, json=given, extensions={"trace": note})
        try:
            return await http.send(request, stream=True)
        except CLOSED:
            if connected:
                raise
