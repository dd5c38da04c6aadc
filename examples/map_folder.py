"""Map-reduce over a folder: one question about every recording in it, all at once, and a count of the answers.

    python examples/map_folder.py examples "Is a telephone heard?" --limit 3

*find* lists the folder, ``Send`` starts one *listen* for each recording, and *count* takes together what they heard.
Runs that are made together are decoded as one batch.
"""

from __future__ import annotations

import argparse
import asyncio
import operator
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from typing_extensions import TypedDict

from echo_agent import EchoAgent
from echo_agent.graphs import ListeningInput

SOUNDS = (".flac", ".wav", ".mp3", ".ogg", ".m4a")


class Survey(TypedDict):
    """What is asked of a folder, and what was heard in it."""

    folder: str
    question: str
    limit: int
    heard: Annotated[list[tuple[str, str | None]], operator.add]
    counts: dict[str, int]


def build(agent: EchoAgent, folder: str) -> Any:
    """The graph for one folder."""
    ear = agent.graph(checkpointer=False, folder=folder, max_relistens=4)

    def find(state: Survey) -> list[Send]:
        names = sorted(path.name for path in Path(state["folder"]).iterdir() if path.suffix in SOUNDS)
        asks = [ListeningInput(question=state["question"], recordings=[name]) for name in names]
        return [Send("listen", ask) for ask in asks[: state["limit"]]]

    async def listen(ask: ListeningInput) -> dict[str, Any]:
        done = await ear.ainvoke(ask)
        return {"heard": [(ask.get("recordings", [""])[0], done["answer"])]}

    def count(state: Survey) -> dict[str, Any]:
        return {"counts": dict(Counter(answer or "no answer" for _, answer in state["heard"]))}

    graph: Any = StateGraph(Survey)
    graph.add_node("listen", listen).add_node("count", count)
    graph.add_conditional_edges(START, find, ["listen"])
    graph.add_edge("listen", "count").add_edge("count", END)
    return graph.compile()


async def survey(folder: str, question: str, limit: int, model: str) -> None:
    """Ask, and print each answer and the counts."""
    with EchoAgent.from_pretrained(model) as agent:
        given = {"folder": folder, "question": question, "limit": limit, "heard": []}
        done = await build(agent, folder).ainvoke(given)
    for name, answer in sorted(done["heard"]):
        print(f"{name}: {answer}")
    print(", ".join(f"{answer}: {number}" for answer, number in sorted(done["counts"].items())))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("question")
    parser.add_argument("--limit", type=int, default=100, help="most recordings")
    parser.add_argument("--model", default="echo-nano")
    args = parser.parse_args()
    asyncio.run(survey(args.folder, args.question, args.limit, args.model))


if __name__ == "__main__":
    main()
