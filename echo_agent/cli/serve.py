"""``echo-agent serve``: the agent behind an HTTP interface. It is bound before the model is loaded."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echo_agent.cli.ask import load_agent
from echo_agent.cli.status import StatusLine
from echo_agent.errors import DataError, MissingExtraError
from echo_agent.families.base import TAIL
from echo_agent.families.hearing import longest_recording
from echo_agent.serve.settings import KEY, Settings, check_key
from echo_agent.terminal import say

BACKLOG = 256
"""Connections that the system holds until the server takes them."""


def run(
    host: str,
    port: int,
    *,
    model: str,
    device: str,
    allow_host: Sequence[str],
    max_megabytes: int,
    **limits: Any,
) -> None:
    """Serve until an interrupt."""
    try:
        import uvicorn

        from echo_agent.serve.app import build_app
    except ImportError as error:
        raise MissingExtraError(
            f"echo-agent serve needs: pip install 'echo-agent[serve]' ({error.name})"
        ) from error
    key = os.environ.get(KEY) or None
    check_key(host, key)
    if limits["max_seconds"] is None:
        longest = longest_recording(model)
        limits["max_seconds"] = Settings.max_seconds if longest is None else longest + TAIL
    name = Path(model).resolve().name if Path(model).is_dir() else model
    settings = Settings(
        name=name,
        key=key,
        hosts=frozenset(one.lower().rstrip(".") for one in allow_host),
        max_bytes=max_megabytes << 20,
        **limits,
    )
    bound = bind(host, port)
    address, number = bound.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    with bound, StatusLine() as status, load_agent(model, device, status) as agent:
        status.clear()
        config = uvicorn.Config(
            build_app(agent, settings),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=round(settings.grace),
        )
        server = uvicorn.Server(config)
        bound.listen(BACKLOG)  # who reads the line may call at once
        say(
            f"{name} at http://{shown}:{number}/v1 ({'with' if key else 'without'} a key); Ctrl-C stops it",
            flush=True,
        )
        try:
            server.run(sockets=[bound])
        except KeyboardInterrupt:
            if not server.started:  # the interrupt is that of somebody who does not want to wait
                raise
        say("stopped", flush=True)


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound; raises DataError where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except BaseException:
            made.close()
            raise
        return made
    except OSError as error:
        raise DataError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; name another --port"
        ) from error
