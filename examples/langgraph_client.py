"""Ask a server of LangGraph, such as ``langgraph dev``, and watch where the model listens again.

    python examples/langgraph_client.py http://127.0.0.1:2024 everyday/talk.ogg "What is the speaker's name?"

The recording is the name of a file in the server's folder. A second question goes to the same thread, as a message, and
is about the same recording. The client comes with LangGraph.
"""

from __future__ import annotations

import argparse

from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

GRAPH = "listening"
"""What ``langgraph.json`` calls the graph."""


def schemas(client: SyncLangGraphClient) -> None:
    """Print what goes into the graph and what comes out."""
    (assistant, *_) = client.assistants.search(graph_id=GRAPH)
    found = client.assistants.get_schemas(assistant["assistant_id"])
    for name in ("input_schema", "output_schema"):
        print(f"{name}: {', '.join(sorted((found[name] or {}).get('properties', {})))}")


def watch(client: SyncLangGraphClient, thread: str, given: dict[str, object]) -> None:
    """Ask in a thread, and print what happens as it happens."""
    for part in client.runs.stream(thread, GRAPH, input=given, stream_mode="custom"):
        match part.data:
            case {"type": "relisten", "start": float(start), "end": float(end)}:
                print(f"listens again to {start:g} to {end:g} s")
            case {"type": "answer", "answer": answer}:
                print(f"answer: {answer}")
            case {"error": error, "message": message}:
                print(f"{error}: {message}")


def ask(address: str, recording: str, question: str) -> None:
    """Ask twice in one thread, and print how many messages it holds then."""
    with get_sync_client(url=address) as client:
        schemas(client)
        thread = client.threads.create()["thread_id"]
        watch(client, thread, {"question": question, "recordings": [recording]})
        watch(client, thread, {"messages": [{"role": "user", "content": "Is a telephone heard?"}]})
        print(f"messages: {len(client.threads.get_state(thread)['values']['messages'])}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address", help="of the server")
    parser.add_argument("recording", help="name of a file in the server's folder")
    parser.add_argument("question")
    args = parser.parse_args()
    ask(args.address, args.recording, args.question)


if __name__ == "__main__":
    main()
