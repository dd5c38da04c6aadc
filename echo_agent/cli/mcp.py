"""``echo-agent mcp``: the recordings of one folder for MCP clients, over standard input and output or over HTTP.

Over standard output goes the protocol alone; what there is to say to a person goes to stderr.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from echo_agent.cli.ask import load_agent
from echo_agent.cli.status import StatusLine
from echo_agent.errors import EchoAgentError, MissingExtraError
from echo_agent.folder import Folder
from echo_agent.terminal import beneath, printable, say

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent

HOST = "127.0.0.1"
"""The server has no keys: nobody but this machine reaches it."""


def run(folder: str, *, model: str, device: str, max_relistens: int, port: int | None) -> None:
    """Serve until the client leaves, or until interrupted; ``port`` is that of HTTP, None for standard streams."""
    files = Folder(folder)
    from echo_agent.mcp_server import RecordingServer

    def load() -> EchoAgent:
        try:
            with StatusLine() as status:
                return load_agent(model, device, status)
        except EchoAgentError as error:
            say(f"echo-agent: {error}", error=True, flush=True)
            raise

    with RecordingServer(files, load, max_relistens=max_relistens) as server:
        if port is None:
            with redirect_stdout(beneath(sys.stdout)):  # the protocol is written in bytes
                server.mcp.run("stdio")
        else:
            _serve(server.mcp.streamable_http_app(host=HOST), port)


def _serve(app: Any, port: int) -> None:
    """Serve an application on this machine, and say where."""
    import asyncio
    import socket

    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtraError('the MCP server needs: pip install "echo-agent[mcp]"') from error

    with socket.create_server((HOST, port)) as listener:
        where = f"http://{HOST}:{listener.getsockname()[1]}/mcp"
        say(f"echo-agent: {printable(where)}", error=True, flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
