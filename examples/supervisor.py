"""A supervisor with two audio specialists: it decides who listens, and takes their findings together.

    OPENAI_API_KEY=... python examples/supervisor.py openai:gpt-5-mini examples "What happens in 04.flac?"

Both specialists are tools made of one loaded model: *glance* answers from one listen and is cheap, *study* listens
again up to eight times. Specialists may as well be two models, one for speech and one for music.
"""

from __future__ import annotations

import argparse

from langchain.agents import create_agent
from langchain_core.messages import ToolMessage

from echo_agent import EchoAgent

PROMPT = (
    "You supervise two specialists who listen to recordings for you. Ask glance first. Ask study where details, "
    "numbers, order or times matter, or where glance gave no answer."
)
GLANCE = "Asks a specialist who hears the recording once, quickly: what kind of sounds are there at all."
STUDY = "Asks a specialist who listens again, closely, where needed: digits, words, counts, order, times."


def main() -> None:
    """Ask, and print who was asked and what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="of the supervisor, such as openai:gpt-5-mini")
    parser.add_argument("folder", help="of the recordings that may be asked about")
    parser.add_argument("question")
    parser.add_argument("--ear", default="echo-nano", help="the model that listens")
    args = parser.parse_args()
    with EchoAgent.from_pretrained(args.ear) as agent:
        specialists = [
            agent.as_tool(args.folder, name="glance", description=GLANCE, relisten=False),
            agent.as_tool(args.folder, name="study", description=STUDY, max_relistens=8),
        ]
        supervisor = create_agent(args.model, specialists, system_prompt=PROMPT)
        done = supervisor.invoke({"messages": [("user", args.question)]})
    for message in done["messages"]:
        if isinstance(message, ToolMessage):
            print(f"[{message.name}] {' '.join(message.text.split())}")
    print(done["messages"][-1].text)


if __name__ == "__main__":
    main()
