"""The official MCP client asks about a recording: it starts ``echo-agent mcp``, as Claude Desktop and others do.

    python examples/mcp_client.py examples 04.flac "Is a telephone heard?"

It needs ``pip install "echo-agent[mcp]"``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.types import TextContent


async def told(progress: float, total: float | None, message: str | None) -> None:
    """Print a re-listen as it happens."""
    print(f"[{progress:g}] {message}")


async def ask(folder: str, path: str, question: str) -> None:
    """Start the server, list its tools, ask, and print what comes."""
    command = StdioServerParameters(command=sys.executable, args=["-m", "echo_agent.cli", "mcp", folder])
    async with Client(stdio_client(command)) as client:
        tools = (await client.list_tools()).tools
        print("tools:", ", ".join(tool.name for tool in tools))
        asked = {"path": path, "question": question}
        result = await client.call_tool("ask_recording", asked, progress_callback=told)
        for block in result.content:
            print(block.text if isinstance(block, TextContent) else f"link: {getattr(block, 'uri', '')}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="of the recordings that may be asked about")
    parser.add_argument("path", help="of the recording, in the folder")
    parser.add_argument("question")
    args = parser.parse_args()
    asyncio.run(ask(args.folder, args.path, args.question))


if __name__ == "__main__":
    main()
